# SPDX-License-Identifier: Apache-2.0
"""What an evaluator counts of its requests to a server: how long answers took, what failed, what was sent again.

The counts are flat, `name -> number`, so that a worker reports them in a line of JSON and a fleet adds them up like all
others. A request costs one bisection here, 0.3 us.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LATENCY_BOUNDS_S: Final = (
    0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0,
    5.0, 10.0, 20.0,
)  # fmt: skip
"""Upper bounds of the histogram's buckets; the last is a request's deadline (clients/triton/evaluator.py)."""
MIXED: Final = "MixedVersions"
"""The kind of failure where parts of one batch were answered by different versions, around a swap."""
PASSING: Final = ("ServerUnreachable", "ServerFailed", "RequestTimeout", "ModelNotFound", MIXED)
"""The kinds after which a request is sent again; every other ends the run."""
_SECONDS, _RETRIES, _BUCKET, _FAILED = "request_s", "request_retries", "request_bucket_", "request_failed_"


@dataclass(frozen=True)
class RequestTotals:
    """The counts of one or more evaluators, added up."""

    buckets: tuple[int, ...]
    """Answers by latency: as many as took no longer than each of LATENCY_BOUNDS_S and longer than the one before, and,
    last, those that took longer than all."""
    seconds: float
    """Latencies of all answers, summed."""
    retries: int
    """Requests that were sent again."""
    failures: Mapping[str, int]
    """Attempts that failed, by the error of clients/errors.py that each would have been, or MIXED; PASSING at least."""

    @staticmethod
    def of(counts: Mapping[str, float]) -> "RequestTotals":
        """Read them back from sums of `RequestCounts.flat()`; other names are passed over."""
        return RequestTotals(
            buckets=tuple(int(counts.get(f"{_BUCKET}{i}", 0)) for i in range(len(LATENCY_BOUNDS_S) + 1)),
            seconds=counts.get(_SECONDS, 0.0),
            retries=int(counts.get(_RETRIES, 0)),
            failures=dict.fromkeys(PASSING, 0)
            | {name.removeprefix(_FAILED): int(count) for name, count in counts.items() if name.startswith(_FAILED)},
        )


class RequestCounts:
    """Counts of one evaluator; for one thread."""

    def __init__(self) -> None:
        self._buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._seconds = 0.0
        self._retries = 0
        self._failures: Counter[str] = Counter()

    def answered(self, seconds: float) -> None:
        """An answer came, `seconds` after its request was sent."""
        self._buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self._seconds += seconds

    def failed(self, kind: str) -> None:
        """An attempt failed."""
        self._failures[kind] += 1

    def sent_again(self) -> None:
        """A request that had failed was sent again."""
        self._retries += 1

    def flat(self) -> dict[str, float]:
        """What was counted so far, by names that `RequestTotals.of` knows; empty buckets are left out."""
        return {
            _SECONDS: self._seconds,
            _RETRIES: self._retries,
            **{f"{_BUCKET}{i}": count for i, count in enumerate(self._buckets) if count},
            **{f"{_FAILED}{kind}": count for kind, count in self._failures.items()},
        }
