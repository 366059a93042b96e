# SPDX-License-Identifier: Apache-2.0
"""The statistics keep their promises in simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.arena.rating import FIRST_LOOK, anytime_estimate, anytime_estimates, decided_after, elo, estimate


def deals_like(rng: np.random.Generator, n: int, shape: str) -> NDArray[np.float64]:
    """Differences of equals, as matches give them: near normal, mostly ties, or rare and large."""
    if shape == "normal":
        return rng.normal(0, 3, n)
    scores = rng.choice([0, 0, 10, 11, 12], (n, 2, 4)).mean(axis=2)
    differences = scores[:, 0] - scores[:, 1]
    return np.where(rng.random(n) < (0.2 if shape == "ties" else 0.02), differences, 0.0)


@pytest.mark.parametrize(("shape", "n"), [("normal", 10), ("ties", 100), ("rare", 1000)])
def test_the_fixed_interval_covers(shape: str, n: int) -> None:
    rng = np.random.default_rng(1)
    missed = sum(estimate(deals_like(rng, n, shape)).excludes_zero for _ in range(2000))
    assert 0.03 < missed / 2000 < 0.07  # 0.05, and 0.01 is two standard errors of the simulation


@pytest.mark.parametrize("shape", ["normal", "ties", "rare"])
def test_a_match_of_equals_is_seldom_decided_however_long(shape: str) -> None:
    rng = np.random.default_rng(2)
    n_runs = 600
    wrong = sum(decided_after(deals_like(rng, 10_000, shape)) is not None for _ in range(n_runs))
    assert wrong / n_runs <= 0.05


def test_peeking_at_the_fixed_interval_would_not_do() -> None:
    rng = np.random.default_rng(3)
    n_wrong = 0
    for _ in range(100):
        values = rng.normal(0, 3, 5000)
        n_wrong += any(estimate(values[:n]).excludes_zero for n in range(FIRST_LOOK, 5001, 200))
    assert n_wrong / 100 > 0.15


def test_a_clear_difference_is_decided_early_and_on_the_right_side() -> None:
    rng = np.random.default_rng(4)
    ends = []
    for _ in range(100):
        values = rng.normal(1.0, 3.0, 3000)
        end = decided_after(values)
        assert end is not None
        found = anytime_estimate(values[:end])
        assert found.low > 0
        ends.append(end)
    assert FIRST_LOOK <= np.median(ends) < 300


def test_the_anytime_interval_is_what_robbins_wrote_and_wider_than_the_fixed_one() -> None:
    values = np.random.default_rng(5).normal(0, 1, 2000)
    means, half = anytime_estimates(values)
    assert np.isinf(half[: FIRST_LOOK - 1]).all()
    fixed = estimate(values)
    assert means[-1] == pytest.approx(fixed.mean)
    assert 1.3 < half[-1] / (fixed.high - fixed.mean) < 1.8
    # The definition: the mixture's likelihood ratio against a mean of 0 is 1 / alpha where the interval ends at 0.
    t, s = 1500, values[:1500].std(ddof=1)
    rho2 = (-2 * np.log(0.05) + np.log(-2 * np.log(0.05)) + 1) / 1000
    z = half[t - 1] * t / s
    ratio = np.exp(rho2 * z**2 / (2 * (t * rho2 + 1))) / np.sqrt(t * rho2 + 1)
    assert ratio == pytest.approx(20, rel=1e-6)


def test_decided_after_does_not_depend_on_when_one_looks() -> None:
    values = np.random.default_rng(6).normal(0.5, 3, 3000)
    end = decided_after(values)
    assert end is not None
    assert decided_after(values[: end - 1]) is None
    assert decided_after(values[:end]) == end


def test_elo_counts_deals_won() -> None:
    even = elo(np.array([1.0, -1.0, 0.0, 0.0]))
    assert even.mean == pytest.approx(0, abs=1e-9)
    assert even.low == pytest.approx(-even.high)
    three_of_four = elo(np.tile([1.0, 1.0, 1.0, -5.0], 2500))
    assert three_of_four.mean == pytest.approx(400 * np.log10(3), abs=1)  # 191 points
    assert three_of_four.high - three_of_four.low < 40
    assert elo(np.ones(10)).high < 10_000  # finite, even where one side won all
    rng = np.random.default_rng(7)
    truth = 400 * np.log10(0.6 / 0.4)
    found = [elo(np.where(rng.random(200) < 0.6, 1.0, -1.0)) for _ in range(400)]
    assert 0.92 < np.mean([one.low < truth < one.high for one in found]) < 0.98


def test_one_deal_says_nothing_of_the_spread() -> None:
    assert not estimate(np.array([5.0])).excludes_zero
    assert not anytime_estimate(np.array([5.0])).excludes_zero
    assert not anytime_estimate(np.full(FIRST_LOOK, 0.0)).excludes_zero
