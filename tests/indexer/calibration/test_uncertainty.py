"""Intervals of counts, of people drawn with replacement, and what dependence costs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from tests.indexer.calibration.populations import TEMPLATES, gallery_itself, strangers, unrelated

from facedex.indexer.calibration.scores import NonMatedSearches
from facedex.indexer.calibration.uncertainty import (
    IndependentSearches,
    bootstrap_rates,
    cluster_design_effect,
    clustered_interval,
    identity_bootstrap,
    proportion_interval,
    rule_of_thirty,
    rule_of_three,
    searches_needed,
)


@pytest.mark.parametrize(("errors", "trials"), [(1, 10), (5, 200), (99, 100)])
def test_the_exact_interval_leaves_a_fortieth_on_either_side(errors: int, trials: int) -> None:
    interval = proportion_interval(errors, trials)
    assert binom.sf(errors - 1, trials, interval.lower) == pytest.approx(0.025, abs=1e-9)
    assert binom.cdf(errors, trials, interval.upper) == pytest.approx(0.025, abs=1e-9)


def test_no_error_and_nothing_but_errors_have_closed_forms() -> None:
    none, every = proportion_interval(0, 300), proportion_interval(300, 300)
    assert (none.lower, every.upper) == (0, 1)
    assert none.upper == pytest.approx(1 - 0.025 ** (1 / 300), abs=1e-9)
    assert every.lower == pytest.approx(0.025 ** (1 / 300), abs=1e-9)


def test_the_rules_of_three_and_of_thirty() -> None:
    assert rule_of_three(1_000) == pytest.approx(proportion_interval(0, 1_000, confidence=0.9).upper, rel=0.003)
    assert rule_of_three(2) == 1
    thirty = proportion_interval(30, 100_000, confidence=0.9)
    assert thirty.lower > 0.7 * thirty.estimate
    assert thirty.upper < 1.4 * thirty.estimate
    assert rule_of_thirty(30)
    assert not rule_of_thirty(29)


@pytest.mark.parametrize("target", [0.1, 0.01, 1e-5])
def test_the_searches_that_a_target_needs_are_enough_and_not_one_too_many(target: float) -> None:
    needed = searches_needed(target)
    assert proportion_interval(0, needed).upper <= target < proportion_interval(0, needed - 1).upper


def test_a_bootstrap_is_repeatable_and_its_seed_matters() -> None:
    errors, people = np.arange(200) % 7 == 0, np.arange(200) // 2
    assert identity_bootstrap(errors, people, seed=1) == identity_bootstrap(errors, people, seed=1)
    drawn = [bootstrap_rates(errors, people, repetitions=50, seed=seed) for seed in (1, 2)]
    assert not np.array_equal(drawn[0], drawn[1])


def test_a_bootstrap_of_people_with_one_search_has_the_binomial_spread() -> None:
    errors = np.arange(500) < 50
    rates = bootstrap_rates(errors, np.arange(500), repetitions=20_000, seed=1)
    assert rates.mean() == pytest.approx(0.1, abs=0.001)
    assert rates.std() == pytest.approx(np.sqrt(0.1 * 0.9 / 500), rel=0.03)


def test_people_who_fail_on_all_their_photographs_widen_the_bootstrap() -> None:
    people = np.arange(400) // 8
    together, apart = people < 5, np.arange(400) % 10 == 0
    wide, narrow = identity_bootstrap(together, people), identity_bootstrap(apart, people)
    assert wide.estimate == narrow.estimate == pytest.approx(0.1)
    assert wide.upper - wide.lower > 2 * (narrow.upper - narrow.lower)


def test_photographs_that_fail_together_count_as_one() -> None:
    people = np.arange(800) // 8
    assert cluster_design_effect(people < 10, people) == pytest.approx(8, rel=1e-9)
    assert cluster_design_effect(people < 0, people) == 8
    assert cluster_design_effect(np.arange(800) % 8 == 0, people) == 1
    assert clustered_interval(people < 0, people).upper == pytest.approx(proportion_interval(0, 100).upper)


def test_clustered_intervals_cover_where_independent_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(100), 6)
    drawn = [(rng.beta(0.1, 0.9, 100)[people] > rng.random(600)) for _ in range(300)]
    clustered = np.mean([0.1 in clustered_interval(errors, people) for errors in drawn])
    independent = np.mean([0.1 in proportion_interval(float(errors.sum()), 600) for errors in drawn])
    assert clustered >= 0.93
    assert independent < 0.85


def searches(top_scores: list[float], probes: list[int], nearest: list[int]) -> NonMatedSearches:
    """These above 900 strangers who are far from everybody."""
    rest = np.linspace(0.3, 0.0, 900)
    return NonMatedSearches(
        np.append(np.array(top_scores), rest),
        np.append(probes, 10_000 + np.arange(900)),
        np.append(nearest, 20_000 + np.arange(900)),
        5_000,
    )


def effect(found: NonMatedSearches, count: int) -> float:
    return IndependentSearches.of(found).false_positives.design_effect(count)


HIGH = np.linspace(0.9, 0.8, 60).tolist()
APART = list(range(60))


def test_strangers_who_share_nobody_are_independent() -> None:
    assert effect(searches(HIGH, APART, [1_000 + each for each in APART]), 60) == pytest.approx(1, abs=0.02)


def test_a_template_that_everybody_resembles_makes_one_search_of_many() -> None:
    wolf = searches(HIGH, APART, [1_000] * 60)
    assert effect(wolf, 60) == pytest.approx(60, rel=0.1)


def test_three_photographs_of_each_stranger_count_as_one_search() -> None:
    thrice = searches(HIGH, [each // 3 for each in APART], [1_000 + each for each in APART])
    assert effect(thrice, 60) == pytest.approx(3, rel=0.1)


def test_two_who_are_each_others_nearest_count_once() -> None:
    mutual = searches(HIGH, APART, [each ^ 1 for each in APART])
    assert effect(mutual, 60) == pytest.approx(2, rel=0.1)


def test_unrelated_strangers_are_nearly_independent_and_a_gallery_itself_is_half_of_it() -> None:
    rng = np.random.default_rng(2)
    found = strangers(rng, gallery=unrelated, probes=unrelated, people=1_000, photographs=1)
    assert IndependentSearches.of(found).searches() > 850
    itself = IndependentSearches.of(gallery_itself(rng, gallery=unrelated)).searches()
    assert 0.4 * TEMPLATES < itself < 0.55 * TEMPLATES


def test_a_handful_of_searches_has_an_interval_too() -> None:
    found = NonMatedSearches(np.array([0.4]), np.array([1]), np.array([2]), 10)
    interval = IndependentSearches.of(found).interval(0.5)
    assert (interval.lower, interval.estimate) == (0, 0)
    assert interval.upper == pytest.approx(0.975)
