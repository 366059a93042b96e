# SPDX-License-Identifier: Apache-2.0
"""Health probe of a running server: one real inference, and the number of executions.

Triton's readiness is not enough: a model whose backend process is dead is still READY.
"""

import threading
from typing import Any

import numpy as np

from clients.triton.channel import open_channel
from clients.triton.protocol import grpc, service_pb2, service_pb2_grpc
from mcts_ext import contract
from serving.errors import BackendDead, ProbeFailed, ProbeTimeout, ProbeUnreachable


class Probe:
    """Connection to one server for probes, one at a time.

    After a probe without a response the next one uses a new channel: the old one may be silently dead, and gRPC without
    its event engine (clients/triton/protocol.py) waits 10 s before it reconnects after a refused connection.
    """

    def __init__(self, url: str, *, model: str) -> None:
        self.model = model
        self._url = url
        self._is_closed = False
        self._channel = open_channel(self._url)
        self._lock = threading.Lock()  # a channel must not be replaced during a call
        row = np.ones((1, contract.OBSERVATION_BYTES), np.uint8)  # as in check_network of the backends
        self._request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[row.tobytes()])
        self._request.inputs.add(name=contract.INPUT_NAME, datatype="UINT8", shape=row.shape)
        for name in contract.OUTPUTS:
            self._request.outputs.add(name=name)

    def infer(self, *, timeout_s: float) -> None:
        """Evaluate one row and check the response.

        Raises:
            ProbeFailed: or one of its subclasses.
        """
        response = self._call("ModelInfer", self._request, timeout_s)
        contents = dict(zip((out.name for out in response.outputs), response.raw_output_contents, strict=False))
        for name, (_, width) in contract.OUTPUTS.items():
            data = contents.get(name, b"")
            numbers = np.frombuffer(data, np.float32) if len(data) == 4 * width else np.zeros(0, np.float32)
            if len(numbers) != width or not np.isfinite(numbers).all():
                got = "NaN or infinity" if len(numbers) == width else f"{len(data)} bytes"
                raise ProbeFailed(f"expected {name} [1, {width}] of finite numbers, got {got}; export the model again")

    def n_executions(self, *, timeout_s: float) -> int:
        """Return the number of executed batches, which increases if the server is merely busy."""
        reply = self._call("ModelStatistics", service_pb2.ModelStatisticsRequest(name=self.model), timeout_s)
        return sum(int(version.execution_count) for version in reply.model_stats)

    def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self._channel.close()

    def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        with self._lock:
            try:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
                return getattr(stub, method)(request, timeout=timeout_s)
            except ValueError as error:  # raised by gRPC for a closed channel
                raise ProbeUnreachable("the connection was closed") from error
            except grpc.RpcError as error:
                unanswered = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
                if error.code() in unanswered and not self._is_closed:
                    self._channel.close()
                    self._channel = open_channel(self._url)
                raise _failure(error) from error


def _failure(error: grpc.RpcError) -> ProbeFailed:
    message = " ".join((error.details() or "").removeprefix("[request id: <id_unknown>] ").split())
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ProbeTimeout("no response within the deadline")
    # No connection, or the server is stopping.
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ProbeUnreachable(message)
    if "Stub process" in message and "is not healthy" in message:
        return BackendDead(message)
    return ProbeFailed(message)
