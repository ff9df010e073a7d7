"""The quantiles and shares that intervals are made of are those of scipy.stats, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from facedex.indexer.calibration.distributions import (
    beta_quantile,
    binomial_quantile,
    binomial_survival,
    student_t_quantile,
)

CHANCE = np.random.default_rng(5)
TRIALS = CHANCE.integers(1, 100_000, 2_000)
SHARES = np.append(CHANCE.random(1_996) ** 3, [0.0, 1.0, 1e-12, 0.5])


@pytest.mark.parametrize("probability", [0.025, 0.5, 0.975])
def test_a_beta_quantile_is_that_of_scipy(probability: float) -> None:
    errors = np.floor(TRIALS * SHARES) + 1e-300
    expected = stats.beta.ppf(probability, errors, TRIALS + 1.5 - errors)
    np.testing.assert_array_equal(beta_quantile(probability, errors, TRIALS + 1.5 - errors), expected)


@pytest.mark.parametrize("degrees", [0.5, 1, 17.3, 1e5])
def test_a_quantile_of_students_t_is_that_of_scipy(degrees: float) -> None:
    assert student_t_quantile(0.975, degrees) == stats.t.ppf(0.975, degrees)


def test_how_likely_more_successes_are_is_what_scipy_says_beyond_either_end_too() -> None:
    spread = np.sqrt(TRIALS * SHARES * (1 - SHARES) + 1)
    counts = np.clip(np.rint(TRIALS * SHARES + 3 * spread * CHANCE.standard_normal(2_000)), -2, TRIALS + 2)
    assert ((counts < 0) | (counts >= TRIALS)).any()
    np.testing.assert_array_equal(binomial_survival(counts, TRIALS, SHARES), stats.binom.sf(counts, TRIALS, SHARES))


@pytest.mark.parametrize("trials", [1, 30, 600, 20_000])
def test_a_binomial_quantile_is_that_of_scipy(trials: int) -> None:
    for probability in (0.025, 0.975):
        expected = stats.binom.ppf(probability, trials, SHARES)
        np.testing.assert_array_equal(binomial_quantile(probability, trials, SHARES), expected)
