"""The law through the stages of a training, and where it reaches a mark."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
import typer
from benchmarks.learning_curve import (
    MARKS,
    STORED,
    Law,
    Stage,
    as_document,
    draw,
    law_of,
    laws_without_one,
    of_the_first_network,
    stages_of,
)

if TYPE_CHECKING:
    from pathlib import Path

PLANTED = Law(exponent=-0.25, offset=math.log(0.3) + 0.25 * math.log(1e6), gain=-0.4, level=0.0)


def stage(samples: int) -> Stage:
    found = PLANTED.found(samples)
    return Stage(samples, 1 - PLANTED.distance(samples), 0.9, found, (found - 0.04, found + 0.04))


STAGES = [stage(samples) for samples in (1_000_000, 2_000_000, 4_000_000, 8_000_000)]


def test_a_law_is_found_again_in_what_follows_it() -> None:
    assert asdict(law_of(STAGES)) == pytest.approx(asdict(PLANTED))
    assert all(asdict(each) == pytest.approx(asdict(PLANTED)) for each in laws_without_one(STAGES))


def test_the_law_is_at_a_mark_where_it_says() -> None:
    samples = PLANTED.samples_until(0.8)
    assert PLANTED.found(samples) == pytest.approx(0.8)
    assert samples == pytest.approx(1e6 * (0.3 / math.exp(-2)) ** 4)  # 0.8 = -0.4 log(distance)


def test_a_stage_that_does_not_follow_widens_the_range() -> None:
    astray = [*STAGES[:3], Stage(8_000_000, STAGES[3].cosine, 0.9, STAGES[3].found - 0.05, (0.5, 0.6))]
    least, most = as_document(law_of(astray), laws_without_one(astray))["samples_until"]["the aim"]["range"]
    assert least == pytest.approx(PLANTED.samples_until(MARKS["the aim"]))  # of the law without that stage
    assert most > 1.2 * least


def test_three_stages_are_too_few(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    path.write_text(json.dumps([asdict(each) for each in STAGES[:3]]))
    with pytest.raises(typer.BadParameter, match="3 stages"):
        stages_of(path)


def test_a_stage_of_another_network_does_not_move_the_law() -> None:
    other = Stage(9_000_000, 0.9, 0.99, 0.9, (0.8, 0.95), network="compact-wide")
    assert of_the_first_network([*STAGES, other]) == STAGES


def test_the_stored_stages_lie_in_the_order_of_training_within_their_intervals(tmp_path: Path) -> None:
    stages = stages_of(STORED)
    assert [each.samples for each in stages] == sorted(each.samples for each in stages)
    assert all(least < each.found < most for each in stages for least, most in [each.interval])
    draw(stages, law_of(of_the_first_network(stages)), tmp_path / "curve.svg")
    assert "<svg" in (tmp_path / "curve.svg").read_text()
