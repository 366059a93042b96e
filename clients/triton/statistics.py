# SPDX-License-Identifier: Apache-2.0
"""Statistics of a Triton server: executions and batch sizes, requests, time in the queue and in the model.

Triton counts per version since the server started. A restart or a version swap resets the counts; counts read before
are kept, so the sums here only grow.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from clients.triton.connection import Connection
from clients.triton.protocol import service_pb2


@dataclass(frozen=True)
class ModelCounts:
    """Sums over all versions of one model."""

    requests: int = 0
    """Successful requests, without `failed_requests`."""
    failed_requests: int = 0
    queue_s: float = 0.0
    """Time in the queue, summed over requests."""
    compute_s: float = 0.0
    """Time in the model including input and output, summed over executions."""
    input_s: float = 0.0
    """Time to gather inputs, to infer and to distribute outputs (three fields), each summed over requests."""
    infer_s: float = 0.0
    output_s: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Number of executions by batch size."""

    @property
    def executions(self) -> int:
        """Number of executed batches."""
        return sum(self.batch_sizes.values())

    @property
    def execution_rows(self) -> int:
        """Number of rows in all executed batches."""
        return sum(rows * count for rows, count in self.batch_sizes.items())

    @property
    def mean_execution_rows(self) -> float | None:
        """Mean batch size; None without executions."""
        return self.execution_rows / self.executions if self.batch_sizes else None

    def for_sample(self) -> dict[str, float]:
        """Return the server's fields of a `telemetry.Sample`."""
        return {
            "executions": self.executions,
            "execution_rows": self.execution_rows,
            "requests": self.requests,
            "queue_s": self.queue_s,
            "compute_s": self.compute_s,
        }

    def plus(self, other: "ModelCounts") -> "ModelCounts":
        """Return the sum of both."""
        return self._combine(other, sign=1)

    def minus(self, earlier: "ModelCounts") -> "ModelCounts":
        """Return the difference to an earlier reading."""
        return self._combine(earlier, sign=-1)

    def _combine(self, other: "ModelCounts", *, sign: int) -> "ModelCounts":
        sizes = Counter(self.batch_sizes)
        for rows, count in other.batch_sizes.items():
            sizes[rows] += sign * count
        return ModelCounts(
            requests=self.requests + sign * other.requests,
            failed_requests=self.failed_requests + sign * other.failed_requests,
            queue_s=self.queue_s + sign * other.queue_s,
            compute_s=self.compute_s + sign * other.compute_s,
            input_s=self.input_s + sign * other.input_s,
            infer_s=self.infer_s + sign * other.infer_s,
            output_s=self.output_s + sign * other.output_s,
            batch_sizes={rows: count for rows, count in sorted(sizes.items()) if count},
        )


class ModelStatistics:
    """Reads the counts of one model over a connection of its own."""

    def __init__(self, url: str, *, model: str) -> None:
        self._model = model
        self._connection = Connection(url)
        self._last: dict[str, ModelCounts] = {}  # the last reading, by version
        self._total = ModelCounts()

    def read(self, *, timeout_s: float = 2.0) -> ModelCounts:
        """Return the counts since the server started; after the first call, restarts are included.

        Raises:
            EvaluatorError: if the server does not respond; if it is only busy, the next call includes its counts.
        """
        request = service_pb2.ModelStatisticsRequest(name=self._model)
        reply = self._connection.call("ModelStatistics", request, model=self._model, timeout_s=timeout_s)
        now = {version.version: _counts(version) for version in reply.model_stats}
        for version, counts in now.items():
            before = self._last.get(version, ModelCounts())
            # A restarted server may already have more requests, but hardly more batches of every size.
            is_reset = counts.requests < before.requests or any(
                counts.batch_sizes.get(rows, 0) < count for rows, count in before.batch_sizes.items()
            )
            self._total = self._total.plus(counts if is_reset else counts.minus(before))
        self._last = now
        return self._total

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _counts(version: Any) -> ModelCounts:
    """Parse the server's message. Times in `inference_stats` count a batch once per request in it."""
    stats = version.inference_stats
    compute_ns = sum(
        part.ns
        for batch in version.batch_stats
        for part in (batch.compute_input, batch.compute_infer, batch.compute_output)
    )
    return ModelCounts(
        requests=stats.success.count,
        failed_requests=stats.fail.count,
        queue_s=stats.queue.ns / 1e9,
        compute_s=compute_ns / 1e9,
        input_s=stats.compute_input.ns / 1e9,
        infer_s=stats.compute_infer.ns / 1e9,
        output_s=stats.compute_output.ns / 1e9,
        batch_sizes={batch.batch_size: batch.compute_infer.count for batch in version.batch_stats},
    )
