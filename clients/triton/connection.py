# SPDX-License-Identifier: Apache-2.0
"""Connection to a server that replaces its gRPC channel when the channel is silently dead.

A connection can be lost silently (a NAT or firewall drops its state, a host disappears). The kernel then retransmits
for a quarter of an hour, and gRPC considers the channel healthy. So if a deadline is exceeded while *nothing* was
received on its channel, the following calls use a new channel.

```
link ── dead: one deadline exceeded ──> old: kept until its calls have ended, then closed
link ── new: takes the next call
```
The old channel is never closed during a call: a cancelled call can crash Triton 2.51 (`TritonEvaluator.close`).
Keepalive pings are no alternative: Triton closes a connection that sends more than one in five minutes.
"""

import threading
import time
from functools import cached_property
from typing import Any, Self

from clients.errors import RequestTimeout
from clients.triton.channel import open_channel
from clients.triton.failures import classify
from clients.triton.protocol import grpc, service_pb2_grpc


class Link:
    """One channel, its calls in flight, and the time of its last response."""

    def __init__(self, url: str) -> None:
        self.channel = open_channel(url)
        self.infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # takes serialized bytes
        self.calls: set[object] = set()
        """Token per call in flight, managed by the caller; adding and discarding is thread-safe."""
        self.heard_at = float("-inf")
        """Time of the last response, on the monotonic clock."""

    @cached_property
    def stub(self) -> Any:
        """Generated stub with all methods."""
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel)


class Connection:
    """The current `link` to one server; thread-safe."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.link = Link(url)
        self._old: list[Link] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def unanswered(self, link: Link, *, sent_at: float) -> None:
        """Report that a call sent over `link` at `sent_at` exceeded its deadline; later calls use a new channel.

        The channel is kept if it has received another response since: then the server is merely slow.
        """
        with self._lock:
            if self._is_closed or link is not self.link or link.heard_at >= sent_at:
                return
            for old in [old for old in self._old if not old.calls]:
                self._old.remove(old)
                old.channel.close()
            self._old.append(link)
            self.link = Link(self.url)

    def call(
        self, method: str, request: Any, *, model: str, timeout_s: float, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        """Call one method of the service by name and wait, without retries.

        Raises:
            EvaluatorError: the classified failure.
        """
        link, sent_at, token = self.link, time.monotonic(), object()
        link.calls.add(token)
        try:
            response = getattr(link.stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            failure = classify(error)
            if failure.kind is RequestTimeout:
                self.unanswered(link, sent_at=sent_at)
            raise failure.error(url=self.url, model=model) from error
        finally:
            link.calls.discard(token)
        link.heard_at = time.monotonic()
        return response

    @property
    def n_calls(self) -> int:
        """Number of calls in flight, including those on replaced channels."""
        return sum(len(link.calls) for link in (self.link, *self._old))

    def close(self) -> None:
        """Close all channels, cancelling calls in flight."""
        with self._lock:
            self._is_closed = True
            for link in (self.link, *self._old):
                link.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
