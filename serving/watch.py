# SPDX-License-Identifier: Apache-2.0
"""Watch a running server by asking it for a real inference, and restart it, on the same ports, when it does not work.

| seen | meant |
| --- | --- |
| its process has ended | killed, or it crashed |
| a backend process that has ended, twice in a row | of several instances one is dead; a probe reaches the others |
| "Stub process is not healthy" | a backend process is dead or hangs: Triton does not restart it, and still says READY |
| another error, or no answer and no batch finished meanwhile, twice in a row | it hangs; a busy one makes progress |

A dead stub can also be replaced by a reload of the model. That takes as long as a restart (0.6 s, measured with the
reference network), answers NOT_FOUND meanwhile, and leaves the dead stub's shared memory and a slow exit behind.
"""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

from mcts_ext.errors import BlobError
from serving.errors import BackendDead, ProbeFailed, ProbeTimeout

N_FAILURES = 2  # in a row, before a server that runs is restarted: someone may be reloading the model
PARTING_S = 0.5  # for the answer to a look under way
MAX_WAIT_S = 30.0  # between two attempts to restart


class Watched(Protocol):
    """What a watch needs of a server; `EmbeddedTriton` has it."""

    def is_alive(self) -> bool: ...
    def dead_backends(self) -> set[int]: ...
    def infer_once(self, *, timeout_s: float) -> None: ...
    def n_executions(self, *, timeout_s: float) -> int: ...
    def restart(self) -> None: ...
    def cpu_seconds(self) -> object: ...


class Watch:
    """A thread that looks after one server; each event is said once, as one line, through `on_event`.

    Nothing that goes wrong in a look, a cure or `on_event` ends the watch: it is said, and the watch goes on.
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
        self._curing = threading.Lock()
        self._n_failures = 0  # looks in a row that failed
        self._n_failed_cures = 0  # restarts in a row that failed
        self._n_executions = -1  # batches finished when a probe last got no answer
        self._dead: set[int] = set()  # backend processes that were found dead at the last look
        self._known_fault = ""
        self.n_cures = 0
        """Restarts that succeeded."""
        self._thread = threading.Thread(target=self._run, name="triton-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Cease to watch; waits for a cure under way, but hardly for an answer: a server that hangs gives none."""
        self._ended.set()
        with self._curing:  # and none begins any more
            pass
        self._thread.join(PARTING_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        wait_s = self._interval_s
        while not self._ended.wait(wait_s):
            try:
                wait_s = self._look()
            except Exception as error:  # whatever it was, the server has nobody else to look after it
                if self._ended.is_set():
                    return
                wait_s = self._interval_s
                fault = f"the watch of Triton failed ({_in_one_line(error)}); it goes on"
                if fault != self._known_fault:
                    self._say(fault)
                self._known_fault = fault

    def _look(self) -> float:
        """Look once, cure what is found, and say how long to wait before the next look."""
        server = self._server
        server.cpu_seconds()  # so that what a process has used is known even if it ends
        if not server.is_alive():
            return self._cure("Triton has ended")
        dead, self._dead = self._dead, server.dead_backends()
        if dead & self._dead:  # one that is being unloaded is dead for a moment
            return self._cure(f"a backend process of Triton has ended ({', '.join(map(str, dead & self._dead))})")
        try:
            server.infer_once(timeout_s=self._deadline_s)
        except ProbeFailed as error:
            if isinstance(error, ProbeTimeout) and self._makes_progress():
                self._n_failures = 0
                return self._interval_s
            self._n_failures += 1
            # One of several backend processes may be dead and the next probe reach another: don't wait for it.
            if self._n_failures >= N_FAILURES or isinstance(error, BackendDead):
                return self._cure(f"Triton runs but does not work ({error})")
        else:
            self._n_failures = 0
        return self._interval_s

    def _makes_progress(self) -> bool:
        """Whether batches were finished since the last time a probe got no answer."""
        before = self._n_executions
        try:
            self._n_executions = self._server.n_executions(timeout_s=self._deadline_s)
        except ProbeFailed:
            return False
        return self._n_executions != before

    def _cure(self, fault: str) -> float:
        with self._curing:
            return self._interval_s if self._ended.is_set() else self._restart(fault)

    def _restart(self, fault: str) -> float:
        if fault != self._known_fault:
            self._say(f"{fault}; restarting it")
        self._known_fault = fault
        began = time.monotonic()
        try:
            self._server.restart()
        except Exception as error:  # of ours, or of a library's
            self._n_failed_cures += 1
            if self._n_failed_cures == 1:
                self._say(f"the restart failed ({_in_one_line(error)}); trying again until it succeeds")
            return min(self._interval_s * 2.0**self._n_failed_cures, MAX_WAIT_S)
        self._n_failures = self._n_failed_cures = 0
        self._known_fault = ""
        self.n_cures += 1
        self._say(f"Triton answers again, on the same ports, {time.monotonic() - began:.1f} s after")
        return self._interval_s

    def _say(self, text: str) -> None:
        try:
            self._on_event(text)
        except Exception as error:  # to tell comes second to looking after the server
            with suppress(Exception):
                sys.stderr.write(f"{text}\n(expected to tell this, got {_in_one_line(error)})\n")


def _in_one_line(error: Exception) -> str:
    """A BlobError says what it is; of any other the type says most."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BlobError) else f"{type(error).__name__}: {text}"
