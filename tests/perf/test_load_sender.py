# SPDX-License-Identifier: Apache-2.0
"""The sender of a load test over transports that refuse, are silent, block, or have little room: nothing is hidden."""

import base64
import itertools
import threading
import time

import numpy as np
import pytest

from clients.errors import ServerUnreachable
from clients.triton.failures import Failure
from perf.load import Load
from perf.load.sender.transports import Done
from perf.load.sender.worker import Sender, arrivals


class Refusing:
    """A transport that says no at once, within `send`."""

    max_in_flight = 1
    n_sent = 0

    def prepare(self, payload: object) -> object:
        return payload

    def send(self, prepared: object, done: Done) -> None:
        self.n_sent += 1
        done(Failure(ServerUnreachable, "no", may_pass=True))

    def close(self) -> None: ...


def run_open(transport: Refusing, *, rate: float, seconds: float, grace_s: float) -> Sender:
    """A sender after an open loop over a transport."""
    sender = Sender(transport, [(1, b"")])
    stop = threading.Event()
    runner = threading.Thread(target=sender.run, args=(stop.is_set,))
    runner.start()
    sender.begin(Load(rate=rate), at=time.monotonic(), ramp_s=0.0, index=0, processes=1, seed=0)
    time.sleep(seconds)
    sender.halt(grace_s)
    stop.set()
    runner.join()
    return sender


def test_what_never_was_answered_is_counted() -> None:
    class Silent(Refusing):
        def send(self, prepared: object, done: Done) -> None:
            self.n_sent += 1

    transport = Silent()
    failures = run_open(transport, rate=200.0, seconds=0.3, grace_s=0.1).take()["failures"]
    assert {kind for _, _, kind in failures} == {"Unanswered"}
    assert len(failures) == pytest.approx(60, abs=25)  # one in flight, the others behind it
    assert transport.n_sent == 1


def test_a_transport_that_blocks_its_sender_hides_nothing() -> None:
    class Blocking(Refusing):
        max_in_flight = 1000

        def send(self, prepared: object, done: Done) -> None:
            self.n_sent += 1
            if self.n_sent == 20:
                time.sleep(0.4)
            done(None)

    taken = run_open(Blocking(), rate=200.0, seconds=0.4, grace_s=0.3).take()
    answers = np.frombuffer(base64.b64decode(taken["answers"])).reshape(-1, 4)
    n_expected = sum(1 for _ in itertools.takewhile(lambda at: at < 0.4, arrivals(200.0, ramp_s=0.0, seed=(0, 0))))
    assert len(answers) < 0.6 * n_expected
    assert len(answers) + len(taken["failures"]) == pytest.approx(n_expected, abs=3)


def test_waiting_for_room_in_the_client_is_lateness() -> None:
    class OneAtATime(Refusing):
        def send(self, prepared: object, done: Done) -> None:
            threading.Timer(0.02, done, (None,)).start()

    taken = run_open(OneAtATime(), rate=100.0, seconds=0.5, grace_s=0.1).take()
    answers = np.frombuffer(base64.b64decode(taken["answers"])).reshape(-1, 4)
    assert answers[-1, 2] > 0.1  # twice as much is asked for as it can take
    assert np.all(answers[:, 1] - answers[:, 0] >= answers[:, 2])
