# SPDX-License-Identifier: Apache-2.0
"""Statistics of a match: confidence intervals of a mean difference, anytime-valid intervals, Elo.

The unit is the deal: the K rounds of a deal are not independent, so they give one number. Axes: `n` deals.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
FIRST_LOOK: Final = 100
"""Number of deals before a sequential test may decide, so that the estimated variance is reliable."""
_TIGHTEST_AT: Final = 1000
"""Number of deals for which the width of the anytime interval is optimized."""


@dataclass(frozen=True)
class Estimate:
    """Point estimate with a confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the mean of `[n]` independent values with Student's t interval, for a fixed number of deals.

    The interval of a single value is infinite.
    """
    from scipy import stats  # a third of a second to import

    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def anytime_estimates(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means `[n]` of the first 1..n values and the half widths `[n]` of their confidence sequence.

    With `CONFIDENCE` the true mean lies in all intervals from `FIRST_LOOK` on. So a match may stop at the
    first interval that excludes zero; between equal players this has probability at most 1 - `CONFIDENCE`, however long
    the match. Before `FIRST_LOOK` the intervals are infinite.

    This is the normal-mixture confidence sequence (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021, eq. 14)
    with a running estimate of the standard deviation, which makes it asymptotic (Waudby-Smith, Arbour, Sinha, Kennedy
    and Ramdas 2024, theorem 2.2, https://arxiv.org/abs/2103.06476):

        s_t sqrt(2 (t rho^2 + 1) / (t^2 rho^2) log(sqrt(t rho^2 + 1) / alpha))

    tests/clients/arena/test_rating.py simulates its error.
    """
    n, alpha = len(values), 1 - CONFIDENCE
    t = np.arange(1, n + 1)
    means = np.cumsum(values) / t
    variances = np.maximum(np.cumsum(values**2) / t - means**2, 0.0) * t / np.maximum(t - 1, 1)
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / _TIGHTEST_AT  # ibid., appendix
    spread = t * rho2 + 1
    half = np.sqrt(variances * 2 * spread / (t**2 * rho2) * np.log(np.sqrt(spread) / alpha))
    half[: FIRST_LOOK - 1] = np.inf
    return means, half


def anytime_estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the last of `anytime_estimates`."""
    means, half = anytime_estimates(values)
    return Estimate(float(means[-1]), float(means[-1] - half[-1]), float(means[-1] + half[-1]))


def decided_after(values: NDArray[np.float64]) -> int | None:
    """Return the number of values after which the anytime interval first excluded zero, or None."""
    means, half = anytime_estimates(values)
    decided = np.flatnonzero(np.abs(means) > half)
    return int(decided[0]) + 1 if len(decided) else None


def elo(differences: NDArray[np.float64]) -> Estimate:
    """Return the Elo difference of the first player to the second, from `[n]` differences of deals.

    Model: a deal, with all its arrangements, is won by the player with the higher score, a tie is half a win, and an
    Elo difference of d wins with probability 1 / (1 + 10^(-d / 400)) (Elo 1978). The difference grows with the number
    of rounds per deal, so only matches of the same kind are comparable. The interval is Jeffreys' interval of that
    probability (Brown, Cai and DasGupta 2001), conservative with ties; the estimate is the posterior mean, which is
    finite even if one player wins every deal.
    """
    from scipy import stats

    n = len(differences)
    wins = float(np.count_nonzero(differences > 0) + 0.5 * np.count_nonzero(differences == 0))
    posterior = stats.beta(wins + 0.5, n - wins + 0.5)
    tail = (1 - CONFIDENCE) / 2
    return Estimate(*(_points(float(p)) for p in (posterior.mean(), posterior.ppf(tail), posterior.ppf(1 - tail))))


def _points(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return 400 * math.log10(p / (1 - p))
