# SPDX-License-Identifier: Apache-2.0
"""Start many workers, watch them, start again those that die, and stop them all.

Each worker is a program of its own (`clients/worker.py` says what it prints). One that reports an error has said why
and ends the run; one that just dies (killed, out of memory) is started again, up to `MAX_RESTARTS` times in
`RESTARTS_WITHIN_S`, and plays what no shard holds yet.
"""

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from clients.child import python_command
from clients.limits import allow_open_files
from clients.requestcounts import RequestTotals
from clients.worker import WorkerConfig
from mcts_ext.errors import BlobError

MAX_RESTARTS = 5
RESTARTS_WITHIN_S = 600.0
"""Deaths longer ago are forgiven: a run of days may lose a worker now and then."""
READY_TIMEOUT_S = 120.0

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # glibc maps and unmaps every buffer of 128 KiB and more; a batch's answer is one (docs/log.md).
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}

COUNTS = ("rounds", "decisions", "simulations", "leaves", "evaluations", "records", "client_cpu_s")


class FleetError(BlobError):
    """A worker gave up, or kept dying; the text says why."""


@dataclass
class _Worker:
    config: WorkerConfig
    process: subprocess.Popen[str]
    listener: threading.Thread
    is_ready: bool = False
    is_done: bool = False
    model_version: int | None = None
    """Of the last answer."""
    n_restarts: int = 0
    deaths: list[float] = field(default_factory=list)
    """When its processes died, of late."""
    counts: Counter[str] = field(default_factory=Counter)
    """Of this process."""
    earlier: Counter[str] = field(default_factory=Counter)
    """Of the processes before it that died."""


