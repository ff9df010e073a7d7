"""The Pareto tail: known parameters are found again, and what is no tail is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto

from facedex.indexer.calibration.errors import TailDoesNotFit
from facedex.indexer.calibration.scores import NonMatedSearches
from facedex.indexer.calibration.tail import (
    Peaks,
    fitted_tail,
    moments_fit,
    pareto_log_likelihood,
    pareto_quantile,
    pareto_survival,
)
from facedex.indexer.calibration.uncertainty import IndependentSearches

SHAPES = [-0.3, 0.0, 0.2]


def independent(top_scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> IndependentSearches:
    people = np.arange(len(top_scores))
    return IndependentSearches.of(NonMatedSearches(top_scores, people, len(people) + people, 1_000_000))


def pareto_scores(*, shape: float, count: int, seed: int) -> IndependentSearches:
    survival = np.random.default_rng(seed).random(count)
    return independent(0.3 + pareto_quantile(survival, shape=np.array(shape), scale=np.array(0.03)))


@pytest.mark.parametrize("shape", SHAPES)
def test_survival_and_quantile_are_those_of_scipy_and_undo_each_other(shape: float) -> None:
    beyond = np.linspace(0, 0.09, 10)
    survival = pareto_survival(beyond, shape=shape, scale=0.03)
    assert survival == pytest.approx(genpareto.sf(beyond, shape, scale=0.03), abs=1e-12)
    assert pareto_quantile(survival, shape=np.array(shape), scale=np.array(0.03)) == pytest.approx(beyond, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_likelihood_is_that_of_scipy(shape: float) -> None:
    beyond = np.linspace(0.001, 0.2, 40)
    found = pareto_log_likelihood(beyond, shapes=np.array([shape]), scales=np.array([0.03, 0.1]))
    expected = [genpareto.logpdf(beyond, shape, scale=scale).mean() for scale in (0.03, 0.1)]
    assert found[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_moments_find_the_parameters_again(shape: float) -> None:
    samples = pareto_quantile(
        (np.arange(20_000)[None, ::-1] + 0.5) / 20_000, shape=np.array(shape), scale=np.array(0.03)
    )
    found_shape, found_scale = moments_fit(samples)
    assert found_shape[0] == pytest.approx(shape, abs=0.01)
    assert found_scale[0] == pytest.approx(0.03, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_beyond_the_data_cover_a_known_tail(shape: float) -> None:
    threshold = 0.3 + float(genpareto.isf(0.0005, shape, scale=0.03))
    drawn = [fitted_tail(pareto_scores(shape=shape, count=500, seed=seed)) for seed in range(100)]
    assert sum(0.0005 in tail.fpir(threshold) for tail in drawn) >= 93


def test_a_threshold_puts_the_upper_limit_where_it_was_asked() -> None:
    tail = fitted_tail(pareto_scores(shape=0.0, count=1_000, seed=1))
    for upper in (0.05, 0.01, 0.001):
        assert tail.fpir(tail.threshold(upper)).upper == pytest.approx(upper, rel=1e-6)
    assert tail.threshold(0.9) == tail.start


def test_fpir_falls_with_the_threshold() -> None:
    tail = fitted_tail(pareto_scores(shape=0.1, count=1_000, seed=1))
    intervals = [tail.fpir(tail.start + step) for step in (0.0, 0.05, 0.1, 0.3)]
    for limits in zip(*[(each.lower, each.estimate, each.upper) for each in intervals], strict=True):
        assert list(limits) == sorted(limits, reverse=True)
    assert intervals[0].estimate == pytest.approx(tail.share)


def test_the_test_of_fit_lets_true_tails_pass_and_rejects_as_often_as_it_says() -> None:
    p_values = [
        Peaks.highest(pareto_scores(shape=0.1, count=400, seed=s), 100).goodness_of_fit().p_value for s in range(200)
    ]
    assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.06)


def test_two_heaps_of_scores_are_no_tail() -> None:
    rng = np.random.default_rng(1)
    people, doubles = rng.normal(0.3, 0.03, 975), rng.normal(0.8, 0.01, 25)
    with pytest.raises(TailDoesNotFit, match="the fit is rejected"):
        fitted_tail(independent(np.concatenate([people, doubles])))


@pytest.mark.parametrize("top_scores", [np.linspace(0.1, 0.3, 20), np.full(500, 0.3), np.full(500, -np.inf)])
def test_too_few_scores_are_no_tail(top_scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    with pytest.raises(TailDoesNotFit, match="fewer than 30 independent searches"):
        fitted_tail(independent(top_scores))
