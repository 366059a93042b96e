# SPDX-License-Identifier: Apache-2.0
"""Fleet of worker processes: start, supervise, restart and stop.

Each worker is a process that reports in lines of JSON (worker.py). A worker that reports an error ends the run; one
that just dies (killed, out of memory) is restarted, up to `MAX_RESTARTS` times in `RESTARTS_WITHIN_S`, and plays the
rounds that no shard holds yet.
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
from types import TracebackType
from typing import IO, Any, Self

from clients.limits import allow_open_files
from clients.processes import python_command
from clients.selfplay.worker import WorkerConfig
from clients.triton.counts import RequestTotals
from mcts_ext.errors import BlobError

MAX_RESTARTS = 5
RESTARTS_WITHIN_S = 600.0
"""Older deaths do not count: a run of days may lose a worker now and then."""
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
"""A stopping worker writes its finished rounds within a second or two, on a slow disk in ten times that. One that takes
longer (suspended, hanging disk) is killed; its unwritten rounds can be played again."""

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # glibc maps and unmaps every buffer from 128 KiB, such as a response (docs/experiments/server-faults.md).
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}

COUNTS = ("rounds", "decisions", "simulations", "leaves", "evaluations", "records", "client_cpu_s")


class FleetError(BlobError):
    """A worker failed or kept dying; the message says why."""


@dataclass
class _Worker:
    config: WorkerConfig
    process: subprocess.Popen[str]
    listener: threading.Thread
    is_ready: bool = False
    is_done: bool = False
    model_version: int | None = None
    """Model version of the last evaluation."""
    n_restarts: int = 0
    deaths: list[float] = field(default_factory=list)
    """Times of recent deaths."""
    counts: Counter[str] = field(default_factory=Counter)
    """Counts of the current process."""
    earlier: Counter[str] = field(default_factory=Counter)
    """Counts of earlier processes that died."""


class Fleet:
    """Context manager around the workers; leaving it stops them all."""

    def __init__(
        self, configs: Sequence[WorkerConfig], *, logs: Path, on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        self._logs = logs
        self._on_event = on_event
        self._messages: queue.SimpleQueue[tuple[int, subprocess.Popen[str], dict[str, Any] | None]] = (
            queue.SimpleQueue()
        )
        self._is_playing = False
        self._stop_by = float("inf")  # when stopping workers are killed
        self.model_versions: set[int] = set()
        self.fault: str | None = None
        """Why a worker did not stop cleanly and may have lost finished rounds; None if all stopped cleanly."""
        allow_open_files(len(configs), flag="--workers")
        self._workers: list[_Worker] = []
        try:
            for config in configs:
                self._workers.append(_Worker(config, *self._spawn(config)))
        except BaseException:
            self._end(within_s=0)  # they have nothing to write yet
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt and self._is_stopping:  # a second Ctrl-C
            self._end(within_s=0)
        else:
            self.stop()
            self._end(within_s=self._stop_by - time.monotonic())

    def _end(self, *, within_s: float) -> None:
        """Wait up to `within_s` for all processes to end, then kill the rest."""
        deadline = time.monotonic() + within_s
        try:
            for worker in self._workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        finally:  # also on Ctrl-C
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()
                _close_input(worker.process)
                worker.listener.join()

    def _spawn(self, config: WorkerConfig) -> tuple[subprocess.Popen[str], threading.Thread]:
        """Start a worker's process and a thread that reads its reports.

        Raises:
            FleetError: if the process or the thread cannot be started, or the log cannot be written.
        """
        process = None
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with (self._logs / f"worker-{config.index:03d}.log").open("a") as log:
                process = subprocess.Popen(
                    python_command("clients.starter", "clients.selfplay.worker"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    bufsize=1,
                    # Ctrl-C must reach the fleet only, which then stops its workers.
                    start_new_session=True,
                    env={**os.environ, **WORKER_ENVIRONMENT},
                )
            assert process.stdout is not None
            listener = threading.Thread(target=self._listen, args=(config.index, process, process.stdout), daemon=True)
            listener.start()
        except (OSError, RuntimeError) as error:  # threading raises RuntimeError
            if process is not None:
                process.kill()
                process.wait()
            raise FleetError(f"expected worker {config.index} to start, got {error}; use fewer --workers") from error
        _send(process, config.to_json())
        return process, listener

    def _listen(self, index: int, process: subprocess.Popen[str], lines: IO[str]) -> None:
        with lines:
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue  # a truncated last line of a killed process
                self._messages.put((index, process, message))
        process.wait()
        self._messages.put((index, process, None))

    def wait_ready(self, was_stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until every worker has connected; raise FleetError with the first worker's reason if one cannot.

        Raises KeyboardInterrupt once `was_stopped`: nothing has been played yet, so there is nothing to write.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not all(worker.is_ready for worker in self._workers):
            if time.monotonic() > deadline:
                raise FleetError(f"expected all workers ready within {READY_TIMEOUT_S:.0f} s; see {self._logs}")
            self.poll(0.2)
            if was_stopped():
                raise KeyboardInterrupt

    def go(self) -> None:
        """Tell every worker to start playing."""
        self._is_playing = True
        for worker in self._workers:
            _send(worker.process, "go")

    def stop(self) -> None:
        """Tell every worker to write its finished rounds and end; after `STOP_TIMEOUT_S`, `poll` kills the rest."""
        self._stop_by = min(self._stop_by, time.monotonic() + STOP_TIMEOUT_S)
        for worker in self._workers:
            _send(worker.process, "stop")

    @property
    def _is_stopping(self) -> bool:
        return self._stop_by < float("inf")

    def poll(self, timeout_s: float) -> None:
        """Process the workers' reports for `timeout_s` or until all are done; raise FleetError if one fails."""
        if time.monotonic() > self._stop_by:
            self._kill_overdue()
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self.is_done:
            try:
                index, process, message = self._messages.get(timeout=left)
            except queue.Empty:
                return
            worker = self._workers[index]
            if process is not worker.process:
                continue  # from a process that has been replaced
            if message is None:
                self._on_exit(worker)
            else:
                self._on_message(worker, message)

    def _kill_overdue(self) -> None:
        for worker in self._workers:
            if not worker.is_done and worker.process.poll() is None:
                worker.process.kill()
                worker.is_done = True
                self._on_unclean_stop(
                    f"expected worker {worker.config.index} to end within {STOP_TIMEOUT_S:g} s, but it did not"
                )

    def _on_unclean_stop(self, why: str) -> None:
        why += "; its unwritten rounds can be played again"
        self.fault = self.fault or why
        self._on_event(why)

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
            if not self._is_stopping:
                raise FleetError(message["text"])
            worker.is_done = True
            self._on_unclean_stop(f"worker {worker.config.index}: {message['text']}")

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
        if not worker.is_ready and code > 0:  # a restart would fail in the same way
            lines = log.read_text(errors="replace").strip().splitlines() or ["its log is empty"]
            raise FleetError(f"expected worker {worker.config.index} to start, but it {how}: {lines[-1]}; see {log}")
        now = time.monotonic()
        worker.deaths = [at for at in worker.deaths if now - at < RESTARTS_WITHIN_S]
        if len(worker.deaths) == MAX_RESTARTS:
            raise FleetError(
                f"expected worker {worker.config.index} to play, but it {how} {MAX_RESTARTS + 1} times in "
                f"{RESTARTS_WITHIN_S:.0f} s; see {log}"
            )
        self._on_event(f"worker {worker.config.index} {how}; restarting it")
        worker.deaths.append(now)
        worker.n_restarts += 1
        worker.earlier += worker.counts
        worker.counts = Counter()
        worker.is_ready = False
        _close_input(worker.process)
        worker.process, worker.listener = self._spawn(worker.config)

    @property
    def is_done(self) -> bool:
        """Whether every worker has played its rounds or has stopped."""
        return all(worker.is_done for worker in self._workers)

    @property
    def counts(self) -> dict[str, float]:
        """Sums of the `COUNTS` over all workers."""
        total = self._total()
        return {name: total[name] for name in COUNTS}

    @property
    def requests(self) -> RequestTotals:
        """Sums of the request counts over all workers."""
        return RequestTotals.of(self._total())

    def _total(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for worker in self._workers:
            total += worker.earlier
            total += worker.counts
        return total

    @property
    def model_version(self) -> int | None:
        """Newest model version in use by any worker; None before the first evaluation."""
        return max((w.model_version for w in self._workers if w.model_version is not None), default=None)

    @property
    def n_playing(self) -> int:
        """Number of workers that are ready and have rounds left."""
        return sum(worker.is_ready and not worker.is_done for worker in self._workers) if self._is_playing else 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, by index."""
        return [worker.process.pid for worker in self._workers]

    @property
    def rounds_of_processes(self) -> list[int]:
        """Rounds finished by each worker's current process, by index."""
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
        pass  # it has ended; `_on_exit` handles that


def _close_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # the process ended before it read its input
        process.stdin.close()
