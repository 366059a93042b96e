# SPDX-License-Identifier: Apache-2.0
"""The client processes of a load test, and the measurement of one point.

```
|-- ramp --|-- warm-up --|-- window --|-- window --|-- window --| ...   until the last three agree
                         ^ look       ^ look       ^ look       ^ look at server, clients, GPUs
```
A point consists of the last three windows, taken together.
"""

import base64
import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, Any, Final, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from clients.limits import allow_open_files
from clients.processes import python_command
from clients.selfplay.fleet import WORKER_ENVIRONMENT
from clients.triton.connection import Connection
from clients.triton.protocol import service_pb2
from clients.triton.served_model import check_served_model
from perf.load.observed import ServerView, Snapshot, compare
from perf.load.plan import Load, LoadError, NoAnswers, Patience, Target, Traffic, TransportName
from perf.load.point import DONE, INTENDED, N_WINDOWS, Failure, Point, agree, summarize, within
from perf.load.sender.sharedmemory import Control
from perf.load.sender.worker import FIELDS, LAST_S, TICK_S, SenderConfig

CONNECT_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 60.0
HEAD_START_S: Final = 0.05
GRACE_S: Final = 5.0
"""Time for a client to report that it has halted, and to end."""
Say = Callable[[str], None]


class _Client:
    """One process and its reports."""

    def __init__(self, config: SenderConfig) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            python_command("clients.starter", "perf.load.sender.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C must reach only the parent, which then closes their input
            env={**os.environ, **WORKER_ENVIRONMENT},
        )
        self.watched = psutil.Process(self.process.pid)
        self.reported = {"ready": threading.Event(), "halted": threading.Event()}
        self.fault: str | None = None
        self.forget()
        self.tell(config.to_json())
        assert self.process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True)
        self._listener.start()

    def forget(self) -> None:
        """Drop the results of the previous point."""
        self.answers: list[NDArray[np.float64]] = []
        self.failures: list[Failure] = []
        self.reasons: dict[str, str] = {}
        self.reported["halted"].clear()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended; the listener says why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

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
                with contextlib.suppress(ValueError):  # a truncated last line of a killed process
                    self._take(json.loads(line))
        code = self.process.wait()
        if code and self.fault is None:
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["its log is empty"])[-1]
            how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
            self.fault = f"expected a client process to go on, but it {how}: {last}"
        for event in self.reported.values():
            event.set()

    def _take(self, found: dict[str, Any]) -> None:
        if found["event"] == "tick":
            answers = np.frombuffer(base64.b64decode(found["answers"]), np.float64).reshape(-1, FIELDS)
            if len(answers):
                self.answers.append(answers)
            self.failures += [(sent, ended, kind) for sent, ended, kind in found["failures"]]
            self.reasons |= found["reasons"]
        elif found["event"] == "error":
            self.fault = found["text"]
        else:
            self.reported[found["event"]].set()


