# SPDX-License-Identifier: Apache-2.0
"""One client process of a load test: sends requests as ordered and reports when each was answered.

As a program (`python -m clients.starter perf.load.sender.worker`) it reads lines from standard input and reports in
lines of JSON on standard output; it stops when its input closes, so it does not outlive its parent.

```
in   a SenderConfig                        then any number of
     {"load": ..., "at": T}                begin at time T of the monotonic clock, which all processes share
     {"halt": GRACE_S}                     send no more; requests without an answer after GRACE_S count as unanswered
out  {"event": "ready"}                    connected, requests made
     {"event": "tick", ...}                `answers`, `failures` and `reasons` since the last tick
     {"event": "halted"}                   nothing is in flight
     {"event": "error", "text"}            the process fails; the exit status is 1
```
An answer is four float64: intended send time, arrival, lateness of the sending, rows.
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

import numpy as np

from clients.triton.failures import Failure
from mcts_ext.errors import BlobError
from perf.load.plan import Load, Target, Traffic, TransportName
from perf.load.sender.rows import make_requests
from perf.load.sender.sharedmemory import SharedMemory
from perf.load.sender.transports import GrpcUnary

TICK_S: Final = 0.1
PAUSE_S: Final = 0.05
"""Pause of a closed loop's slot after a failure; otherwise a server that refuses at once would occupy a whole core."""
LAST_S: Final = 1.0
"""Wait for requests in flight at the end: the server must not write into shared memory that is being removed."""
UNANSWERED: Final = "Unanswered"
FIELDS: Final = 4


@dataclass(frozen=True)
class SenderConfig:
    """Configuration of one process."""

    target: Target
    transport: TransportName
    traffic: Traffic
    max_batch_size: int
    index: int
    """Number of the process."""

    def to_json(self) -> str:
        """Serialize to one line, for `from_json`."""
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(line: str) -> "SenderConfig":
        """Parse a line of JSON."""
        fields: dict[str, Any] = json.loads(line)
        target = fields.pop("target")
        if target["key_file"] is not None:
            target["key_file"] = Path(target["key_file"])
        return SenderConfig(target=Target(**target), traffic=Traffic(**fields.pop("traffic")), **fields)


def arrivals(rate: float, *, ramp_s: float, seed: tuple[int, ...]) -> Iterator[float]:
    """Draw the arrival times of an open loop, in seconds after its start, without end: a Poisson process.

    Each of P processes draws its own at rate r / P; together they form a process of rate r. During the ramp the rate
    grows linearly from 0. Let L(t) be the expected number of requests by time t: rate t^2 / (2 ramp) during the ramp,
    rate (t - ramp / 2) afterwards. Then the times are L's inverse at the arrivals of a process of rate 1.
    """
    rng = np.random.default_rng((2, *seed))  # stream 1 draws the rows
    expected = 0.0
    in_ramp = rate * ramp_s / 2
    while True:
        for gap in rng.exponential(size=1024):
            expected += float(gap)
            yield math.sqrt(2 * ramp_s * expected / rate) if expected < in_ramp else expected / rate + ramp_s / 2


