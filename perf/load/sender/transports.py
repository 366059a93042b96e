# SPDX-License-Identifier: Apache-2.0
"""Sending of requests over gRPC: `prepare` once per request, then `send` any number of times.

`send` returns at once. `done` is called once per request, from the thread that learns of its end: with None, or with
the failure.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.errors import EvaluatorClosed, RequestTimeout
from clients.triton.connection import Connection
from clients.triton.failures import Failure, classify
from clients.triton.protocol import grpc, service_pb2
from clients.triton.wire import encode_request
from mcts_ext.contract import INPUT_NAME, OBSERVATION_BYTES, OUTPUTS
from perf.load.plan import Target, Traffic

CALLS_PER_CHANNEL: Final = 4
MAX_CHANNELS: Final = 4
"""Number of channels per process."""
Done = Callable[[Failure | None], None]


def request_head(target: Target, n_rows: int) -> Any:
    """Return a ModelInferRequest without the contents of its tensor."""
    head = service_pb2.ModelInferRequest(model_name=target.model, model_version=target.version)
    head.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=[n_rows, OBSERVATION_BYTES])
    for name in OUTPUTS:
        head.outputs.add(name=name)
    return head


class GrpcUnary:
    """Sends each request as one call; messages are encoded once.

    Up to `CALLS_PER_CHANNEL` calls in flight share a channel (6 in NVIDIA's C++ client). All calls on one channel would
    cost the server more CPU time per request (docs/loadtest.md).
    """

    max_in_flight = 4096
    """Further requests wait in the client."""

    def __init__(self, target: Target, traffic: Traffic) -> None:
        self._target, self._timeout_s = target, traffic.timeout
        self.connection = Connection(target.url)
        self._connections = [self.connection]
        self._free: list[Connection] = []  # a connection once per further call that it can take
        self._n_calls = 0

    def prepare(self, rows: NDArray[np.uint8]) -> Any:
        """Return the argument of `send` for a request with the rows `[B, F]`."""
        return encode_request(request_head(self._target, len(rows)), rows)

    def send(self, prepared: Any, done: Done) -> None:
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._next_connection()
        link, sent_at, token = connection.link, time.monotonic(), object()
        link.calls.add(token)
        try:
            call = link.infer.future(prepared, timeout=self._timeout_s)
        except ValueError:  # the channel is closed
            link.calls.discard(token)
            done(Failure(EvaluatorClosed, "the connection was closed", may_pass=False))
            return

        # Runs in gRPC's thread: another one would cost a thread switch per request.
        def finish(call: Any) -> None:
            link.calls.discard(token)
            failure = None
            if call.code() is grpc.StatusCode.OK:
                link.heard_at = time.monotonic()
            else:
                failure = classify(call)
                if failure.kind is RequestTimeout:
                    connection.unanswered(link, sent_at=sent_at)
            self._free.append(connection)
            done(failure)

        call.add_done_callback(finish)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _next_connection(self) -> Connection:
        """Return a connection for one more call in flight."""
        at = self._n_calls // CALLS_PER_CHANNEL % MAX_CHANNELS
        self._n_calls += 1
        if at == len(self._connections):
            self._connections.append(Connection(self._target.url))
        return self._connections[at]
