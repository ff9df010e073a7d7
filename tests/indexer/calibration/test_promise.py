"""Promises against populations whose error rates are known; and what refuses to promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
from tests.indexer.calibration.populations import (
    TEMPLATES,
    Calibrate,
    Population,
    Tops,
    gallery_itself,
    heavy_strangers,
    heavy_tops,
    of_families,
    population,
    strangers,
    tops_of,
    unrelated,
    with_duplicates,
)

from facedex.indexer.calibration.errors import NoSearches, PromiseRefused, ScoresInvalid
from facedex.indexer.calibration.promise import FpirInterval, Kind, Promise
from facedex.indexer.calibration.scores import NonMatedSearches

REPETITIONS = 100
COVERED_AT_LEAST = 93
MANY_TEMPLATES = 10 * TEMPLATES
LIKE_ONE_PERSON = 0.7

State = Callable[[Promise, float, int], FpirInterval]
once = partial(strangers, people=1_000, photographs=1)
in_families = partial(of_families, families=300)
CALIBRATIONS: dict[str, tuple[Calibrate, Tops]] = {
    "unrelated strangers": (partial(once, gallery=unrelated, probes=unrelated), tops_of(unrelated, unrelated)),
    "strangers photographed four times": (
        partial(strangers, gallery=unrelated, probes=unrelated, people=400, photographs=4),
        tops_of(unrelated, unrelated),
    ),
    "strangers of families": (
        partial(once, gallery=in_families, probes=in_families),
        tops_of(in_families, in_families),
    ),
    "strangers where people are enrolled twice": (
        partial(once, gallery=with_duplicates, probes=unrelated),
        tops_of(with_duplicates, unrelated),
    ),
    "strangers with a heavy tail": (heavy_strangers, heavy_tops),
    "the gallery itself": (partial(gallery_itself, gallery=unrelated), tops_of(unrelated, unrelated)),
    "the gallery itself, of families": (
        partial(gallery_itself, gallery=in_families),
        tops_of(in_families, in_families),
    ),
    "the gallery itself, people enrolled twice": (
        partial(gallery_itself, gallery=with_duplicates),
        tops_of(with_duplicates, unrelated),
    ),
}


@cache
def people_and_promises(name: str) -> tuple[Population, list[Promise]]:
    calibrate, tops = CALIBRATIONS[name]
    drawn = [calibrate(np.random.default_rng(seed)) for seed in range(REPETITIONS)]
    return population(calibrate, tops), [Promise.of(each, duplicates_from=LIKE_ONE_PERSON) for each in drawn]


@pytest.fixture(params=CALIBRATIONS.keys())
def calibrated(request: pytest.FixtureRequest) -> tuple[Population, list[Promise]]:
    return people_and_promises(request.param)


def stated(promise: Promise, threshold: float, gallery_templates: int) -> FpirInterval:
    return promise.fpir_interval(threshold, gallery_templates=gallery_templates)


def narrowed(promise: Promise, threshold: float, gallery_templates: int) -> FpirInterval:
    """Half as wide as it should be."""
    interval = stated(promise, threshold, gallery_templates)
    return replace(
        interval,
        lower=(interval.lower + interval.estimate) / 2,
        upper=(interval.upper + interval.estimate) / 2,
    )


def covered(truth: float, state: State, promises: list[Promise], *, threshold: float, templates: int) -> int:
    """How many of a hundred calibrations state an interval that holds the true FPIR."""
    share = np.mean([truth in state(promise, threshold, templates) for promise in promises])
    return round(100 * float(share))


@pytest.mark.parametrize("fpir", [0.1, 0.03, 0.01, 0.003])
def test_intervals_cover_the_true_fpir_at_the_size_that_was_searched(
    calibrated: tuple[Population, list[Promise]], fpir: float
) -> None:
    people, promises = calibrated
    threshold = float(np.quantile(people.tops, 1 - fpir))
    truth = people.fpir(threshold)
    assert covered(truth, stated, promises, threshold=threshold, templates=TEMPLATES) >= COVERED_AT_LEAST


@pytest.mark.parametrize("fpir", [0.03, 0.01, 0.003])
def test_intervals_cover_the_true_fpir_of_a_gallery_ten_times_as_large(
    calibrated: tuple[Population, list[Promise]], fpir: float
) -> None:
    people, promises = calibrated
    threshold = float(np.quantile(people.tops, 1 - fpir))
    truth = people.fpir_in_ten_times(threshold)
    assert covered(truth, stated, promises, threshold=threshold, templates=MANY_TEMPLATES) >= COVERED_AT_LEAST


@pytest.mark.parametrize(("target", "templates"), [(0.03, TEMPLATES), (0.1, MANY_TEMPLATES)])
def test_resolved_thresholds_keep_their_target(
    calibrated: tuple[Population, list[Promise]], target: float, templates: int
) -> None:
    people, promises = calibrated
    truth = people.fpir if templates == TEMPLATES else people.fpir_in_ten_times
    broken = [truth(interval.threshold) > target for interval in resolved(promises, target, templates)]
    assert sum(broken) <= 100 - COVERED_AT_LEAST


def resolved(promises: list[Promise], target: float, templates: int) -> list[FpirInterval]:
    found: list[FpirInterval] = []
    for promise in promises:
        try:
            found.append(promise.resolve(target, gallery_templates=templates))
        except PromiseRefused:  # which breaks no promise
            continue
    return found


@pytest.fixture
def plain() -> tuple[Population, list[Promise]]:
    return people_and_promises("unrelated strangers")


def test_the_coverage_test_fails_for_intervals_that_are_too_narrow(plain: tuple[Population, list[Promise]]) -> None:
    people, promises = plain
    threshold = float(np.quantile(people.tops, 0.97))
    count = covered(people.fpir(threshold), narrowed, promises, threshold=threshold, templates=TEMPLATES)
    assert count < COVERED_AT_LEAST - 10


def test_the_coverage_test_fails_where_mutual_searches_count_as_independent() -> None:
    people, mutual = people_and_promises("the gallery itself")
    promises = [as_if_independent(promise.searches) for promise in mutual]
    threshold = float(np.quantile(people.tops, 0.9))
    assert (
        covered(people.fpir(threshold), stated, promises, threshold=threshold, templates=TEMPLATES) < COVERED_AT_LEAST
    )


def as_if_independent(searches: NonMatedSearches) -> Promise:
    count = len(searches)
    return Promise.of(
        NonMatedSearches(searches.top_scores, np.arange(count), count + np.arange(count), searches.gallery_templates)
    )


def test_a_fixed_threshold_lets_ten_times_more_strangers_in_when_the_gallery_is_ten_times_as_large(
    plain: tuple[Population, list[Promise]],
) -> None:
    people, promises = plain
    assert 8 < people.fpir_in_ten_times(0.4) / people.fpir(0.4) < 11
    kept = [people.fpir_in_ten_times(each.threshold) <= 0.03 for each in resolved(promises, 0.03, MANY_TEMPLATES)]
    assert len(kept) >= 90
    assert np.mean(kept) >= 0.95


def test_a_resolved_interval_is_the_one_that_is_stated_at_its_threshold(
    plain: tuple[Population, list[Promise]],
) -> None:
    for promise in plain[1][:10]:
        for target, templates in [(0.05, TEMPLATES), (0.002, TEMPLATES), (0.03, MANY_TEMPLATES), (0.01, 30)]:
            interval = promise.resolve(target, gallery_templates=templates)
            assert interval == promise.fpir_interval(interval.threshold, gallery_templates=templates)
            assert interval.lower <= interval.estimate <= interval.upper <= target


def test_a_resolved_threshold_is_the_lowest_that_counting_allows(plain: tuple[Population, list[Promise]]) -> None:
    promise = plain[1][0]
    interval = promise.resolve(0.02, gallery_templates=TEMPLATES)
    assert interval.kind is Kind.MEASURED
    assert promise.fpir_interval(interval.threshold - 2e-6, gallery_templates=TEMPLATES).upper > 0.02


def test_beyond_the_highest_score_and_at_other_sizes_an_interval_is_an_extrapolation(
    plain: tuple[Population, list[Promise]],
) -> None:
    promise = plain[1][0]
    highest = promise.highest_score
    kinds = {
        (threshold, size): promise.fpir_interval(threshold, gallery_templates=size).kind
        for threshold in (highest, highest + 0.01)
        for size in (TEMPLATES // 2, TEMPLATES, 330, MANY_TEMPLATES)
    }
    assert {key for key, kind in kinds.items() if kind is Kind.MEASURED} == {(highest, TEMPLATES), (highest, 330)}


def test_growth_widens_an_interval_and_never_lowers_it(plain: tuple[Population, list[Promise]]) -> None:
    promise = plain[1][0]
    sizes = [100, 300, 1_000, 10_000, 10_000_000]
    intervals = [promise.fpir_interval(0.4, gallery_templates=size) for size in sizes]
    assert intervals == sorted(intervals, key=lambda each: each.upper)
    assert all(small.lower <= large.lower for small, large in pairwise(intervals))


def test_a_target_far_beyond_the_searches_is_refused_with_what_is_missing() -> None:
    promise = Promise.of(once(np.random.default_rng(1), gallery=unrelated, probes=unrelated))
    with pytest.raises(PromiseRefused, match="further identities") as refused:
        promise.resolve(1e-5, gallery_templates=TEMPLATES)
    needed = refused.value.further_identities + refused.value.independent_searches
    # ln 0.025 / ln(1 − 1e-5): what the rule of three becomes for the upper limit of a two-sided 95 % interval.
    assert needed == pytest.approx(368_887, rel=0.001)


def test_as_many_further_identities_as_a_refusal_names_are_enough() -> None:
    few = once(np.random.default_rng(1), gallery=unrelated, probes=unrelated).only(np.arange(1_000) < 40)
    with pytest.raises(PromiseRefused) as refused:
        Promise.of(few).resolve(0.02, gallery_templates=TEMPLATES)
    more = refused.value.further_identities
    assert len(Promise.of(grown(few, more)).searches) == 40 + more
    assert Promise.of(grown(few, more)).resolve(0.02, gallery_templates=TEMPLATES).upper <= 0.02


def grown(searches: NonMatedSearches, count: int) -> NonMatedSearches:
    """Further strangers without a score as high as the highest so far."""
    rng = np.random.default_rng(2)
    return NonMatedSearches(
        np.append(searches.top_scores, rng.uniform(0.2, 0.3, count)),
        np.append(searches.probe_identities, 10_000 + np.arange(count)),
        np.append(searches.nearest_identities, rng.integers(TEMPLATES, size=count)),
        searches.gallery_templates,
    )


def test_people_who_are_enrolled_twice_are_named_in_a_refusal_and_left_out_of_the_estimate() -> None:
    searches = gallery_itself(np.random.default_rng(3), gallery=with_duplicates)
    promise = Promise.of(searches, duplicates_from=LIKE_ONE_PERSON)
    assert promise.doubtful_searches == 2 * TEMPLATES // 50
    interval = promise.fpir_interval(0.6, gallery_templates=TEMPLATES)
    assert interval.lower == interval.estimate == 0
    assert interval.upper > 0.04
    with pytest.raises(PromiseRefused, match="12 of them look like people who are enrolled twice"):
        promise.resolve(0.02, gallery_templates=TEMPLATES)


def test_searches_of_photographs_without_a_face_return_nobody() -> None:
    searches = once(np.random.default_rng(4), gallery=unrelated, probes=unrelated)
    half = Promise.of(searches.with_failures(2_000 + np.arange(1_000)))
    threshold = float(np.quantile(searches.top_scores, 0.9))
    assert half.fpir_interval(threshold, gallery_templates=TEMPLATES).estimate == pytest.approx(0.05)
    all_failed = Promise.of(searches.only(np.zeros(1_000, np.bool_)).with_failures(2_000 + np.arange(1_000)))
    assert all_failed.resolve(0.01, gallery_templates=TEMPLATES).upper < 0.004


def test_what_a_measurement_shows_is_wider_than_what_is_true() -> None:
    interval = FpirInterval(0.5, 400, lower=0.002, estimate=0.004, upper=0.01, kind=Kind.MEASURED)
    shown = interval.measurable(600)
    assert shown.lower == 0
    assert shown.upper == pytest.approx(11 / 600)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, float("nan")])
def test_a_target_that_is_no_share_is_refused(target: float) -> None:
    promise = Promise.of(once(np.random.default_rng(1), gallery=unrelated, probes=unrelated))
    with pytest.raises(ScoresInvalid, match="target_fpir"):
        promise.resolve(target, gallery_templates=TEMPLATES)


def test_nothing_is_promised_from_no_searches() -> None:
    none = NonMatedSearches(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64), 10)
    with pytest.raises(NoSearches):
        Promise.of(none)
