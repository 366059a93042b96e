# SPDX-License-Identifier: Apache-2.0
"""Statistics of a match: intervals for a mean difference, an interval that may be looked at at any time, Elo.

The unit is the deal: what K rounds of the same cards say is one number, so that they are not taken for independent.
Axes: `n` deals.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
FIRST_LOOK: Final = 100
"""Deals before a sequential test may decide: what it knows of the spread must be worth something."""
_TIGHTEST_AT: Final = 1000
"""Deals at which the anytime interval is tightest, compared with what it could be there."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval tells on which side of zero the number lies."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def estimate(values: NDArray[np.float64], *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of `[n]` independent values with Student's interval; for a number of deals fixed beforehand.

    A single value says nothing of its spread: its interval is as wide as can be.
    """
    from scipy import stats  # a third of a second to import

    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def anytime_estimates(
    values: NDArray[np.float64], *, confidence: float = CONFIDENCE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means `[n]` of the first 1..n values, and half widths `[n]` of intervals around them that hold all at once.

    With the stated confidence the true mean lies inside every one of them from `FIRST_LOOK` on: so a match may stop at
    the first that excludes zero, and in a match of equals that happens at most with probability 1 - confidence, however
    long it is. Before `FIRST_LOOK` they are infinitely wide.

    This is the normal-mixture confidence sequence (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021, eq. 14)
    with the standard deviation estimated as it goes, asymptotic in that respect (Waudby-Smith, Arbour, Sinha, Kennedy
    and Ramdas 2024, theorem 2.2, https://arxiv.org/abs/2103.06476):

        s_t sqrt(2 (t rho^2 + 1) / (t^2 rho^2) log(sqrt(t rho^2 + 1) / alpha))

    tests/clients/arena/test_rating.py simulates its error.
    """
    n, alpha = len(values), 1 - confidence
    t = np.arange(1, n + 1)
    means = np.cumsum(values) / t
    variances = np.maximum(np.cumsum(values**2) / t - means**2, 0.0) * t / np.maximum(t - 1, 1)
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / _TIGHTEST_AT  # ibid., appendix
    spread = t * rho2 + 1
    half = np.sqrt(variances * 2 * spread / (t**2 * rho2) * np.log(np.sqrt(spread) / alpha))
    half[: FIRST_LOOK - 1] = np.inf
    return means, half


def anytime_estimate(values: NDArray[np.float64], *, confidence: float = CONFIDENCE) -> Estimate:
    """The last of `anytime_estimates`."""
    means, half = anytime_estimates(values, confidence=confidence)
    return Estimate(float(means[-1]), float(means[-1] - half[-1]), float(means[-1] + half[-1]))


def decided_after(values: NDArray[np.float64], *, confidence: float = CONFIDENCE) -> int | None:
    """The number of values after which the anytime interval first excluded zero; None if it never did."""
    means, half = anytime_estimates(values, confidence=confidence)
    found = np.flatnonzero(np.abs(means) > half)
    return int(found[0]) + 1 if len(found) else None


def elo(differences: NDArray[np.float64], *, confidence: float = CONFIDENCE) -> Estimate:
    """Elo points of the first player above the second, from `[n]` differences of deals.

    The model: a deal, all its arrangements together, is won by whoever scored more in it, a tie is half a win, and
    points d above the other win with probability 1 / (1 + 10^(-d / 400)) (Elo 1978). So these points grow with the
    rounds in a deal, and compare matches of one kind. The interval is Jeffreys' for that probability (Brown, Cai and
    DasGupta 2001), which ties make wider than need be; the number is its posterior mean, finite even where one side
    won all.
    """
    from scipy import stats

    n = len(differences)
    wins = float(np.count_nonzero(differences > 0) + 0.5 * np.count_nonzero(differences == 0))
    posterior = stats.beta(wins + 0.5, n - wins + 0.5)
    tail = (1 - confidence) / 2
    return Estimate(*(_points(float(p)) for p in (posterior.mean(), posterior.ppf(tail), posterior.ppf(1 - tail))))


def _points(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return 400 * math.log10(p / (1 - p))
