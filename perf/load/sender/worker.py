# SPDX-License-Identifier: Apache-2.0
"""One client process of a load test: sends requests as it is told and reports when each was answered.

As a program (`python -m clients.starter perf.load.sender.worker`) it takes lines on standard input and reports in lines
of JSON on standard output; it stops when its input closes, so it never outlives whoever started it.

```
in   a SenderConfig                        then any number of
     {"load": ..., "at": T}                begin at this moment of the monotonic clock, which all processes share
     {"halt": GRACE_S}                     send no more; what is not answered in so long counts as unanswered
out  {"event": "ready"}                    connected, requests made
     {"event": "tick", ...}                what ended since the last one: `answers`, `failures`, `reasons`
     {"event": "halted"}                   nothing is in flight
     {"event": "error", "text"}            why it gives up; the exit status is 1
```
An answer is four float64: when its request was meant to be sent, when it came, how late it was really sent, its rows.
"""

import base64
import contextlib
import heapq
import itertools
import json
import math
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from clients.triton.failures import Failure
from mcts_ext.errors import BlobError
from perf.load.plan import Load, Target, Traffic
from perf.load.sender.rows import make_payloads
from perf.load.sender.schedule import arrivals
from perf.load.sender.sharedmemory import SharedMemory
from perf.load.sender.signature import Signature, Tensor
from perf.load.sender.transports import GrpcUnary

TICK_S: Final = 0.1
PAUSE_S: Final = 0.05
"""After a failure a slot of a closed loop waits so long; a server that refuses at once would take all of the core."""
LAST_S: Final = 1.0
"""At the end, for what is in flight: the server must not write into shared memory that is taken from it."""
UNANSWERED: Final = "Unanswered"
FIELDS: Final = 4


@dataclass(frozen=True)
class SenderConfig:
    """What one process needs."""

    target: Target
    signature: Signature
    traffic: Traffic
    index: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(line: str) -> "SenderConfig":
        found: dict[str, Any] = json.loads(line)
        key_file = found["target"].pop("key_file")
        signature = found["signature"]
        tensors = {
            name: tuple(Tensor(one["name"], one["datatype"], tuple(one["shape"])) for one in signature[name])
            for name in ("inputs", "outputs")
        }
        return SenderConfig(
            Target(**found["target"], key_file=Path(key_file) if key_file else None),
            Signature(tensors["inputs"], tensors["outputs"], signature["max_batch_size"]),
            Traffic(**found["traffic"] | {"shapes": tuple(found["traffic"]["shapes"])}),
            found["index"],
        )


