"""The table of a certificate says what the promise says that it was made of, and never more."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.indexer.calibration.populations import TEMPLATES
from tests.indexer.calibration.tables import drawn_searches

from facedex.indexer.calibration.errors import PromiseRefused, ScoresInvalid
from facedex.indexer.calibration.metrics import fnir, fpir
from facedex.indexer.calibration.operating_table import STEPS, OperatingTable
from facedex.indexer.calibration.promise import Kind, Promise

SEARCHES = drawn_searches()
PROMISE = Promise.of(SEARCHES.non_mated)
TABLE = OperatingTable.of(PROMISE, SEARCHES.mated)


def resolved(target_fpir: float, gallery_templates: int) -> float:
    """The threshold; 2, above all cosines, where the target is refused."""
    try:
        return TABLE.resolve(target_fpir, gallery_templates=gallery_templates).threshold
    except PromiseRefused:
        return 2.0


def test_each_row_says_what_the_promise_says_at_its_threshold() -> None:
    for row in TABLE.rows:
        promised = PROMISE.fpir_interval(row.threshold, gallery_templates=TEMPLATES)
        assert row.kind is promised.kind
        assert row.fpir.estimate == pytest.approx(promised.estimate, abs=1e-8)
        assert row.fpir.upper <= promised.upper + 1e-8


def test_no_row_promises_more_than_was_counted() -> None:
    for row in TABLE.rows:
        assert fpir(SEARCHES.non_mated, threshold=row.threshold) <= row.fpir.upper
        assert row.fnir is not None
        counted = fnir(SEARCHES.mated, rank=TEMPLATES, threshold=row.threshold)
        assert row.fnir.estimate == pytest.approx(counted, abs=1e-8)


def test_higher_thresholds_have_lower_fpir_and_higher_fnir() -> None:
    assert (np.diff([row.fpir.upper for row in TABLE.rows]) <= 0).all()
    assert (np.diff([row.fnir.estimate for row in TABLE.rows if row.fnir]) >= 0).all()


def test_the_table_survives_json() -> None:
    assert OperatingTable.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE


def test_a_table_without_mated_searches_survives_json_and_knows_no_fnir() -> None:
    table = OperatingTable.of(PROMISE, None)
    assert OperatingTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    assert table.fnir(0.5) is None


@settings(max_examples=40, deadline=None)
@given(
    targets=st.tuples(st.floats(1e-4, 0.5), st.floats(1e-4, 0.5)),
    sizes=st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)),
)
def test_larger_galleries_and_stricter_targets_take_thresholds_that_are_no_lower(
    targets: tuple[float, float], sizes: tuple[int, int]
) -> None:
    strict, lenient = sorted(targets)
    small, large = sorted(sizes)
    assert resolved(strict, small) >= resolved(lenient, small)
    assert resolved(lenient, large) >= resolved(lenient, small)


@settings(max_examples=40, deadline=None)
@given(target=st.floats(0.005, 0.5), size=st.integers(1, 10**5))
def test_the_resolved_threshold_is_the_lowest_whose_upper_limit_keeps_the_target(target: float, size: int) -> None:
    threshold = resolved(target, size)
    if threshold <= 1:
        assert TABLE.fpir(threshold, gallery_templates=size).upper <= target
    below = min(threshold, 1 + 1 / STEPS) - 1 / STEPS
    if threshold > 0:
        assert TABLE.fpir(below, gallery_templates=size).upper > target


def test_a_threshold_between_two_rows_has_the_fpir_of_the_lower_one() -> None:
    between = TABLE.fpir(0.3005, gallery_templates=TEMPLATES)
    assert between.upper == TABLE.fpir(0.300, gallery_templates=TEMPLATES).upper
    assert between.upper > TABLE.fpir(0.301, gallery_templates=TEMPLATES).upper


@pytest.mark.parametrize("target_fpir", [0.0, 1.0, -0.01, float("nan")])
def test_a_target_that_is_no_share_is_refused(target_fpir: float) -> None:
    with pytest.raises(ScoresInvalid, match="target_fpir"):
        TABLE.resolve(target_fpir, gallery_templates=TEMPLATES)


def test_a_gallery_of_another_size_is_extrapolated_and_the_same_size_is_measured() -> None:
    assert TABLE.resolve(0.05, gallery_templates=TEMPLATES).kind is Kind.MEASURED
    assert TABLE.resolve(0.05, gallery_templates=2 * TEMPLATES).kind is Kind.EXTRAPOLATED


def test_a_refusal_names_as_many_people_as_independent_searches_are_missing() -> None:
    with pytest.raises(PromiseRefused) as refused:
        TABLE.resolve(1e-5, gallery_templates=TEMPLATES)
    # Without any error, −ln(0.025) / 1e-5 independent searches put the upper limit at the target.
    needed = 368_887 - TABLE.evidence.independent_searches
    people_for_each = 500 / TABLE.evidence.independent_searches
    assert refused.value.further_identities == pytest.approx(needed * people_for_each, rel=1e-4)
