"""The arithmetic of docs/scale.md: what the script prints, and a queue whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.queueing import MOST_TOGETHER, Service, simulate
from benchmarks.scale import SIZES, document, service_of
from benchmarks.unit_costs import stored_costs

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "scale.md"


def test_the_document_shows_what_the_script_prints() -> None:
    assert document(stored_costs()) in DOCUMENT.read_text(encoding="utf-8")


def test_other_unit_costs_are_noticed() -> None:
    costs = stored_costs()
    dearer = replace(costs, memory_per_template=1.2 * costs.memory_per_template)
    assert document(dearer) not in DOCUMENT.read_text(encoding="utf-8")


def test_who_comes_to_an_idle_server_waits_for_the_search_alone() -> None:
    latency = simulate(Service(fixed=0.01, each=0.002), servers=1, per_second=0.1)
    assert latency.p50 == pytest.approx(0.012)


def test_a_queue_without_anything_in_common_waits_as_long_as_theory_says() -> None:
    """One server of constant service time, half loaded (M/D/1): the mean stay is 1.5 times the service, the median less."""
    latency = simulate(Service(fixed=0.0, each=0.01), servers=1, per_second=50)
    assert 0.01 <= latency.p50 <= 0.02
    assert latency.p99 < 0.08


def test_searching_together_carries_a_load_that_one_by_one_would_not() -> None:
    shared = Service(fixed=0.09, each=0.01)
    assert shared.most_per_second == pytest.approx(MOST_TOGETHER / 0.73)
    assert simulate(shared, servers=1, per_second=50).p99 < 2
    assert simulate(Service(fixed=0.0, each=0.1), servers=1, per_second=50).p99 > 100


def test_a_server_that_is_missing_is_felt_by_all() -> None:
    service = Service(fixed=0.05, each=0.01)
    load = 0.6 * 3 * service.most_per_second
    whole, after = (simulate(service, servers=count, per_second=load) for count in (3, 2))
    assert after.p99 > whole.p99


@pytest.mark.parametrize("size", SIZES)
def test_the_service_repeats_what_was_measured_of_one_and_of_64_probes(size: int) -> None:
    costs = stored_costs()
    service = service_of(costs, size, cores=costs.cores)
    assert service.seconds(1) == pytest.approx(costs.single_search * size / costs.cores)
    assert service.seconds(64) == pytest.approx(64 * costs.search_together * size / costs.cores)
