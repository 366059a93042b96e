# SPDX-License-Identifier: Apache-2.0
"""One point of a load test: what came of one load, over windows that agreed.

Latencies are kept one by one, so quantiles over windows and processes are those of all answers together, never means
of quantiles.
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
"""So many windows that agree make a point."""
LATE_SHARE: Final = 0.1
"""A client that sends its p99 request later than this share of the p99 latency measures itself."""
BUSY_CORES: Final = 0.85
"""A client process that takes more than so much of a core is the limit: Python runs on one."""
NOISE: Final = 3.0
"""Standard deviations of what is under way, a number at random whose variance is its mean."""
BACKLOG_SHARE: Final = 0.95
"""An open loop of which less is answered meanwhile asks for more than the server can do."""


@dataclass(frozen=True)
class Server:
    """What the server says of a point."""

    requests: int
    """Answered."""
    queue_ms: float
    """Means over requests, as are the next three: in the queue, gathering inputs, in the model, handing outputs out."""
    input_ms: float
    infer_ms: float
    output_ms: float
    executions: int
    batch_sizes: Mapping[int, int]
    """Executions by their rows."""
    cores: float | None
    """Processor time a second, of the server and what it started; None where it is on another machine."""
    gpu: float | None
    """Mean utilisation of its GPUs, 0 to 1; None where it reports none."""

    @property
    def rows_per_execution(self) -> float:
        return sum(rows * n for rows, n in self.batch_sizes.items()) / max(1, self.executions)


@dataclass(frozen=True)
class Point:
    """One load and what came of it. Times are milliseconds, of requests that were answered."""

    load: Load
    seconds: float
    """Length of the windows that count, together."""
    windows: int
    """How many were run."""
    stable: bool
    """Whether the last three agreed; True for a fixed length or count."""
    behind: bool
    """Whether less was answered than asked for, in an open loop."""
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
    """Requests that failed, by the error of clients/errors.py that each would have been, or Unanswered."""
    reasons: Mapping[str, str]
    """By kind of error, what the first said."""
    client_cores: float
    """Processor time a second of all client processes."""
    late_p99_ms: float
    """How late requests of an open loop were sent."""
    server: Server | None
    """None where the server did not say."""
    warnings: tuple[str, ...] = ()
    answers: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)), compare=False, repr=False)
    """`[n, 4]` INTENDED, DONE, LATE, ROWS of every answer that counts; seconds of the monotonic clock."""

    def __str__(self) -> str:
        return (
            f"{self.load}: {self.requests_per_s:,.0f} requests/s, {self.rows_per_s:,.0f} rows/s, "
            f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, {sum(self.errors.values())} errors"
        )

    @property
    def error_share(self) -> float:
        n = sum(self.errors.values())
        return n / max(1, n + self.requests)

    def quantile_ms(self, share: float) -> float:
        """Of all requests, a failure counting as later than any answer."""
        failed = np.full(sum(self.errors.values()), np.inf)
        return 1e3 * quantile(
            np.sort(np.concatenate((self.answers[:, DONE] - self.answers[:, INTENDED], failed))), share
        )

    def to_json(self) -> dict[str, Any]:
        """By the names programs read; the answers only as their quantiles."""
        found = asdict(self)
        del found["answers"], found["load"]
        if found["server"] is not None and self.server is not None:
            found["server"]["rows_per_execution"] = self.server.rows_per_execution
        return {"concurrency": self.load.concurrency, "rate": self.load.rate, **found}


def quantile(ordered: NDArray[np.float64], share: float) -> float:
    """The least value that so large a share of the values does not exceed."""
    return float(ordered[max(int(np.ceil(share * len(ordered))), 1) - 1])


def agree(values: Sequence[float], within: float) -> bool:
    """Whether the last three lie within a share of their mean."""
    last = values[-N_WINDOWS:]
    mean = sum(last) / len(last)
    return len(last) == N_WINDOWS and all(abs(value - mean) <= within * mean for value in last)


def within(answers: NDArray[np.float64], load: Load, start: float, end: float) -> NDArray[np.float64]:
    """The answers that belong to a stretch of time.

    In a closed loop those that came in it. In an open loop those whose requests were to be sent in it, whenever they
    came: else a server that stalls would push its late answers out of sight.
    """
    at = answers[:, INTENDED if load.is_open else DONE]
    return answers[(start <= at) & (at < end)]


def _is_behind(
    answers: NDArray[np.float64], failures: Sequence[tuple[float, float, str]], *, start: float, end: float
) -> bool:
    """Whether clearly less ended in a stretch of an open loop than was to be sent in it.

    The two differ by what is under way at its borders, which is at random even where nothing grows.
    """
    sent = np.concatenate((answers[:, INTENDED], [one[0] for one in failures]))
    ended = np.concatenate((answers[:, DONE], [one[1] for one in failures]))
    n_before, n_after = (int(np.count_nonzero((sent < edge) & (ended >= edge))) for edge in (start, end))
    n_asked = int(np.count_nonzero((start <= sent) & (sent < end)))
    n_unended = n_after - n_before
    return n_unended > (1 - BACKLOG_SHARE) * n_asked and n_unended > NOISE * math.sqrt(n_before + n_after)


def summarize(
    load: Load,
    answers: NDArray[np.float64],
    failures: Sequence[tuple[float, float, str]],
    *,
    start: float,
    end: float,
    reasons: Mapping[str, str],
    client_cpu_s: Sequence[float],
    server: Server | None,
    windows: int,
    stable: bool,
) -> Point:
    """The point of all answers and failures; at least one answer belongs to it.

    Args:
        answers: `[n, 4]` INTENDED, DONE, LATE, ROWS.
        failures: when meant to be sent, when failed, kind.
        client_cpu_s: processor time between `start` and `end` of each client process.
    """
    seconds = end - start
    found = within(answers, load, start, end)
    latencies = np.sort(found[:, DONE] - found[:, INTENDED])
    came = answers[(start <= answers[:, DONE]) & (answers[:, DONE] < end)]  # a rate is of what came, in either loop
    # Of a closed loop, what was under way in it: a request that hangs ends when the point is over, if ever.
    errors = Counter(
        kind for sent, ended, kind in failures if sent < end and start <= (sent if load.is_open else ended)
    )
    late_s = quantile(np.sort(found[:, LATE]), 0.99)
    points = {f"{name}_ms": 1e3 * quantile(latencies, share) for name, share in QUANTILES.items()}
    warnings = []
    if late_s > LATE_SHARE * points["p99_ms"] / 1e3:
        warnings.append(
            f"requests were sent late (p99 {1e3 * late_s:.2f} ms), which their latencies include: the client is a "
            "limit; more --processes, or cores"
        )
    if max(client_cpu_s, default=0.0) > BUSY_CORES * seconds:
        warnings.append("a client process was busy all the time: it was the limit; more --processes")
    behind = load.is_open and _is_behind(answers, failures, start=start, end=end)
    if behind:
        warnings.append("less was answered than asked for: latencies grow as long as the load lasts")
    if not stable:
        warnings.append("the last three windows did not agree: longer --window, or more of them")
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
        max_ms=1e3 * float(latencies[-1]),
        **points,
        errors=dict(errors),
        reasons={kind: reasons[kind] for kind in errors if kind in reasons},
        client_cores=sum(client_cpu_s) / seconds,
        late_p99_ms=1e3 * late_s,
        server=server,
        warnings=tuple(warnings),
        answers=found,
    )
