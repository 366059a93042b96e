# SPDX-License-Identifier: Apache-2.0
"""Requests over HTTP/1.1: tensors binary after a JSON head, one connection for each request in flight, kept alive.

One thread waits for answers on all connections.
"""

import contextlib
import json
import selectors
import socket
import threading
import time
from typing import Any, Final

from clients.channel import Failure, split_url
from clients.errors import ModelNotFound, RequestRejected, ServerFailed, ServerUnreachable
from clients.load.plan import Target, Traffic
from clients.load.rows import Payload
from clients.load.signature import Signature
from clients.load.transports import CHECK_S, Done, closed, unanswered

KINDS: Final = {400: RequestRejected, 404: ModelNotFound, 503: ServerUnreachable}


class Http:
    """See `Transport`."""

    most_in_flight = 512

    def __init__(self, target: Target, signature: Signature, traffic: Traffic) -> None:
        self._target, self._signature, self._timeout_s = target, signature, traffic.timeout_s
        self._address = split_url(target.http_url)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._is_closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def prepare(self, payload: Payload) -> bytes:
        version = f"/versions/{self._target.version}" if self._target.version else ""
        head = {
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": self._signature.dims(tensor, payload.n_rows),
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for tensor, array in zip(self._signature.inputs, payload.tensors, strict=True)
            ],
            "outputs": [{"name": one.name, "parameters": {"binary_data": True}} for one in self._signature.outputs],
        }
        body = json.dumps(head).encode()
        lines = (
            f"POST /v2/models/{self._target.model}{version}/infer HTTP/1.1",
            f"Host: {self._target.http_url}",
            f"Inference-Header-Content-Length: {len(body)}",
            f"Content-Length: {len(body) + payload.n_bytes}",
        )
        return b"".join(("\r\n".join(lines).encode(), b"\r\n\r\n", body, *(array.data for array in payload.tensors)))

    def send(self, prepared: bytes, done: Done) -> None:
        if self._is_closed:
            done(closed())
            return
        try:
            while True:
                connection = self._idle.pop() if self._idle else None
                is_fresh = connection is None
                if connection is None:
                    connection = _Connection(self._address, self._timeout_s)
                    self._open.add(connection)
                    self._selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.begin(done)
                try:
                    connection.socket.sendall(prepared)
                except OSError:
                    # An idle connection that the server has closed meanwhile; unless the listener was told first.
                    if not connection.take():
                        return
                    self._drop(connection)
                    if is_fresh:
                        raise
                else:
                    return
        except OSError as error:
            done(Failure(ServerUnreachable, f"{type(error).__name__}: {error}", may_pass=True))

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()
        for connection in tuple(self._open):
            self._end(connection, closed())
        self._selector.close()

    def _listen(self) -> None:
        next_check = time.monotonic() + CHECK_S
        while not self._is_closed:
            for key, _ in self._selector.select(CHECK_S):
                self._read(key.data)
            now = time.monotonic()
            if now >= next_check:
                next_check = now + CHECK_S
                for connection in tuple(self._open):  # a copy, for the sender adds to it meanwhile
                    if connection.done is not None and connection.began + self._timeout_s < now:
                        self._end(connection, unanswered(self._timeout_s))

    def _read(self, connection: "_Connection") -> None:
        try:
            status = connection.read()
        except OSError as error:
            self._end(connection, Failure(ServerUnreachable, f"{type(error).__name__}: {error}", may_pass=True))
            return
        except ValueError as error:
            self._end(connection, Failure(ServerFailed, f"not an HTTP answer of Triton's: {error}", may_pass=False))
            return
        if status is None:
            return
        code, text = status
        done = connection.take()
        self._idle.append(connection)
        if done is not None:
            done(None if code == 200 else Failure(KINDS.get(code, ServerFailed), f"HTTP {code}: {text}", True))

    def _end(self, connection: "_Connection", failure: Failure) -> None:
        done = connection.take()
        self._drop(connection)
        if done is not None:
            done(failure)

    def _drop(self, connection: "_Connection") -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        self._open.discard(connection)
        with contextlib.suppress(KeyError, ValueError):  # the other thread has
            self._selector.unregister(connection.socket)
        connection.socket.close()


class _Connection:
    """A socket with at most one request on it."""

    def __init__(self, address: tuple[str, int], timeout_s: float) -> None:
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.done: Done | None = None
        self.began = 0.0
        self._buffer = bytearray(1 << 16)
        self._filled = 0

    def begin(self, done: Done) -> None:
        self._filled = 0
        self.began = time.monotonic()
        self.done = done

    def take(self) -> Done | None:
        done, self.done = self.done, None
        return done

    def read(self) -> tuple[int, str] | None:
        """Take in what has come; status and the body's beginning (of an error) once the answer is whole."""
        n = self.socket.recv_into(memoryview(self._buffer)[self._filled :])
        if n == 0:
            raise ConnectionError("the server closed the connection")
        self._filled += n
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            self._grow(2 * self._filled)
            return None
        status, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" not in headers:
            raise ValueError("without a length")
        total = end + 4 + int(headers["content-length"])
        if self._filled < total:
            self._grow(total)
            return None
        code = int(status.split()[1])
        return code, "" if code == 200 else _message(bytes(self._buffer[end + 4 : total]))

    def _grow(self, size: int) -> None:
        if size > len(self._buffer):
            self._buffer.extend(bytes(size - len(self._buffer)))


def _message(body: bytes) -> str:
    """Triton's words in an error's body."""
    try:
        found: Any = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        found = body.decode("latin-1")
    return " ".join(str(found).split())[:300]