class Fleet:
    """A context manager around W workers; leaving it stops them all."""

    def __init__(
        self, configs: Sequence[WorkerConfig], *, logs: Path, on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        self._logs = logs
        self._on_event = on_event
        self._messages: queue.SimpleQueue[tuple[int, subprocess.Popen[str], dict[str, Any] | None]] = (
            queue.SimpleQueue()
        )
        self._is_playing = False
        self._is_stopping = False
        self.model_versions: set[int] = set()
        allow_open_files(len(configs), flag="--workers")
        try:
            self._workers = [_Worker(config, *self._spawn(config)) for config in configs]
        except OSError as error:  # no leave for more processes, or to write the logs
            raise FleetError(f"expected {len(configs)} workers to start, got {error}; use fewer --workers") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        deadline = time.monotonic() + 10.0
        for worker in self._workers:
            try:
                worker.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _close_input(worker.process)
            worker.listener.join()

    def _spawn(self, config: WorkerConfig) -> tuple[subprocess.Popen[str], threading.Thread]:
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"worker-{config.index:03d}.log").open("a") as log:
            process = subprocess.Popen(
                python_command("clients.starter", "clients.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                # Ctrl-C goes to the fleet, which then asks its workers to stop.
                start_new_session=True,
                env={**os.environ, **WORKER_ENVIRONMENT},
            )
        _send(process, config.to_json())
        assert process.stdout is not None
        listener = threading.Thread(target=self._listen, args=(config.index, process, process.stdout), daemon=True)
        listener.start()
        return process, listener

    def _listen(self, index: int, process: subprocess.Popen[str], lines: IO[str]) -> None:
        with lines:
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue  # the last line of a process that was killed while writing
                self._messages.put((index, process, message))
        process.wait()
        self._messages.put((index, process, None))

    def wait_ready(self, was_stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until every worker has connected; raises FleetError with the first worker's reason if one cannot.

        Raises KeyboardInterrupt once `was_stopped`: nothing has been played yet that an orderly end would write.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not all(worker.is_ready for worker in self._workers):
            if time.monotonic() > deadline:
                raise FleetError(f"expected all workers ready within {READY_TIMEOUT_S:.0f} s; see {self._logs}")
            self.poll(0.2)
            if was_stopped():
                raise KeyboardInterrupt

    def go(self) -> None:
        """Let every worker play."""
        self._is_playing = True
        for worker in self._workers:
            _send(worker.process, "go")

    def stop(self) -> None:
        """Ask every worker to write what it finished and end."""
        self._is_stopping = True
        for worker in self._workers:
            _send(worker.process, "stop")

    def poll(self, timeout_s: float) -> None:
        """Take in what workers report for `timeout_s` or until all are done; raises FleetError when one gives up."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self.is_done:
            try:
                index, process, message = self._messages.get(timeout=left)
            except queue.Empty:
                return
            worker = self._workers[index]
            if process is not worker.process:
                continue  # a line of a process that was replaced since
            if message is None:
                self._on_exit(worker)
            else:
                self._on_message(worker, message)

    def _on_message(self, worker: _Worker, message: dict[str, Any]) -> None:
        event = message.pop("event")
        if event == "ready":
            worker.is_ready = True
            if self._is_playing:
                _send(worker.process, "go")
        elif event in ("tick", "done"):
            worker.counts = Counter(message)
            worker.is_done = event == "done"
        elif event == "version":
            worker.model_version = message["version"]
            self.model_versions.add(message["version"])
        elif event == "notice":
            self._on_event(f"worker {worker.config.index}: {message['text']}")
        elif event == "error":
            raise FleetError(message["text"])

    def _on_exit(self, worker: _Worker) -> None:
        if worker.is_done:
            return
        code = worker.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
        log = self._logs / f"worker-{worker.config.index:03d}.log"
        if self._is_stopping:
            worker.is_done = True
            if worker.is_ready:
                self._on_event(
                    f"worker {worker.config.index} {how} while stopping; its unwritten rounds can be played again"
                )
            return
        if not worker.is_ready and code > 0:  # it would end so every time
            lines = log.read_text(errors="replace").strip().splitlines() or ["nothing in its log"]
            raise FleetError(f"expected worker {worker.config.index} to start, but it {how}: {lines[-1]}; see {log}")
        now = time.monotonic()
        worker.deaths = [at for at in worker.deaths if now - at < RESTARTS_WITHIN_S]
        if len(worker.deaths) == MAX_RESTARTS:
            raise FleetError(
                f"expected worker {worker.config.index} to play, but it {how} {MAX_RESTARTS + 1} times in "
                f"{RESTARTS_WITHIN_S:.0f} s; see {log}"
            )
        self._on_event(f"worker {worker.config.index} {how}; starting it again")
        worker.deaths.append(now)
        worker.n_restarts += 1
        worker.earlier += worker.counts
        worker.counts = Counter()
        worker.is_ready = False
        _close_input(worker.process)
        worker.process, worker.listener = self._spawn(worker.config)

    @property
    def is_done(self) -> bool:
        """Every worker has played its rounds, or has stopped."""
        return all(worker.is_done for worker in self._workers)

    @property
    def counts(self) -> dict[str, float]:
        """Counts over all workers so far; `COUNTS` names them."""
        total = self._total()
        return {name: total[name] for name in COUNTS}

    @property
    def requests(self) -> RequestTotals:
        """What all workers asked of a server so far."""
        return RequestTotals.of(self._total())

    def _total(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for worker in self._workers:
            total += worker.earlier
            total += worker.counts
        return total

    @property
    def model_version(self) -> int | None:
        """The newest version that a worker had its last answer from; None before the first."""
        return max((w.model_version for w in self._workers if w.model_version is not None), default=None)

    @property
    def n_playing(self) -> int:
        """Workers that are ready and have rounds left."""
        return sum(worker.is_ready and not worker.is_done for worker in self._workers) if self._is_playing else 0

    @property
    def pids(self) -> list[int]:
        """Of the workers' processes, by index."""
        return [worker.process.pid for worker in self._workers]

    @property
    def rounds_of_processes(self) -> list[int]:
        """Rounds that each worker's present process has finished, by index."""
        return [worker.counts["rounds"] for worker in self._workers]

    @property
    def n_restarts(self) -> int:
        return sum(worker.n_restarts for worker in self._workers)


def _send(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except (BrokenPipeError, ValueError):
        pass  # it has ended; its exit is handled where it is read


def _close_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # an order that the process did not live to read
        process.stdin.close()
