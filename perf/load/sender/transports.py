# SPDX-License-Identifier: Apache-2.0
"""How a request is sent: `prepare` once, `send` often, `done` when it is answered; over gRPC, or as subclasses do it.

`send` returns at once. `done` is called once a request, from whatever thread learnt of its end: with None, or with
what its failure means.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from clients.errors import EvaluatorClosed, RequestTimeout
from clients.triton.connection import Connection
from clients.triton.failures import Failure, classify
from clients.triton.protocol import grpc, service_pb2
from clients.triton.wire import encode_request
from perf.load.plan import Target, Traffic
from perf.load.sender.rows import Payload
from perf.load.sender.signature import Signature

PER_CHANNEL: Final = 4
MOST_CHANNELS: Final = 4
"""Of a process."""
Done = Callable[[Failure | None], None]


def request_head(target: Target, signature: Signature, n_rows: int) -> Any:
    """A ModelInferRequest without its tensors' bytes."""
    head = service_pb2.ModelInferRequest(model_name=target.model, model_version=target.version)
    for tensor in signature.inputs:
        head.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=signature.dims(tensor, n_rows))
    for tensor in signature.outputs:
        head.outputs.add(name=tensor.name)
    return head


class GrpcUnary:
    """One call a request; messages go as bytes that were encoded once.

    A connection is shared by up to `PER_CHANNEL` calls in flight (NVIDIA's C++ client: 6). All on one cost the server
    more processor time a request (docs/loadtest.md).
    """

    most_in_flight = 4096
    """More than so many wait in the client."""

    def __init__(self, target: Target, signature: Signature, traffic: Traffic) -> None:
        self._target, self._signature, self._timeout_s = target, signature, traffic.timeout_s
        self.connection = Connection(target.url)
        self._connections = [self.connection]
        self._free: list[Connection] = []  # each once for every call that it has room for
        self._n_calls = 0

    def prepare(self, payload: Payload) -> Any:
        """What `send` takes, made as far as it can be made once."""
        return encode_request(request_head(self._target, self._signature, payload.n_rows), *payload.tensors)

    def send(self, prepared: Any, done: Done) -> None:
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._make_room()
        link, sent_at, token = connection.link, time.monotonic(), object()
        link.calls.add(token)
        try:
            call = link.infer.future(prepared, timeout=self._timeout_s)
        except ValueError:  # gRPC's word for a closed channel
            link.calls.discard(token)
            done(Failure(EvaluatorClosed, "the connection was closed", may_pass=False))
            return

        # In gRPC's own thread: handing the end over to another would cost a switch of threads a request.
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

    def _make_room(self) -> Connection:
        """One with room for one call more."""
        at = self._n_calls // PER_CHANNEL % MOST_CHANNELS
        self._n_calls += 1
        if at == len(self._connections):
            self._connections.append(Connection(self._target.url))
        return self._connections[at]