class Sender:
    """Sends requests and keeps the results until they are taken.

    `run` is the loop of the thread that sends at scheduled times; in a closed loop, the thread that receives an answer
    sends the next request itself.
    """

    def __init__(self, transport: GrpcUnary, requests: list[tuple[int, Any]]) -> None:
        self._transport = transport
        self._requests = itertools.cycle(requests)  # (rows, prepared)
        self._lock = threading.Condition()
        self._due: list[tuple[float, int, Callable[[float], None]]] = []  # a heap of (time, tie-break, action)
        self._order = itertools.count()
        self._in_flight: dict[object, float] = {}
        self._room = threading.Semaphore(transport.max_in_flight)
        self._times: Iterator[float] = iter(())
        self._next_arrival = math.inf
        self._is_sending = False
        self._answers: deque[tuple[float, float, float, int]] = deque()
        self._failures: deque[tuple[float, float, str]] = deque()
        self._reasons: dict[str, str] = {}

    def begin(self, load: Load, *, at: float, ramp_s: float, index: int, processes: int, seed: int) -> None:
        """Begin this process's share of a load at time `at`."""
        self._is_sending = True
        self._reasons = {}
        if load.concurrency is not None:
            for slot in range(index, load.concurrency, processes):
                self._schedule(at + ramp_s * slot / load.concurrency, self._send_in_turn)
        elif load.rate is not None:
            times = arrivals(load.rate / processes, ramp_s=ramp_s, seed=(seed, index))
            self._times = (at + after for after in times)
            with self._lock:
                self._schedule_arrival()

    def halt(self, grace_s: float) -> None:
        """Send no more and wait for the requests in flight; those without an answer after `grace_s` have failed.

        Requests that should have been sent by now have failed, too: a transport that blocks must not hide them.
        """
        with self._lock:
            self._is_sending = False
            self._room = threading.Semaphore(self._transport.max_in_flight)  # late calls release the previous one
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

    def take(self) -> dict[str, Any]:
        """Return the results since the last call."""
        answers = array("d")
        for _ in range(len(self._answers)):  # other threads append meanwhile
            answers.extend(self._answers.popleft())
        failures = [self._failures.popleft() for _ in range(len(self._failures))]
        return {
            "answers": base64.b64encode(answers.tobytes()).decode(),
            "failures": failures,
            "reasons": self._reasons if failures else {},
        }

    def run(self, is_stopped: Callable[[], bool]) -> None:
        """Send at the scheduled times until stopped."""
        self._is_stopped = is_stopped
        while not is_stopped():
            with self._lock:
                wait_s = min(TICK_S, self._due[0][0] - time.monotonic()) if self._due else TICK_S
                if wait_s > 0:
                    self._lock.wait(wait_s)
                    continue
                at, _, action = heapq.heappop(self._due)
            action(at)

    def _schedule(self, at: float, action: Callable[[float], None]) -> None:
        with self._lock:
            if self._is_sending:
                heapq.heappush(self._due, (at, next(self._order), action))
                self._lock.notify()

    def _schedule_arrival(self) -> None:
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
            self._schedule_arrival()
        self._send(at, lambda has_failed: room.release())

    def _send_in_turn(self, _at: float) -> None:
        self._send(time.monotonic(), self._after_turn)

    def _after_turn(self, has_failed: bool) -> None:
        if has_failed:
            self._schedule(time.monotonic() + PAUSE_S, self._send_in_turn)
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
                return  # already counted as unanswered
            if failure is None:
                self._answers.append((intended, now, late_s, rows))
            else:
                self._failures.append((intended, now, failure.kind.__name__))
                self._reasons.setdefault(failure.kind.__name__, failure.reason)
            after(failure is not None)

        self._transport.send(prepared, done)


def main() -> int:
    """Run the process; return its exit status."""
    sys.setswitchinterval(0.0005)  # the threads that receive must not delay the one that sends
    config = SenderConfig.from_json(sys.stdin.readline())
    lock, stop = threading.Lock(), threading.Event()
    faults: list[str] = []

    def report(event: str, **values: Any) -> None:
        with lock:
            print(json.dumps({"event": event, **values}), flush=True)

    def tick(sender: Sender) -> None:
        while not stop.wait(TICK_S):
            taken = sender.take()
            if any(taken.values()):
                report("tick", **taken)

    def listen(sender: Sender) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if "halt" in order:
                sender.halt(order["halt"])
                report("tick", **sender.take())
                report("halted")
            else:
                load = Load(**order.pop("load"))
                sender.begin(load, index=config.index, processes=config.traffic.n_processes, **order)

    def send() -> None:
        kind = SharedMemory if config.transport == "shm" else GrpcUnary
        requests = make_requests(config.traffic, max_batch_size=config.max_batch_size, index=config.index)
        with contextlib.closing(kind(config.target, config.traffic)) as transport:
            sender = Sender(transport, [(len(rows), transport.prepare(rows)) for rows in requests])
            report("ready")
            for work in (tick, listen):
                threading.Thread(target=guarded, args=(partial(work, sender),), daemon=True).start()
            try:
                sender.run(stop.is_set)
            finally:
                sender.halt(LAST_S)

    def guarded(work: Callable[[], None]) -> None:
        """Run the body of a thread; its end is that of the process."""
        try:
            work()
        except BrokenPipeError:  # the parent has ended
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
