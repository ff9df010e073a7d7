"""A few labelled probes make a gallery's own promise more cautious, never bolder."""

from __future__ import annotations

import numpy as np
import pytest
from tests.indexer.calibration.tables import certificate, drawn_searches

from facedex.indexer.calibration.correction import ProbeCorrection, corrected_table
from facedex.indexer.calibration.operating_table import OperatingTable
from facedex.indexer.calibration.promise import Kind
from facedex.indexer.calibration.scores import MatedSearches, NonMatedSearches, Searches

ENROLLED = drawn_searches()
TABLE = certificate(ENROLLED).table


def probes(*, strangers_raised: float = 0.0, mates_lowered: float = 0.0, people: int = 100) -> Searches:
    """As the gallery's own photographs, but all scores of a kind are shifted."""
    some = drawn_searches(seed=1, strangers=people)
    non_mated, mated = some.non_mated, some.mated
    return Searches(
        NonMatedSearches(
            non_mated.top_scores + strangers_raised,
            non_mated.probe_identities,
            non_mated.nearest_identities,
            non_mated.gallery_templates,
        ),
        MatedSearches(mated.mate_scores - mates_lowered, mated.mate_ranks, mated.probe_identities),
    )


def corrected(found: Searches) -> OperatingTable:
    return corrected_table(TABLE, ProbeCorrection.of(ENROLLED, found), found)


def test_a_known_shift_lies_within_its_interval() -> None:
    correction = ProbeCorrection.of(ENROLLED, probes(strangers_raised=0.05, mates_lowered=0.1))
    assert correction.non_mated is not None
    assert correction.mated is not None
    assert correction.non_mated.lower < 0.05 < correction.non_mated.upper < 0.07
    assert correction.mated.lower < -0.1 < correction.mated.upper < -0.07


def test_intervals_of_shifts_cover_the_truth() -> None:
    """Of 30 draws without a shift 28 or 29 are expected to hold 0; 24 or fewer would come about once in 300 such tests."""
    covered = 0
    for seed in range(30):
        found = drawn_searches(seed=100 + seed, strangers=60)
        shift = ProbeCorrection.of(drawn_searches(seed=200 + seed, strangers=300), found).non_mated
        assert shift is not None
        covered += shift.lower <= 0 <= shift.upper
    assert covered >= 25


def test_more_strangers_tell_the_shift_more_closely() -> None:
    few, many = (ProbeCorrection.of(ENROLLED, probes(people=people)).non_mated for people in (20, 2_000))
    assert few is not None
    assert many is not None
    assert few.upper - few.lower > 2 * (many.upper - many.lower)


@pytest.mark.parametrize("raised", [-0.05, 0.0, 0.05])
def test_probes_never_lower_the_upper_limit_of_fpir(raised: float) -> None:
    for before, after in zip(TABLE.rows, corrected(probes(strangers_raised=raised)).rows, strict=True):
        assert after.fpir.upper >= before.fpir.upper
        assert after.fpir.lower <= before.fpir.lower


def test_strangers_who_score_higher_raise_the_threshold_by_about_as_much() -> None:
    alone = TABLE.resolve(0.03, gallery_templates=300).threshold
    raised = corrected(probes(strangers_raised=0.05)).resolve(0.03, gallery_templates=300)
    assert alone + 0.05 <= raised.threshold < alone + 0.08
    assert raised.kind is Kind.EXTRAPOLATED


def test_a_stranger_who_was_found_counts_whatever_the_shift_says() -> None:
    found = probes()
    found.non_mated.top_scores[:10] = 0.8
    table = corrected(found)
    assert table.fpir(0.8, gallery_templates=300).upper >= 0.1
    assert table.fpir(0.81, gallery_templates=300).upper < 0.1


def test_fnir_is_the_probes_own() -> None:
    found = probes(mates_lowered=0.2)
    table = corrected(found)
    fnir = table.fnir(0.5)
    assert fnir is not None
    assert fnir.estimate == pytest.approx(float((found.mated.mate_scores < 0.5).mean()), abs=1e-8)
    assert table.evidence.mated_searches == len(found.mated)


def test_probes_of_strangers_alone_leave_fnir_as_it_was() -> None:
    found = probes()
    nobody = MatedSearches(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    table = corrected(Searches(found.non_mated, nobody))
    assert [row.fnir for row in table.rows] == [row.fnir for row in TABLE.rows]
    assert table.evidence.mated_searches == TABLE.evidence.mated_searches


def test_too_few_people_tell_no_shift() -> None:
    correction = ProbeCorrection.of(ENROLLED, probes(people=4))
    assert correction.non_mated is None
    assert correction.raised_by == 0


def test_failures_to_acquire_are_no_shift() -> None:
    found = probes()
    failed = Searches(found.non_mated.with_failures(np.arange(5_000, 5_300)), found.mated)
    assert ProbeCorrection.of(ENROLLED, failed).non_mated == ProbeCorrection.of(ENROLLED, found).non_mated
