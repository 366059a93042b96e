# SPDX-License-Identifier: Apache-2.0
"""Request counters of an evaluator: latencies, failures and retries.

The counts are flat, `name -> number`, so that a worker reports them in a line of JSON and a fleet sums them like its
other counters. Counting a request costs about a microsecond.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LATENCY_BOUNDS_S: Final = (
    0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0,
    5.0, 10.0, 20.0,
)  # fmt: skip
"""Upper bounds of the histogram's buckets; the last is the request deadline (clients/triton/evaluator.py)."""
MIXED: Final = "MixedVersions"
"""Failure kind: parts of one batch were evaluated by different versions, during a version swap."""
PASSING: Final = ("ServerUnreachable", "ServerFailed", "RequestTimeout", "ModelNotFound", MIXED)
"""Failure kinds that are retried; any other ends the run."""
_SECONDS, _RETRIES, _BUCKET, _FAILED = "request_s", "request_retries", "request_bucket_", "request_failed_"


@dataclass(frozen=True)
class RequestTotals:
    """Sums of the counts of one or more evaluators."""

    buckets: tuple[int, ...]
    """Number of responses per latency bucket (LATENCY_BOUNDS_S), with an overflow bucket at the end."""
    seconds: float
    """Sum of the latencies of all responses."""
    retries: int
    """Number of retries."""
    failures: Mapping[str, int]
    """Number of failed attempts by error class (clients/errors.py) or MIXED; always contains PASSING."""

    @staticmethod
    def of(counts: Mapping[str, float]) -> "RequestTotals":
        """Parse sums of `RequestCounts`; other names are ignored."""
        return RequestTotals(
            buckets=tuple(int(counts.get(f"{_BUCKET}{i}", 0)) for i in range(len(LATENCY_BOUNDS_S) + 1)),
            seconds=counts.get(_SECONDS, 0.0),
            retries=int(counts.get(_RETRIES, 0)),
            failures=dict.fromkeys(PASSING, 0)
            | {name.removeprefix(_FAILED): int(count) for name, count in counts.items() if name.startswith(_FAILED)},
        )


class RequestCounts(defaultdict[str, float]):
    """Counts of one evaluator under the names that `RequestTotals.of` reads; not thread-safe."""

    def __init__(self) -> None:
        super().__init__(float)

    def answered(self, seconds: float) -> None:
        """Count a response with its latency."""
        self[f"{_BUCKET}{bisect_left(LATENCY_BOUNDS_S, seconds)}"] += 1
        self[_SECONDS] += seconds

    def failed(self, kind: str) -> None:
        """Count a failed attempt."""
        self[_FAILED + kind] += 1

    def sent_again(self) -> None:
        """Count a retry."""
        self[_RETRIES] += 1
