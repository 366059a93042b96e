# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that simulates a bad network: its connections can be cut, stalled, dropped and slowed down."""

import asyncio
import contextlib
import math
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

from clients.address import split_url

CHUNK_BYTES: Final = 1 << 16
ACCEPT_S: Final = 0.01
"""For connections that are being accepted: asyncio leaves them open if its server closes before (Server._attach)."""
CALL_TIMEOUT_S: Final = 5.0


class Proxy:
    """Listens on a free port of 127.0.0.1 (see `url`) and forwards bytes to `target` (HOST:PORT) and back.

    | method | new connections | open connections |
    | --- | --- | --- |
    | `cut()` | refused | broken |
    | `stall()` | accepted, but no byte arrives | bytes arrive after `mend()` |
    | `drop()` | normal | bytes are accepted and never arrive |
    | `slow(...)` | bytes arrive later, at a limited rate per direction | the same |
    | `mend()` | normal | normal |
    """

    def __init__(self, target: str) -> None:
        self._target = split_url(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._age = 0  # connections of an earlier age have been dropped
        self._latency_s = 0.0
        self._bytes_per_s = math.inf
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._break())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(asyncio.sleep(0))  # aborted transports close their sockets
        self._loop.close()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._port}"

    def cut(self) -> None:
        self._call(self._break())

    def stall(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.clear)

    def drop(self) -> None:
        """Drop all open connections silently, as a NAT does."""
        self._age += 1

    def slow(self, *, latency_s: float, bytes_per_s: float) -> None:
        self._latency_s, self._bytes_per_s = latency_s, bytes_per_s

    def mend(self) -> None:
        self._latency_s, self._bytes_per_s = 0.0, math.inf
        self._loop.call_soon_threadsafe(self._flows.set)
        self._call(self._listen())

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(CALL_TIMEOUT_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _break(self) -> None:
        if self._server is not None:
            await asyncio.sleep(ACCEPT_S)
            self._server.close()
            self._server = None
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._forward(reader, writer)
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward in both directions until either side closes."""
        there, back = await asyncio.open_connection(*self._target)
        ways = {asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(there, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()  # first: this task may be canceled again while it waits
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        age = self._age
        while data := await reader.read(CHUNK_BYTES):
            await asyncio.sleep(max(self._latency_s, len(data) / self._bytes_per_s))
            await self._flows.wait()
            if age == self._age:
                writer.write(data)
                await writer.drain()
        if age != self._age:
            await asyncio.Event().wait()  # even the end does not arrive; until the proxy ends
