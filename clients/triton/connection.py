# SPDX-License-Identifier: Apache-2.0
"""A connection to a server that outlives its channel: one that went dead without a word is replaced by a fresh one.

A network can lose a connection silently (a NAT or a firewall that forgets it, a host that is gone). Nobody then says
so: the kernel repeats its segments for a quarter of an hour, and gRPC takes the channel for a good one. So a deadline
that passes while *nothing* is heard on its channel is the sign, and the calls after it go over a new channel.

```
link ── dead, one deadline unanswered ──> old: kept until its calls have ended, then closed
link ── fresh, takes the next call
```
The old channel is never closed under a call: Triton 2.51 can die of a call that is cancelled (`TritonEvaluator.close`).
Keepalive pings would not do: a Triton that is sent more than one in five minutes breaks the connection off.
"""

import threading
import time
from functools import cached_property
from typing import Any, Self

from clients.errors import RequestTimeout
from clients.triton.channel import call_once, open_channel
from clients.triton.protocol import service_pb2_grpc


class Link:
    """One channel, what is under way on it, and when something last came."""

    def __init__(self, url: str) -> None:
        self.channel = open_channel(url)
        self.infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # of bytes, not messages
        self.calls: set[object] = set()
        """A token for each call in flight, kept by whoever calls; adding and discarding is safe from any thread."""
        self.heard_at = float("-inf")
        """Of the monotonic clock; of the last answer."""

    @cached_property
    def stub(self) -> Any:
        """All methods, of messages."""
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel)


class Connection:
    """The current `link` to one server; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.link = Link(url)
        self._old: list[Link] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def unanswered(self, link: Link, *, sent_at: float) -> None:
        """A call that went over `link` at `sent_at` has met its deadline: the next ones take a fresh channel.

        Not if an answer to another call has come since: the channel then works, and the server is slow.
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
        """Call one method of the service by its name and wait, without repeats.

        Raises:
            EvaluatorError: the one its failure means.
        """
        link, sent_at, token = self.link, time.monotonic(), object()
        link.calls.add(token)
        try:
            asked = getattr(link.stub, method)
            answer = call_once(asked, request, url=self.url, model=model, timeout_s=timeout_s, metadata=metadata)
        except RequestTimeout:
            self.unanswered(link, sent_at=sent_at)
            raise
        finally:
            link.calls.discard(token)
        link.heard_at = time.monotonic()
        return answer

    @property
    def n_calls(self) -> int:
        """In flight, over channels that were replaced too."""
        return sum(len(link.calls) for link in (self.link, *self._old))

    def close(self) -> None:
        """Close all channels, which cancels what is in flight."""
        with self._lock:
            self._is_closed = True
            for link in (self.link, *self._old):
                link.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