class Generator:
    """Context manager around the client processes of one target and one traffic.

    Raises:
        EvaluatorError: if the server or its model is missing, or the model does not match the contract.
        LoadError: if the requests cannot be made.
    """

    def __init__(self, target: Target, traffic: Traffic, transport: TransportName = "grpc") -> None:
        self.target, self.traffic, self.transport = target, traffic, transport
        self.max_batch_size = _max_batch_size(target)
        self._clients: list[_Client] = []
        self._view = ServerView(target)
        self._n_points = 0
        try:
            allow_open_files(traffic.n_processes, flag="--processes")
            for index in range(traffic.n_processes):
                try:
                    self._clients.append(_Client(SenderConfig(target, transport, traffic, self.max_batch_size, index)))
                except OSError as error:  # a limit of processes or open files
                    raise LoadError(
                        f"expected {traffic.n_processes} client processes to start, got {error}; use fewer --processes"
                    ) from error
            if not self._all_report("ready", within_s=READY_TIMEOUT_S):
                raise LoadError(
                    f"expected client processes to start within {READY_TIMEOUT_S:g} s, but one did not; "
                    "use fewer --processes"
                )
            self._check()
        except BaseException:
            self.close()
            raise

    def measure(self, load: Load, patience: Patience | None = None, *, say: Say = lambda text: None) -> Point:
        """Put one load on the server until its windows agree.

        Raises:
            NoAnswers: if every request failed.
            LoadError: if a client process ended.
        """
        patience = patience or Patience()
        self._n_points += 1
        start = time.monotonic() + HEAD_START_S
        order = {"load": asdict(load), "at": start, "ramp_s": patience.ramp, "seed": self.traffic.seed + self._n_points}
        for client in self._clients:
            client.forget()
            client.tell(json.dumps(order))
        self._sleep_until(start + patience.ramp + patience.warmup)
        looks, stable = self._watch(load, patience, say)
        self._halt(self.traffic.timeout)
        self._check()
        n_windows = len(looks) - 1 if patience.duration is None else 1
        looks = looks[-1 - N_WINDOWS :] if patience.duration is None else looks
        first, last = looks[0], looks[-1]
        answers = self._answers()
        failures = [failure for client in self._clients for failure in client.failures]
        reasons = {kind: text for client in self._clients for kind, text in client.reasons.items()}
        if not len(within(answers, load, first.at, last.at)):
            why = "; ".join(f"{kind} ({text})" for kind, text in reasons.items()) or "none at all within the windows"
            raise NoAnswers(f"expected answers from {self.target.url} at {load}, got {len(failures)} failures: {why}")
        return summarize(
            load,
            answers,
            failures,
            start=first.at,
            end=last.at,
            reasons=reasons,
            client_cpu_s=[end - begin for begin, end in zip(first.clients_cpu_s, last.clients_cpu_s, strict=True)],
            server=compare(looks),
            windows=n_windows,
            stable=stable,
        )

    def close(self) -> None:
        """End the processes, and unregister the memory of any that was killed."""
        for client in self._clients:
            client.end()
        killed = [client.process.pid for client in self._clients if client.process.returncode]
        if killed and self.transport == "shm":
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

    def _watch(self, load: Load, patience: Patience, say: Say) -> tuple[list[Snapshot], bool]:
        """Return looks at the borders of all windows, or during a fixed time, and whether the last windows agree."""
        looks = [self._look()]
        if patience.duration is not None:
            end = looks[0].at + patience.duration
            while looks[-1].at < end - TICK_S:  # looks in between sample the GPU
                self._sleep_until(min(end, looks[-1].at + patience.window))
                looks.append(self._look())
            return looks, True
        rates: list[float] = []
        means: list[float] = []
        while len(rates) < patience.max_windows:
            self._sleep_until(looks[-1].at + patience.window)
            looks.append(self._look())
            self._sleep_until(looks[-1].at + 1.5 * TICK_S)  # for the clients' reports on this window
            since, until = looks[-2].at, looks[-1].at
            answers = self._answers()
            came = answers[(answers[:, DONE] >= since) & (answers[:, DONE] < until)]
            rates.append(len(came) / (until - since))
            means.append(float((came[:, DONE] - came[:, INTENDED]).mean()) if len(came) else 0.0)
            say(f"{load}: window {len(rates)}, {rates[-1]:,.0f} requests/s, mean {1e3 * means[-1]:.2f} ms")
            if len(came) and agree(rates, patience.stability) and agree(means, patience.stability):
                return looks, True
        return looks, False

    def _look(self) -> Snapshot:
        return self._view.look([client.cpu_s() for client in self._clients])

    def _sleep_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._check()

    def _halt(self, grace_s: float) -> None:
        for client in self._clients:
            client.tell(json.dumps({"halt": grace_s}))
        if not self._all_report("halted", within_s=grace_s + GRACE_S):
            raise LoadError(f"expected every client to halt within {grace_s + GRACE_S:g} s, but one did not")

    def _all_report(self, event: str, *, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        return all(client.reported[event].wait(max(0.0, deadline - time.monotonic())) for client in self._clients)

    def _answers(self) -> NDArray[np.float64]:
        """Return all answers so far, `[n, FIELDS]`."""
        return np.concatenate([np.empty((0, FIELDS)), *(part for client in self._clients for part in client.answers)])

    def _check(self) -> None:
        for client in self._clients:
            if client.fault is not None:
                raise LoadError(client.fault)


def _max_batch_size(target: Target) -> int:
    """Return the maximum batch size of the served model after checking it against the contract."""
    request = service_pb2.ModelConfigRequest(name=target.model, version=target.version)
    with Connection(target.url) as connection:
        response = connection.call("ModelConfig", request, model=target.model, timeout_s=CONNECT_TIMEOUT_S)
    return check_served_model(response.config, model=target.model, url=target.url)


def measure(
    target: Target, traffic: Traffic, load: Load, patience: Patience | None = None, transport: TransportName = "grpc"
) -> Point:
    """Measure one point with client processes of its own; see `Generator`."""
    with Generator(target, traffic, transport) as generator:
        return generator.measure(load, patience)
