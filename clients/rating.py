# SPDX-License-Identifier: Apache-2.0
"""What a match says: differences with intervals, Elo, and when it may stop. The deal is the unit throughout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside."""
        return not self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of independent values."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * float(stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def anytime_interval(values: Sequence[float], *, horizon: int = 200) -> Interval:
    """An interval that holds at every moment at once, so that a match may stop when it is decided.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, "Time-uniform central
    limit theory and asymptotic confidence sequences", equation 2: a normal mixture, tightest at about `horizon` values.
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < 10:  # the variance isn't known yet
        return Interval(mean, -math.inf, math.inf)
    alpha = 1 - CONFIDENCE
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / horizon
    half = float(np.std(values)) * math.sqrt(
        2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    )
    return Interval(mean, mean - half, mean + half)


def elo_interval(differences: Sequence[float]) -> Interval:
    """Elo of the first player over the second: logistic on who scored more in a deal, a tie counting half.

    The share's interval is Wilson's; shares of 0 and 1 are moved in by half a deal.
    """
    n = len(differences)
    won = sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences)
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share = won / n
    middle, spread = (share + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n)
    half = spread * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = middle - half, middle + half
    return Interval(*(_elo(min(max(value, 0.5 / n), 1 - 0.5 / n)) for value in (share, low, high)))


def _elo(share: float) -> float:
    return 400 * math.log10(share / (1 - share))
