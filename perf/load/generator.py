# SPDX-License-Identifier: Apache-2.0
"""The client processes of a load test, and one point measured with them.

```
|-- ramp --|-- warm-up --|-- window --|-- window --|-- window --| ...   until the last three agree
                         ^ look       ^ look       ^ look       ^ look at server, clients, GPUs
```
A point is made of its last three windows, taken together.
"""

import base64
import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any, Final, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from clients.limits import allow_open_files
from clients.processes import python_command
from clients.selfplay.fleet import WORKER_ENVIRONMENT
from clients.triton.connection import Connection
from perf.load.observed import ServerView, Snapshot, compare
from perf.load.plan import Load, LoadError, NoAnswers, Patience, Target, Traffic
from perf.load.point import DONE, INTENDED, N_WINDOWS, Point, agree, summarize, within
from perf.load.sender.sharedmemory import Control
from perf.load.sender.signature import read_signature
from perf.load.sender.worker import FIELDS, LAST_S, TICK_S, SenderConfig

READY_TIMEOUT_S: Final = 60.0
HEAD_START_S: Final = 0.05
GRACE_S: Final = 5.0
"""For a client to say that it has halted, and to end."""
Say = Callable[[str], None]


class _Client:
    """One process, and what it has reported."""

    def __init__(self, config: SenderConfig) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            python_command("clients.starter", "perf.load.sender.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is the parent's, which then closes their input
            env={**os.environ, **WORKER_ENVIRONMENT},
        )
        self.watched = psutil.Process(self.process.pid)
        self.ready, self.halted = threading.Event(), threading.Event()
        self.fault: str | None = None
        self.answers: list[NDArray[np.float64]] = []
        self.failures: list[tuple[float, float, str]] = []
        self.reasons: dict[str, str] = {}
        self.tell(config.to_json())
        assert self.process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True)
        self._listener.start()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended; the listener says why

    def end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()
        self.log.close()

    def cpu_s(self) -> float:
        try:
            times = self.watched.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                try:
                    found = json.loads(line)
                except ValueError:
                    continue  # the last line of a process that was killed while writing
                self._take(found)
        code = self.process.wait()
        if code and self.fault is None:
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["it left no word"])[-1]
            how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
            self.fault = f"expected a client process to go on, but it {how}: {last}"
        self.ready.set()
        self.halted.set()

    def _take(self, found: dict[str, Any]) -> None:
        if found["event"] == "tick":
            answers = np.frombuffer(base64.b64decode(found["answers"]), np.float64).reshape(-1, FIELDS)
            if len(answers):
                self.answers.append(answers)
            self.failures += [(sent, ended, kind) for sent, ended, kind in found["failures"]]
            self.reasons |= found["reasons"]
        elif found["event"] == "error":
            self.fault = found["text"]
        elif found["event"] in ("ready", "halted"):
            getattr(self, found["event"]).set()


@dataclass(frozen=True)
class _Look:
    at: float
    server: Snapshot
    cpu_s: tuple[float, ...]


