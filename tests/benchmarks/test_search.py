"""The benchmark of search: real people among others, and bars that can be missed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.open_set import Faces
from benchmarks.real_faces import among_others
from benchmarks.search import MILLION, PEERS_FROM, Measured, bars_of
from tests.indexer.doubles import Person, person_vector

OURS = Measured(
    "facedex", 1.0, 1_250.0, single_ms=1.0, batch_ms_per_probe=0.5, added_fnir=0.0, recall_at_1=1.0, probes=9
)


def faces_of(numbers: range, *, takes: int) -> Faces:
    pairs = [(number, take) for number in numbers for take in range(takes)]
    vectors = np.stack([person_vector(Person(number, away=0.3), take=take) for number, take in pairs])
    return Faces(vectors, np.array([number - numbers.start for number, _ in pairs]), np.ones(len(pairs)))


def test_each_probe_of_a_real_person_is_nearest_to_that_person_among_mixed_others() -> None:
    """The first photograph is the template, the others are probes, and no mix resembles whom it is not made of."""
    people, others = faces_of(range(5), takes=3), faces_of(range(5, 25), takes=2)
    mixed = among_others(people, others, template_count=500, probe_count=100)
    assert len(mixed.templates) == 500
    assert len(mixed.probes) == 10
    np.testing.assert_allclose(np.linalg.norm(mixed.rows(0, 500), axis=1), 1, atol=1e-3)
    np.testing.assert_array_equal((mixed.probes @ mixed.rows(0, 500).T).argmax(axis=1), mixed.mates)


def test_fewer_templates_than_there_are_real_people_are_taken_as_they_are() -> None:
    people, others = faces_of(range(5), takes=2), faces_of(range(5, 25), takes=2)
    mixed = among_others(people, others, template_count=20, probe_count=3)
    np.testing.assert_array_equal(mixed.templates[5:], others.vectors[:15].astype(np.float16))
    assert len(mixed.probes) == 3


@pytest.mark.parametrize(("single_ms", "is_met"), [(15.0, True), (14.9, False)])
def test_a_bar_is_met_exactly_where_the_peer_takes_so_many_times_as_long(single_ms: float, *, is_met: bool) -> None:
    flat = replace(OURS, name="faiss-flat", single_ms=single_ms, batch_ms_per_probe=25.0)
    bars = {bar.what: bar.is_met for bar in bars_of([OURS, flat], templates=MILLION)}
    assert bars["single search, by IndexFlatIP's"] is is_met
    assert bars["batched search, by IndexFlatIP's"]


def test_a_peer_is_compared_at_its_fastest_setting_that_loses_no_more_faces() -> None:
    fast, careful = (
        replace(OURS, name=f"hnswlib-{name}", single_ms=ms, added_fnir=fnir)
        for name, ms, fnir in (("fast", 3.0, 0.05), ("careful", 60.0, 0.0))
    )
    bars = bars_of([OURS, fast, careful], templates=PEERS_FROM)
    assert [bar.measured for bar in bars] == [0.0, 60.0]


def test_a_lost_face_misses_the_bar() -> None:
    assert not bars_of([replace(OURS, added_fnir=1e-4)], templates=PEERS_FROM)[0].is_met
