# SPDX-License-Identifier: Apache-2.0
"""Several points: a range of loads, the knee of their curve, and the highest rate that keeps a promise of latency."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mcts_ext.errors import InvalidConfig
from perf.load.plan import Load, LoadError, NoAnswers, Patience
from perf.load.point import N_WINDOWS, Point

MOST_POINTS: Final = 1000
GROWTH: Final = 1.5
MOST_PROBES: Final = 24
MOST_SILENT: Final = 3
"""Probes without an answer, from the first on, before a server is given up."""
TAIL: Final = 3
"""Requests beyond a quantile, on average, before it is judged: with fewer, whether one was late is luck."""
LONGEST_S: Final = 60.0
"""A rate at which that takes longer is not tried, unless a longer `--duration` says so."""
UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def parse_sweep(text: str, *, flag: str) -> list[float]:
    """`8`, `1,4,16`, `1:64:x2` (times 2) or `100:500:50` (50 more), both ends included.

    Raises:
        InvalidConfig: none of these.
    """
    wrong = InvalidConfig(f"expected {flag} like 8, 1,4,16, 1:64:x2 or 100:500:50, got {text!r}")
    try:
        if ":" not in text:
            found = [float(part) for part in text.split(",")]
        else:
            first, last, step = text.split(":")
            at, end = float(first), float(last)
            factor, term = (float(step[1:]), 0.0) if step.startswith("x") else (1.0, float(step))
            if not (0 < at <= end and (factor > 1 or (factor == 1 and term > 0))):
                raise wrong
            found = []
            while at <= end * (1 + 1e-9) and len(found) < MOST_POINTS:
                found.append(at)
                at = at * factor + term
    except ValueError:
        raise wrong from None
    if not all(0 < value < float("inf") for value in found):
        raise wrong
    return found


def knee(points: Sequence[Point]) -> int | None:
    """The point of most power: throughput over mean latency (Kleinrock 1979, "Power and deterministic rules of thumb").

    Beyond it latency grows faster than throughput. None without points.
    """
    return max(range(len(points)), key=lambda i: points[i].requests_per_s / points[i].mean_ms, default=None)


@dataclass(frozen=True)
class Slo:
    """A promise: so large a share of requests is answered within so long."""

    name: str
    """p99."""
    share: float
    limit_ms: float

    @staticmethod
    def parse(text: str, *, flag: str = "--slo") -> "Slo":
        """`p99=20ms`, `p99.9=1s`.

        Raises:
            InvalidConfig: not such a text.
        """
        match = re.fullmatch(r"(p(\d+(?:\.\d+)?))=(\d+(?:\.\d+)?)(us|ms|s)", text)
        share = float(match[2]) / 100 if match else 0.0
        if match is None or not 0 < share < 1 or float(match[3]) <= 0:
            raise InvalidConfig(f"expected {flag} like p99=20ms, got {text!r}")
        return Slo(match[1], share, float(match[3]) * UNITS[match[4]])

    def holds(self, point: Point) -> bool:
        """A request that failed was not answered in time, and a server that falls behind keeps nothing for long."""
        return not point.behind and point.quantile_ms(self.share) <= self.limit_ms

    @property
    def n_requests(self) -> int:
        """So many have to be asked before a rate is judged: 300 for p99."""
        return round(TAIL / (1 - self.share))

    def least_rate(self, patience: Patience) -> float:
        """The lowest rate that can be judged, in requests a second."""
        return self.n_requests / (patience.duration_s or LONGEST_S)

    def patience(self, patience: Patience, rate: float) -> Patience:
        """`patience`, unless its windows would hold too few requests to judge `rate`: then one that holds enough.

        Raises:
            InvalidConfig: a fixed count that is too small.
        """
        if patience.requests is not None and patience.requests < self.n_requests:
            raise InvalidConfig(
                f"expected --requests of at least {self.n_requests} to judge {self.name}, got {patience.requests}"
            )
        if patience.is_fixed or min(N_WINDOWS, patience.max_windows) * patience.window_s * rate >= self.n_requests:
            return patience
        return replace(patience, duration_s=self.n_requests / rate)


def highest_rate(
    probe: Callable[[Load], Point], slo: Slo, *, first: float, precision: float, least: float
) -> tuple[float, list[Point]]:
    """The highest rate at which a promise holds, by bisection from `first`, to a share `precision` of it.

    Returns:
        The rate, 0 where it does not even hold at `least` requests a second, and every point measured on the way.

    Raises:
        NoAnswers: the first probes, less and less, had none.
    """
    points: list[Point] = []
    low, high = 0.0, float("inf")
    rate = max(first, least)
    for n_probes in range(1, MOST_PROBES + 1):
        try:
            points.append(probe(Load(rate=rate)))
            holds = slo.holds(points[-1])
        except NoAnswers:  # asked for so much that nothing of it was answered in time, unless nothing ever is
            if not points and n_probes == MOST_SILENT:
                raise
            holds = False
        if holds:
            low = rate
        else:
            high = rate
        if high < float("inf") and high - low <= precision * high:
            return low, points
        if rate == least and not low:
            return 0.0, points
        rate = low * GROWTH if high == float("inf") else max((low + high) / 2, least)
    raise LoadError(f"expected {slo.name} to tell rates apart, got no end after {MOST_PROBES} of them; longer --window")
