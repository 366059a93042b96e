# SPDX-License-Identifier: Apache-2.0
"""Statistics of a Triton server: executions and batch sizes, requests, time in the queue and in the model.

Triton counts per version since the server started. A restart or a version swap resets the counts; counts read before
are kept, so the sums here only grow.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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

    @property
    def queue_ms(self) -> float:
        """Mean time of a request in the queue; 0 without requests."""
        return 1000 * self.queue_s / self.requests if self.requests else 0.0

    @property
    def compute_ms(self) -> float:
        """Mean time of one execution; 0 without executions."""
        return 1000 * self.compute_s / self.executions if self.batch_sizes else 0.0

    def __add__(self, other: "ModelCounts") -> "ModelCounts":
        return self._combined(other, operator.add)

    def __sub__(self, earlier: "ModelCounts") -> "ModelCounts":
        return self._combined(earlier, operator.sub)

    def _combined(self, other: "ModelCounts", of: Callable[[Any, Any], Any]) -> "ModelCounts":
        numbers, others = dict(vars(self)), dict(vars(other))
        sizes, other_sizes = numbers.pop("batch_sizes"), others.pop("batch_sizes")
        both = {rows: of(sizes.get(rows, 0), other_sizes.get(rows, 0)) for rows in sorted(sizes.keys() | other_sizes)}
        return ModelCounts(
            **{name: of(number, others[name]) for name, number in numbers.items()},
            batch_sizes={rows: count for rows, count in both.items() if count},
        )


class ModelStatistics(Connection):
    """Connection to a server that reads the counts of one model."""

    def __init__(self, url: str, *, model: str) -> None:
        super().__init__(url)
        self._model = model
        self._last: dict[str, ModelCounts] = {}  # the last reading, by version
        self._total = ModelCounts()

    def read(self, *, timeout_s: float = 2.0) -> ModelCounts:
        """Return the counts since the server started; after the first call, restarts are included.

        Raises:
            EvaluatorError: if the server does not respond; if it is only busy, the next call includes its counts.
        """
        request = service_pb2.ModelStatisticsRequest(name=self._model)
        reply = self.call("ModelStatistics", request, model=self._model, timeout_s=timeout_s)
        now = {version.version: _counts(version) for version in reply.model_stats}
        for version, counts in now.items():
            before = self._last.get(version, ModelCounts())
            # A restarted server may already have more requests, but hardly more batches of every size.
            is_reset = counts.requests < before.requests or any(
                counts.batch_sizes.get(rows, 0) < count for rows, count in before.batch_sizes.items()
            )
            self._total += counts if is_reset else counts - before
        self._last = now
        return self._total


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