class Sender:
    """Sends, and keeps what came of it until it is taken.

    `run` is the loop of the one thread that sends at given times; in a closed loop the thread that learns of an answer
    sends the next request itself.
    """

    def __init__(self, transport: GrpcUnary, requests: list[tuple[int, Any]]) -> None:
        self._transport = transport
        self._requests = itertools.cycle(requests)  # (rows, prepared)
        self._lock = threading.Condition()
        self._due: list[tuple[float, int, Callable[[float], None]]] = []  # a heap
        self._order = itertools.count()
        self._in_flight: dict[object, float] = {}
        self._room = threading.Semaphore(transport.most_in_flight)
        self._times: Iterator[float] = iter(())
        self._next_arrival = math.inf
        self._is_sending = False
        self._answers: deque[tuple[float, float, float, int]] = deque()
        self._failures: deque[tuple[float, float, str]] = deque()
        self._reasons: dict[str, str] = {}

    def begin(self, load: Load, *, at: float, ramp_s: float, index: int, processes: int, seed: int) -> None:
        self._is_sending = True
        self._reasons = {}
        if load.concurrency is not None:
            for slot in range(index, load.concurrency, processes):
                self._plan(at + ramp_s * slot / load.concurrency, self._send_in_turn)
        elif load.rate is not None:
            times = arrivals(load.rate / processes, ramp_s=ramp_s, seed=(seed, index))
            self._times = (at + after for after in times)
            with self._lock:
                self._plan_arrival()

    def halt(self, grace_s: float) -> None:
        """Send no more and wait for what is in flight; what is then unanswered has failed.

        So has what should have been sent by now: a transport that blocks its sender must not hide what it held up.
        """
        with self._lock:
            self._is_sending = False
            self._room = threading.Semaphore(self._transport.most_in_flight)  # what hangs gives its back to the old one
            self._due.clear()
            unsent, now = [], time.monotonic()
            while self._next_arrival <= now:
                unsent.append(self._next_arrival)
                self._next_arrival = next(self._times)
            self._next_arrival = math.inf
        deadline = time.monotonic() + grace_s
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(0.005)
        now = time.monotonic()
        left = [self._in_flight.pop(flight, None) for flight in list(self._in_flight)]
        for intended in (*left, *unsent):
            if intended is not None:
                self._failures.append((intended, now, UNANSWERED))
                self._reasons[UNANSWERED] = f"{grace_s:g} s after the last request"

    @property
    def has_news(self) -> bool:
        return bool(self._answers or self._failures)

    def take(self) -> dict[str, Any]:
        """What ended since the last call."""
        answers = array("d")
        for _ in range(len(self._answers)):  # others append meanwhile
            answers.extend(self._answers.popleft())
        failures = [self._failures.popleft() for _ in range(len(self._failures))]
        return {
            "answers": base64.b64encode(answers.tobytes()).decode(),
            "failures": failures,
            "reasons": self._reasons if failures else {},
        }

    def run(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        while not is_stopped():
            with self._lock:
                wait_s = min(TICK_S, self._due[0][0] - time.monotonic()) if self._due else TICK_S
                if wait_s > 0:
                    self._lock.wait(wait_s)
                    continue
                at, _, what = heapq.heappop(self._due)
            what(at)

    def _plan(self, at: float, what: Callable[[float], None]) -> None:
        with self._lock:
            if self._is_sending:
                heapq.heappush(self._due, (at, next(self._order), what))
                self._lock.notify()

    def _plan_arrival(self) -> None:
        self._next_arrival = next(self._times)
        heapq.heappush(self._due, (self._next_arrival, next(self._order), self._arrive))
        self._lock.notify()

    def _arrive(self, at: float) -> None:
        room = self._room
        while not room.acquire(timeout=TICK_S):
            if room is not self._room or self._is_stopped():
                return  # `halt` counts it
        with self._lock:
            if room is not self._room:
                return
            self._plan_arrival()
        self._send(at, lambda has_failed: room.release())

    def _send_in_turn(self, _at: float) -> None:
        self._send(time.monotonic(), self._after_turn)

    def _after_turn(self, has_failed: bool) -> None:
        if has_failed:
            self._plan(time.monotonic() + PAUSE_S, self._send_in_turn)
        elif self._is_sending:
            self._send_in_turn(0.0)

    def _send(self, intended: float, after: Callable[[bool], None]) -> None:
        flight = object()
        late_s = time.monotonic() - intended
        self._in_flight[flight] = intended
        rows, prepared = next(self._requests)

        def done(failure: Failure | None) -> None:
            now = time.monotonic()
            if self._in_flight.pop(flight, None) is None:
                return  # counted as unanswered already
            if failure is None:
                self._answers.append((intended, now, late_s, rows))
            else:
                self._failures.append((intended, now, failure.kind.__name__))
                self._reasons.setdefault(failure.kind.__name__, failure.reason)
            after(failure is not None)

        self._transport.send(prepared, done)


def main() -> int:
    """The process: orders from standard input, reports to standard output."""
    sys.setswitchinterval(0.0005)  # whoever reads answers must not hold up whoever sends
    config = SenderConfig.from_json(sys.stdin.readline())
    lock, stop = threading.Lock(), threading.Event()
    faults: list[str] = []

    def report(event: str, **values: Any) -> None:
        with lock:
            print(json.dumps({"event": event, **values}), flush=True)

    def tick(sender: Sender) -> None:
        while not stop.wait(TICK_S):
            if sender.has_news:
                report("tick", **sender.take())

    def listen(sender: Sender) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if "halt" in order:
                sender.halt(order["halt"])
                report("tick", **sender.take())
                report("halted")
            else:
                load = Load(**order.pop("load"))
                sender.begin(load, index=config.index, processes=config.traffic.processes, **order)

    def send() -> None:
        kind = SharedMemory if config.traffic.transport == "shm" else GrpcUnary
        payloads = make_payloads(config.signature, config.traffic, index=config.index)
        with contextlib.closing(kind(config.target, config.signature, config.traffic)) as transport:
            sender = Sender(transport, [(one.n_rows, transport.prepare(one)) for one in payloads])
            report("ready")
            for work in (tick, listen):
                threading.Thread(target=guarded, args=(partial(work, sender),), daemon=True).start()
            try:
                sender.run(stop.is_set)
            finally:
                sender.halt(LAST_S)

    def guarded(work: Callable[[], None]) -> None:
        """What ends one thread ends the process."""
        try:
            work()
        except BrokenPipeError:  # nobody listens
            pass
        except BlobError as error:
            faults.append(str(error))
        finally:
            stop.set()

    guarded(send)
    if faults:
        report("error", text=faults[0])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
