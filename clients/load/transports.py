# SPDX-License-Identifier: Apache-2.0
"""Ways to send a request, one class each behind one seam: `prepare` once, `send` often, `done` when it is answered.

`send` returns at once. `done` is called once a request, from whatever thread learnt of its end: with None, or with
what its failure means.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from clients.channel import Failure, classify
from clients.connection import SERVICE, Connection, Link
from clients.errors import (
    EvaluatorClosed,
    EvaluatorError,
    ModelNotFound,
    RequestTimeout,
    ServerFailed,
    ServerUnreachable,
)
from clients.load.plan import Target, Traffic
from clients.load.rows import Payload
from clients.load.signature import Signature
from clients.wire import encode_request

import grpc  # isort: skip  (clients.channel sets how it loads)
from tritonclient.grpc import service_pb2

PER_CHANNEL: Final = 4
MOST_CHANNELS: Final = 4
"""Of a process."""
CHECK_S: Final = 0.25
"""Between two looks for requests that have had no answer in time, where gRPC does not look itself."""
STREAM_KINDS: Final[dict[str, type[EvaluatorError]]] = {
    "unknown model": ModelNotFound,
    "no available versions": ModelNotFound,
    "maximum queue size": ServerUnreachable,  # as a call's status has it, UNAVAILABLE
    "timeout expired": ServerUnreachable,
}
"""What words in a stream's error, which has no status, mean."""
Done = Callable[[Failure | None], None]


class Transport(Protocol):
    """One process's connection to a server."""

    most_in_flight: int
    """More than so many requests wait in the client."""

    def prepare(self, payload: Payload) -> Any:
        """What `send` takes, made as far as it can be made once."""
        ...

    def send(self, prepared: Any, done: Done) -> None: ...

    def close(self) -> None: ...


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

    def __init__(self, target: Target, signature: Signature, traffic: Traffic) -> None:
        self._target, self._signature, self._timeout_s = target, signature, traffic.timeout_s
        self.connection = Connection(target.url)
        self._connections = [self.connection]
        self._free: list[Connection] = []  # each once for every call that it has room for
        self._n_calls = 0

    def prepare(self, payload: Payload) -> bytes:
        return encode_request(request_head(self._target, self._signature, payload.n_rows), *payload.tensors)

    def send(self, prepared: bytes, done: Done) -> None:
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
            done(closed())
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


class GrpcStream:
    """One bidirectional stream for all requests of a process; opened again after it broke or went silent."""

    most_in_flight = 4096

    def __init__(self, target: Target, signature: Signature, traffic: Traffic) -> None:
        self._target, self._signature, self._timeout_s = target, signature, traffic.timeout_s
        self._connection = Connection(target.url)
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[float, Done]] = {}  # when it was sent, by the request's number
        self._outbox: queue.SimpleQueue[bytes | None] | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._expire, daemon=True).start()

    def prepare(self, payload: Payload) -> bytes:
        return encode_request(request_head(self._target, self._signature, payload.n_rows), *payload.tensors)

    def send(self, prepared: bytes, done: Done) -> None:
        number = str(next(self._ids))
        # A message followed by one more field is the message with that field.
        tagged = prepared + service_pb2.ModelInferRequest(id=number).SerializeToString()
        with self._lock:
            if self._closed.is_set():
                outbox = None
            else:
                outbox = self._outbox = self._outbox or self._start()
                self._waiting[number] = (time.monotonic(), done)
        if outbox is None:
            done(closed())
        else:
            outbox.put(tagged)

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            if self._outbox is not None:
                self._outbox.put(None)
        self._connection.close()

    def _start(self) -> queue.SimpleQueue[bytes | None]:
        outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        link = self._connection.link
        open_stream = link.channel.stream_stream(
            f"{SERVICE}/ModelStreamInfer", response_deserializer=service_pb2.ModelStreamInferResponse.FromString
        )
        answers = open_stream(iter(outbox.get, None))
        link.calls.add(outbox)
        threading.Thread(target=self._listen, args=(link, answers, outbox), daemon=True).start()
        return outbox

    def _listen(self, link: Link, answers: Iterator[Any], outbox: queue.SimpleQueue[bytes | None]) -> None:
        failure = Failure(ServerFailed, "the server ended the stream", may_pass=True)
        try:
            for answer in answers:
                link.heard_at = time.monotonic()
                _, done = self._waiting.pop(answer.infer_response.id, (0.0, None))
                if done is not None:
                    done(_stream_failure(answer.error_message) if answer.error_message else None)
        except grpc.RpcError as error:
            failure = classify(error)
        outbox.put(None)  # ends the thread that gRPC reads requests with
        link.calls.discard(outbox)
        with self._lock:
            if self._outbox is not outbox:  # given up long ago: what waits now waits for another
                return
            left, self._waiting = list(self._waiting.values()), {}
            self._outbox = None
        for _, done in left:
            done(failure)

    def _expire(self) -> None:
        """A stream has no deadlines of its requests: keep them here."""
        while not self._closed.wait(CHECK_S):
            until = time.monotonic() - self._timeout_s
            with self._lock:
                late = [number for number, (sent, _) in tuple(self._waiting.items()) if sent < until]
                # Without those whose answer came meanwhile.
                expired = [found for number in late if (found := self._waiting.pop(number, None)) is not None]
                if expired and self._outbox is not None:
                    link = self._connection.link
                    self._connection.unanswered(link, sent_at=min(sent for sent, _ in expired))
                    if link is not self._connection.link:
                        self._outbox.put(None)
                        self._outbox = None  # the next request opens a stream on the fresh channel
            for _, done in expired:
                done(unanswered(self._timeout_s))


def _stream_failure(text: str) -> Failure:
    """A stream's errors come without a status."""
    kind = next((kind for words, kind in STREAM_KINDS.items() if words in text), ServerFailed)
    return Failure(kind, " ".join(text.split())[:300], may_pass=True)


def unanswered(timeout_s: float) -> Failure:
    """What becomes of a request whose deadline this side has to keep."""
    return Failure(RequestTimeout, f"no answer in {timeout_s:g} s", may_pass=True)


def closed() -> Failure:
    """What becomes of a request after `close`."""
    return Failure(EvaluatorClosed, "the connection was closed", may_pass=False)
