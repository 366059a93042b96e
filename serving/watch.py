# SPDX-License-Identifier: Apache-2.0
"""Watchdog: probes a running server with a real inference, and restarts it on the same ports when it fails.

| observation | diagnosis |
| --- | --- |
| the process has ended | killed or crashed |
| a dead backend process, twice in a row | one of several instances died; probes may reach the others |
| "Stub process is not healthy" | a backend process is dead or hangs; Triton stays READY and does not restart it |
| another error, or a timeout without any finished batch, twice in a row | it hangs; a busy server makes progress |

Reloading the model would replace a dead stub, too. But that takes as long as a restart (0.6 s, measured with the
reference network), requests get NOT_FOUND meanwhile, the dead stub's shared memory remains, and the exit becomes slow.
"""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

from mcts_ext.errors import BlobError
from serving.errors import BackendDead, ProbeFailed, ProbeTimeout

N_FAILURES = 2  # consecutive failures before a running server is restarted: the model may be reloading
STOP_TIMEOUT_S = 0.5  # for a check in progress
MAX_WAIT_S = 30.0  # between two attempts to restart


class Watched(Protocol):
    """Interface of a watched server, implemented by `EmbeddedTriton`."""

    def is_alive(self) -> bool: ...
    def dead_backends(self) -> set[int]: ...
    def infer_once(self, *, timeout_s: float) -> None: ...
    def n_executions(self, *, timeout_s: float) -> int: ...
    def restart(self) -> None: ...
    def cpu_seconds(self) -> object: ...


class Watch:
    """Thread that watches one server; each event is reported once, in one line, to `on_event`.

    No exception in a check, a restart or `on_event` ends the watch: it is reported, and the watch continues.
    """

    def __init__(
        self,
        server: Watched,
        *,
        on_event: Callable[[str], None],
        interval_s: float = 1.0,
        deadline_s: float = 3.0,
    ) -> None:
        self._server = server
        self._on_event = on_event
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._ended = threading.Event()
        self._restarting = threading.Lock()
        self._n_failures = 0  # consecutive failed checks
        self._n_failed_restarts = 0  # consecutive failed restarts
        self._n_executions = -1  # finished batches at the last probe timeout
        self._dead: set[int] = set()  # dead backend processes at the last check
        self._known_fault = ""
        self.n_cures = 0
        """Number of successful restarts."""
        self._thread = threading.Thread(target=self._run, name="triton-watch", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; waits for a restart in progress, but only briefly for a check, since the server may hang."""
        self._ended.set()
        with self._restarting:  # no restart begins after this
            pass
        self._thread.join(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        wait_s = self._interval_s
        while not self._ended.wait(wait_s):
            try:
                wait_s = self._check()
            except Exception as error:  # the watch must go on
                if self._ended.is_set():
                    return
                wait_s = self._interval_s
                fault = f"the watch of Triton failed ({_in_one_line(error)}); it continues"
                if fault != self._known_fault:
                    self._report(fault)
                self._known_fault = fault

    def _check(self) -> float:
        """Check the server once, restart it if necessary, and return the time to wait before the next check."""
        server = self._server
        server.cpu_seconds()  # records the CPU time of processes that may end before the next call
        if not server.is_alive():
            return self._restart("Triton has ended")
        dead, self._dead = self._dead, server.dead_backends()
        if dead & self._dead:  # during an unload a process is dead for a moment
            return self._restart(f"a backend process of Triton has ended ({', '.join(map(str, dead & self._dead))})")
        try:
            server.infer_once(timeout_s=self._deadline_s)
        except ProbeFailed as error:
            if isinstance(error, ProbeTimeout) and self._makes_progress():
                self._n_failures = 0
                return self._interval_s
            self._n_failures += 1
            # After BackendDead the next probe might reach a healthy instance, so do not wait for it.
            if self._n_failures >= N_FAILURES or isinstance(error, BackendDead):
                return self._restart(f"Triton runs but does not work ({error})")
        else:
            self._n_failures = 0
        return self._interval_s

    def _makes_progress(self) -> bool:
        """Return whether batches were finished since the last probe timeout."""
        before = self._n_executions
        try:
            self._n_executions = self._server.n_executions(timeout_s=self._deadline_s)
        except ProbeFailed:
            return False
        return self._n_executions != before

    def _restart(self, fault: str) -> float:
        with self._restarting:
            return self._interval_s if self._ended.is_set() else self._try_restart(fault)

    def _try_restart(self, fault: str) -> float:
        if fault != self._known_fault:
            self._report(f"{fault}; restarting it")
        self._known_fault = fault
        began = time.monotonic()
        try:
            self._server.restart()
        except Exception as error:
            self._n_failed_restarts += 1
            if self._n_failed_restarts == 1:
                self._report(f"the restart failed ({_in_one_line(error)}); retrying until it succeeds")
            return min(self._interval_s * 2.0**self._n_failed_restarts, MAX_WAIT_S)
        self._n_failures = self._n_failed_restarts = 0
        self._known_fault = ""
        self.n_cures += 1
        self._report(f"Triton answers again, on the same ports, after {time.monotonic() - began:.1f} s")
        return self._interval_s

    def _report(self, text: str) -> None:
        try:
            self._on_event(text)
        except Exception as error:  # a failing callback must not end the watch
            with suppress(Exception):
                sys.stderr.write(f"{text}\n(expected to report this, got {_in_one_line(error)})\n")


def _in_one_line(error: Exception) -> str:
    """Return an error's message in one line, with the type unless it is a BlobError."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BlobError) else f"{type(error).__name__}: {text}"
