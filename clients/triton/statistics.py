# SPDX-License-Identifier: Apache-2.0
"""What a Triton server counts of its work: executions and their sizes, requests, time in queue and in the model.

Triton counts per version since the server started. A restart, or a swap of versions, begins new counts; what was read
before is kept, so the sums here only grow.
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
    """Answered; those that failed count as `failed_requests` only."""
    failed_requests: int = 0
    queue_s: float = 0.0
    """Time that requests stood in the queue, summed over requests."""
    compute_s: float = 0.0
    """Time that the model took, input and output included, summed over executions."""
    input_s: float = 0.0
    """Time that went into gathering inputs, into the model, and into handing outputs out, each summed over requests."""
    infer_s: float = 0.0
    output_s: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Executions by their number of rows."""

    @property
    def executions(self) -> int:
        """Batches that the model ran."""
        return sum(self.batch_sizes.values())

    @property
    def execution_rows(self) -> int:
        """Rows in them."""
        return sum(rows * count for rows, count in self.batch_sizes.items())

    @property
    def mean_execution_rows(self) -> float | None:
        """Rows in a batch; None where none ran."""
        return self.execution_rows / self.executions if self.batch_sizes else None

    def for_sample(self) -> dict[str, float]:
        """What a `telemetry.Sample` takes from a server, by its names."""
        return {
            "executions": self.executions,
            "execution_rows": self.execution_rows,
            "requests": self.requests,
            "queue_s": self.queue_s,
            "compute_s": self.compute_s,
        }

    def plus(self, other: "ModelCounts") -> "ModelCounts":
        """Both together."""
        return self._combine(other, sign=1)

    def minus(self, earlier: "ModelCounts") -> "ModelCounts":
        """What happened between two moments."""
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
    """Reads one model's counts; a connection of its own, for whoever reports, beside those who play."""

    def __init__(self, url: str, *, model: str) -> None:
        self._model = model
        self._connection = Connection(url)
        self._last: dict[str, ModelCounts] = {}  # by version, as the server said last
        self._total = ModelCounts()

    def read(self, *, timeout_s: float = 2.0) -> ModelCounts:
        """Counts since the server started; of later servers at the same address too, since the first call.

        Raises:
            EvaluatorError: the server does not answer now; what it counted is not lost if it is only busy.
        """
        request = service_pb2.ModelStatisticsRequest(name=self._model)
        reply = self._connection.call("ModelStatistics", request, model=self._model, timeout_s=timeout_s)
        now = {version.version: _counts(version) for version in reply.model_stats}
        for version, counts in now.items():
            before = self._last.get(version, ModelCounts())
            # A new server may have done more in all by now, but hardly more batches of every size.
            began_anew = counts.requests < before.requests or any(
                counts.batch_sizes.get(rows, 0) < count for rows, count in before.batch_sizes.items()
            )
            self._total = self._total.plus(counts if began_anew else counts.minus(before))
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
    """From the server's message. Times of `inference_stats` count a batch once for each request in it."""
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
