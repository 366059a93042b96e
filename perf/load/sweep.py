# SPDX-License-Identifier: Apache-2.0
"""Several points: a range of loads, the knee of their curve, and the highest rate that meets a latency objective."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mcts_ext.errors import InvalidConfig
from perf.load.plan import Load, LoadError, NoAnswers, Patience
from perf.load.point import N_WINDOWS, Point

MAX_POINTS: Final = 1000
GROWTH: Final = 1.5
MAX_PROBES: Final = 24
MAX_SILENT_PROBES: Final = 3
"""Number of first probes without any answer after which the search gives up."""
TAIL: Final = 3
"""Mean number of requests beyond the quantile that a verdict needs; with fewer, chance decides."""
LONGEST_S: Final = 60.0
"""Rates that need longer than this for a verdict are not tried, unless `--duration` is longer."""
UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def parse_sweep(text: str, *, flag: str) -> list[float]:
    """Parse `8`, `1,4,16`, `1:64:x2` (multiplied by 2) or `100:500:50` (in steps of 50), both ends included.

    Raises:
        InvalidConfig: if the text has none of these forms.
    """
    invalid = InvalidConfig(f"expected {flag} like 8, 1,4,16, 1:64:x2 or 100:500:50, got {text!r}")
    try:
        if ":" not in text:
            found = [float(part) for part in text.split(",")]
        else:
            first, last, step = text.split(":")
            at, end = float(first), float(last)
            factor, term = (float(step[1:]), 0.0) if step.startswith("x") else (1.0, float(step))
            if not (0 < at <= end and (factor > 1 or (factor == 1 and term > 0))):
                raise invalid
            found = []
            while at <= end * (1 + 1e-9) and len(found) < MAX_POINTS:
                found.append(at)
                at = at * factor + term
    except ValueError:
        raise invalid from None
    if not all(0 < value < float("inf") for value in found):
        raise invalid
    return found


def knee(points: Sequence[Point]) -> int | None:
    """Return the index of the point of greatest power; None without points.

    Power is throughput / mean latency (Kleinrock 1979, "Power and deterministic rules of thumb"). Beyond the knee,
    latency grows faster than throughput.
    """
    return max(range(len(points)), key=lambda i: points[i].requests_per_s / points[i].mean_ms, default=None)


@dataclass(frozen=True)
class Slo:
    """Service level objective: this fraction of the requests is answered within this time."""

    name: str
    """For example p99."""
    share: float
    limit_ms: float

    @staticmethod
    def parse(text: str, *, flag: str = "--slo") -> "Slo":
        """Parse `p99=20ms` or `p99.9=1s`.

        Raises:
            InvalidConfig: if the text does not have this form.
        """
        match = re.fullmatch(r"(p(\d+(?:\.\d+)?))=(\d+(?:\.\d+)?)(us|ms|s)", text)
        share = float(match[2]) / 100 if match else 0.0
        if match is None or not 0 < share < 1 or float(match[3]) <= 0:
            raise InvalidConfig(f"expected {flag} like p99=20ms, got {text!r}")
        return Slo(match[1], share, float(match[3]) * UNITS[match[4]])

    def holds(self, point: Point) -> bool:
        """Return whether a point meets the objective; it does not if requests pile up, and failures count as late."""
        return not point.behind and point.quantile_ms(self.share) <= self.limit_ms

    @property
    def n_requests(self) -> int:
        """Number of requests that a verdict needs: 300 for p99."""
        return round(TAIL / (1 - self.share))

    def least_rate(self, patience: Patience) -> float:
        """Return the lowest rate that can be judged, in requests/s."""
        return self.n_requests / (patience.duration or LONGEST_S)

    def patience(self, patience: Patience, rate: float) -> Patience:
        """Return `patience`, or a longer one if its windows hold too few requests to judge `rate`."""
        windows_s = min(N_WINDOWS, patience.max_windows) * patience.window
        if patience.duration is not None or windows_s * rate >= self.n_requests:
            return patience
        return replace(patience, duration=self.n_requests / rate)


def highest_rate(probe: Callable[[Load], Point], slo: Slo, *, first: float, precision: float, least: float) -> float:
    """Search for the highest rate that meets an objective, by bisection from `first`, to a fraction `precision` of it.

    Returns 0 if the objective is missed even at `least` requests/s.

    Raises:
        NoAnswers: if the first probes, at decreasing rates, had no answers.
    """
    is_silent = True
    low, high = 0.0, float("inf")
    rate = max(first, least)
    for n_probes in range(1, MAX_PROBES + 1):
        try:
            holds = slo.holds(probe(Load(rate=rate)))
            is_silent = False
        except NoAnswers:  # the rate may be so high that nothing is answered in time
            if is_silent and n_probes == MAX_SILENT_PROBES:
                raise
            holds = False
        if holds:
            low = rate
        else:
            high = rate
        if high < float("inf") and high - low <= precision * high:
            return low
        if rate == least and not low:
            return 0.0
        rate = low * GROWTH if high == float("inf") else max((low + high) / 2, least)
    raise LoadError(
        f"expected {slo.name} to distinguish rates, got no result after {MAX_PROBES}; use a longer --window"
    )
