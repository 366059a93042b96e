# SPDX-License-Identifier: Apache-2.0
"""One point of a load test: the results of one load.

Every latency is kept, so that quantiles over windows and processes are those of all answers, never means of quantiles.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perf.load.plan import Load

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
INTENDED, DONE, LATE, ROWS = range(4)
N_WINDOWS: Final = 3
"""Number of windows that must agree."""
LATE_SHARE: Final = 0.1
"""The client is a limit if its p99 lateness exceeds this fraction of the p99 latency."""
BUSY_CORES: Final = 0.85
"""A client process that uses more of a core than this is the limit: Python runs on one."""
NOISE: Final = 3.0
"""Standard deviations of the number of requests under way, a random number whose variance is its mean."""
BACKLOG_SHARE: Final = 0.95
"""The server falls behind an open loop if it completes less than this fraction meanwhile."""

Failure = tuple[float, float, str]
"""Intended send time, time of the failure, kind."""


@dataclass(frozen=True)
class Server:
    """The server's own account of a point; times are means over requests."""

    requests: int
    """Number of answered requests."""
    queue_ms: float
    input_ms: float
    """Time to gather inputs, in the model and to distribute outputs (three fields)."""
    infer_ms: float
    output_ms: float
    executions: int
    batch_sizes: Mapping[int, int]
    """Number of executions by batch size."""
    cores: float | None
    """CPU seconds per second of the server and its children; None if it is on another machine."""
    gpu: float | None
    """Mean utilization of its GPUs, 0 to 1; None if not reported."""

    @property
    def rows_per_execution(self) -> float:
        return sum(rows * n for rows, n in self.batch_sizes.items()) / max(1, self.executions)


@dataclass(frozen=True)
class Point:
    """Results of one load. Latencies are in milliseconds, over answered requests."""

    load: Load
    seconds: float
    """Length of the measurement."""
    windows: int
    """Number of windows run."""
    stable: bool
    """Whether the last three windows agreed; true for a fixed time."""
    behind: bool
    """Whether fewer requests of an open loop were completed than asked for."""
    requests: int
    requests_per_s: float
    rows_per_s: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int]
    """Number of failed requests by error of clients/errors.py, or Unanswered."""
    reasons: Mapping[str, str]
    """An example of each kind of error."""
    client_cores: float
    """CPU seconds per second of all client processes."""
    late_p99_ms: float
    """Lateness at which requests of an open loop were sent."""
    server: Server | None
    """None if the server did not respond."""
    warnings: tuple[str, ...] = ()
    answers: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)), compare=False, repr=False)
    """`[n, 4]` INTENDED, DONE, LATE, ROWS of every answer that counts; seconds of the monotonic clock."""

    def __str__(self) -> str:
        return (
            f"{self.load}: {self.requests_per_s:,.0f} requests/s, {self.rows_per_s:,.0f} rows/s, "
            f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, {sum(self.errors.values())} errors"
        )

    def quantile_ms(self, share: float) -> float:
        """Return a quantile over all requests; failures are later than any answer."""
        failed = np.full(sum(self.errors.values()), np.inf)
        return 1e3 * quantile(np.concatenate((self.answers[:, DONE] - self.answers[:, INTENDED], failed)), share)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the single answers, by the names that scripts read."""
        found = asdict(self)
        del found["answers"], found["load"]
        if self.server is not None:
            found["server"]["rows_per_execution"] = self.server.rows_per_execution
        return {"concurrency": self.load.concurrency, "rate": self.load.rate, **found}


def quantile(values: NDArray[np.float64], share: float) -> float:
    """Return the least value that this fraction of the values does not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf"))


def agree(values: Sequence[float], within: float) -> bool:
    """Return whether the last three values lie within this fraction of their mean."""
    last = values[-N_WINDOWS:]
    mean = sum(last) / len(last)
    return len(last) == N_WINDOWS and all(abs(value - mean) <= within * mean for value in last)


def within(answers: NDArray[np.float64], load: Load, start: float, end: float) -> NDArray[np.float64]:
    """Return the answers that belong to an interval.

    In a closed loop these arrived in it. In an open loop their requests were to be sent in it, whenever they arrived:
    otherwise a server that stalls would hide its late answers.
    """
    at = answers[:, INTENDED if load.is_open else DONE]
    return answers[(start <= at) & (at < end)]


def _is_behind(answers: NDArray[np.float64], failures: Sequence[Failure], *, start: float, end: float) -> bool:
    """Return whether clearly fewer requests of an open loop ended in an interval than were to be sent in it.

    The two numbers differ by the requests under way at its borders, which vary at random even if nothing grows.
    """
    sent = np.concatenate((answers[:, INTENDED], [failure[0] for failure in failures]))
    ended = np.concatenate((answers[:, DONE], [failure[1] for failure in failures]))
    n_before, n_after = (int(np.count_nonzero((sent < edge) & (ended >= edge))) for edge in (start, end))
    n_asked = int(np.count_nonzero((start <= sent) & (sent < end)))
    n_unended = n_after - n_before
    return n_unended > (1 - BACKLOG_SHARE) * n_asked and n_unended > NOISE * math.sqrt(n_before + n_after)


def summarize(
    load: Load,
    answers: NDArray[np.float64],
    failures: Sequence[Failure],
    *,
    start: float,
    end: float,
    reasons: Mapping[str, str],
    client_cpu_s: Sequence[float],
    server: Server | None,
    windows: int,
    stable: bool,
) -> Point:
    """Return the point of an interval to which at least one answer belongs.

    Args:
        answers: `[n, 4]` INTENDED, DONE, LATE, ROWS.
        client_cpu_s: CPU time of each client process between `start` and `end`.
    """
    seconds = end - start
    found = within(answers, load, start, end)
    latencies = found[:, DONE] - found[:, INTENDED]
    came = answers[(start <= answers[:, DONE]) & (answers[:, DONE] < end)]  # rates count arrivals in both loops
    # In a closed loop, failures of requests under way: a request that hangs ends after the point, if ever.
    errors = Counter(
        kind for sent, ended, kind in failures if sent < end and start <= (sent if load.is_open else ended)
    )
    late_p99_ms = 1e3 * quantile(found[:, LATE], 0.99)
    quantiles = {f"{name}_ms": 1e3 * quantile(latencies, share) for name, share in QUANTILES.items()}
    behind = load.is_open and _is_behind(answers, failures, start=start, end=end)
    warnings = {
        f"requests were sent late (p99 {late_p99_ms:.2f} ms), which their latencies include: the client is a limit; "
        "use more --processes or cores": late_p99_ms > LATE_SHARE * quantiles["p99_ms"],
        "a client process was busy all the time and limits the rate; use more --processes":
            max(client_cpu_s, default=0.0) > BUSY_CORES * seconds,
        "less was answered than asked for: latencies grow as long as the load lasts": behind,
        "the last three windows did not agree; use a longer --window, or more of them": not stable,
    }  # fmt: skip
    return Point(
        load=load,
        seconds=seconds,
        windows=windows,
        stable=stable,
        behind=behind,
        requests=len(found),
        requests_per_s=len(came) / seconds,
        rows_per_s=float(came[:, ROWS].sum()) / seconds,
        mean_ms=1e3 * float(latencies.mean()),
        max_ms=1e3 * float(latencies.max()),
        **quantiles,
        errors=dict(errors),
        reasons={kind: reasons[kind] for kind in errors if kind in reasons},
        client_cores=sum(client_cpu_s) / seconds,
        late_p99_ms=late_p99_ms,
        server=server,
        warnings=tuple(text for text, holds in warnings.items() if holds),
        answers=found,
    )