class Generator:
    """A context manager around the client processes of one target and one traffic.

    Raises:
        EvaluatorError: no such server or model.
        LoadError: requests that cannot be made.
    """

    def __init__(self, target: Target, traffic: Traffic) -> None:
        self.target, self.traffic = target, traffic
        self.signature = read_signature(target, shapes=traffic.shapes)
        self._clients: list[_Client] = []
        self._view = ServerView(target)
        self._n_points = 0
        try:
            allow_open_files(traffic.processes, flag="--processes")
            for index in range(traffic.processes):
                try:
                    self._clients.append(_Client(SenderConfig(target, self.signature, traffic, index)))
                except OSError as error:  # no more processes or open files are allowed
                    raise LoadError(
                        f"expected {traffic.processes} client processes to start, got {error}; use fewer --processes"
                    ) from error
            deadline = time.monotonic() + READY_TIMEOUT_S
            for client in self._clients:
                if not client.ready.wait(max(0.0, deadline - time.monotonic())):
                    raise LoadError(f"expected client processes to start within {READY_TIMEOUT_S:g} s; use fewer")
            self._check()
        except BaseException:
            self.close()
            raise

    def measure(self, load: Load, patience: Patience | None = None, *, say: Say = lambda text: None) -> Point:
        """Put one load on the server until its windows agree.

        Raises:
            NoAnswers: every request failed.
            LoadError: a client process ended.
        """
        patience = patience or Patience()
        for client in self._clients:
            client.answers, client.failures, client.reasons = [], [], {}
            client.halted.clear()
        start = time.monotonic() + HEAD_START_S
        self._n_points += 1
        order = {
            "load": asdict(load),
            "at": start,
            "ramp_s": patience.ramp_s,
            "seed": self.traffic.seed + self._n_points,
        }
        for client in self._clients:
            client.tell(json.dumps(order))
        looks, stable = self._watch(load, patience, start + patience.ramp_s + patience.warmup_s, say)
        self._halt(self.traffic.timeout_s)
        self._check()
        counted = looks if patience.is_fixed else looks[-1 - N_WINDOWS :]
        first, last = counted[0], counted[-1]
        answers = self._answers()
        failures = [failure for client in self._clients for failure in client.failures]
        reasons = self._reasons
        if not len(within(answers, load, first.at, last.at)):
            why = _in_words(reasons) or "none at all within the windows"
            raise NoAnswers(f"expected answers from {self.target.url} at {load}, got {len(failures)} failures: {why}")
        seconds = last.at - first.at
        return summarize(
            load,
            answers,
            failures,
            start=first.at,
            end=last.at,
            reasons=reasons,
            client_cpu_s=[end - begin for begin, end in zip(first.cpu_s, last.cpu_s, strict=True)],
            server=compare(
                first.server,
                last.server,
                seconds=seconds,
                gpus=[look.server.gpu for look in counted[1:] if look.server.gpu is not None],
            ),
            windows=1 if patience.is_fixed else len(looks) - 1,
            stable=stable,
        )

    @property
    def pids(self) -> list[int]:
        """Of the client processes."""
        return [client.process.pid for client in self._clients]

    def close(self) -> None:
        """End the processes, and take back what a killed one has left at the server."""
        killed = []
        for client in self._clients:
            client.end()
            if client.process.returncode:  # killed, or cut short
                killed.append(client.process.pid)
        if killed and self.traffic.transport == "shm":
            time.sleep(LAST_S)  # the server may still write into its regions
            with Connection(self.target.url) as connection:
                control = Control(self.target, connection)
                for pid in killed:
                    control.unregister_all(pid)
        self._view.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self, load: Load, patience: Patience, begin: float, say: Say) -> tuple[list[_Look], bool]:
        """Looks at the borders of all windows, and whether the last three agree; of a fixed stretch, looks in it."""
        self._sleep_until(begin)
        looks = [self._look()]
        if patience.requests is not None:
            self._await_answers(load, patience.requests)
            return [*looks, self._look()], True
        if patience.duration_s is not None:
            end = looks[0].at + patience.duration_s
            while looks[-1].at < end - TICK_S:  # in between for the GPU, whose use is sampled
                self._sleep_until(min(end, looks[-1].at + patience.window_s))
                looks.append(self._look())
            return looks, True
        rates: list[float] = []
        means: list[float] = []
        while True:
            self._sleep_until(looks[-1].at + patience.window_s)
            looks.append(self._look())
            self._sleep_until(looks[-1].at + 1.5 * TICK_S)  # the last of this window are still on their way
            since, until = looks[-2].at, looks[-1].at
            answers = self._answers()
            came = answers[(answers[:, DONE] >= since) & (answers[:, DONE] < until)]
            rates.append(len(came) / (until - since))
            means.append(float((came[:, DONE] - came[:, INTENDED]).mean()) if len(came) else 0.0)
            say(f"{load}: window {len(rates)}, {rates[-1]:,.0f} requests/s, mean {1e3 * means[-1]:.2f} ms")
            if len(came) and agree(rates, patience.stability) and agree(means, patience.stability):
                return looks, True
            if len(rates) >= patience.max_windows:
                return looks, False

    def _await_answers(self, load: Load, n_wanted: int) -> None:
        """Wait for so many; not for ever, where none comes for as long as a request, and the next one, may take."""
        patience_s = self.traffic.timeout_s + (10 / load.rate if load.rate else 0.0)
        first = last = self._n_answers()
        came_at = time.monotonic()
        while last - first < n_wanted:
            self._sleep_until(time.monotonic() + TICK_S / 2)
            if (n := self._n_answers()) > last:
                last, came_at = n, time.monotonic()
            elif time.monotonic() - came_at > patience_s:
                raise NoAnswers(
                    f"expected {n_wanted:,} answers from {self.target.url} at {load}, got {last - first:,} and none "
                    f"for {patience_s:g} s then: {_in_words(self._reasons) or 'not a word from it'}"
                )

    @property
    def _reasons(self) -> dict[str, str]:
        """Of each kind of failure, what one said."""
        return {kind: text for client in self._clients for kind, text in client.reasons.items()}

    def _look(self) -> _Look:
        began = time.monotonic()
        seen = self._view.look()
        at = (began + time.monotonic()) / 2  # a busy server takes a while to say what it has counted
        return _Look(at, seen, tuple(client.cpu_s() for client in self._clients))

    def _sleep_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._check()

    def _halt(self, grace_s: float) -> None:
        for client in self._clients:
            client.tell(json.dumps({"halt": grace_s}))
        deadline = time.monotonic() + grace_s + GRACE_S
        for client in self._clients:
            if not client.halted.wait(max(0.0, deadline - time.monotonic())):
                raise LoadError(f"expected every client to halt within {grace_s + GRACE_S:g} s, but one did not")

    def _answers(self) -> NDArray[np.float64]:
        found = [answers for client in self._clients for answers in client.answers]
        return np.concatenate(found) if found else np.empty((0, FIELDS))

    def _n_answers(self) -> int:
        return sum(len(answers) for client in self._clients for answers in client.answers)

    def _check(self) -> None:
        for client in self._clients:
            if client.fault is not None:
                raise LoadError(client.fault)


def _in_words(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{kind} ({text})" for kind, text in reasons.items())


def measure(
    target: Target, traffic: Traffic, load: Load, patience: Patience | None = None, *, say: Say = lambda text: None
) -> Point:
    """One point, with client processes of its own; see `Generator`."""
    with Generator(target, traffic) as generator:
        return generator.measure(load, patience, say=say)
