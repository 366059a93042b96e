# SPDX-License-Identifier: Apache-2.0
"""What a Triton server says of its work: executions, rows, time in queue and in the model."""

from clients.channel import CHANNEL_OPTIONS

import grpc  # isort: skip  (after clients.channel, which chooses gRPC's event engine)
from tritonclient.grpc import service_pb2, service_pb2_grpc

NAMES = ("executions", "execution_rows", "requests", "queue_s", "compute_s")


class ServerCounts:
    """Counts of one model, all versions, since `start`; a restart of the server does not lose what was read before."""

    def __init__(self, url: str, model: str) -> None:
        self._model = model
        self._channel = grpc.insecure_channel(url, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._last: dict[str, dict[str, float]] = {}
        self._total = dict.fromkeys(NAMES, 0.0)

    def start(self) -> None:
        """Count from here."""
        self._last = self._ask() or {}
        self._total = dict.fromkeys(NAMES, 0.0)

    def read(self) -> dict[str, float]:
        """Counts since `start`; the last ones known while the server is away."""
        now = self._ask()
        for version, counts in (now or {}).items():
            before = self._last.get(version, {})
            # Fewer than before: the server was restarted and counts from zero.
            restarted = counts["executions"] < before.get("executions", 0.0)
            for name, count in counts.items():
                self._total[name] += count - (0.0 if restarted else before.get(name, 0.0))
        self._last = now if now is not None else self._last
        return dict(self._total)

    def _ask(self) -> dict[str, dict[str, float]] | None:
        """Counts of each version since the server loaded it; None when nobody answers."""
        try:
            reply = self._stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=self._model), timeout=1.0)
        except grpc.RpcError:
            return None
        return {version.version: _counts(version) for version in reply.model_stats}

    def close(self) -> None:
        self._channel.close()


def _counts(version: service_pb2.ModelStatistics) -> dict[str, float]:
    # Compute time comes from the batch statistics: inference_stats count a batch once for every request in it.
    compute_ns = sum(
        part.ns
        for batch in version.batch_stats
        for part in (batch.compute_input, batch.compute_infer, batch.compute_output)
    )
    return {
        "executions": float(version.execution_count),
        "execution_rows": float(version.inference_count),
        "requests": float(version.inference_stats.success.count),
        "queue_s": version.inference_stats.queue.ns / 1e9,
        "compute_s": compute_ns / 1e9,
    }
