# SPDX-License-Identifier: Apache-2.0
"""Signals that stop a long command, as KeyboardInterrupt or as a flag that it polls."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
INTERRUPTED = 130
"""Status that verbs return when stopped by a signal; `exit_status` converts it."""
_stopped_by = signal.SIGINT


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP as on Ctrl-C, so that the command cleans up."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
        numbers.remove(signal.SIGINT)
    with _handled(numbers, signal.default_int_handler):
        yield


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C, SIGTERM or SIGHUP was received; a second signal interrupts."""
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True

    with _handled([signal.SIGINT, signal.SIGTERM], stop):
        yield lambda: stopped


def exit_status(status: int) -> int:
    """Return the exit status for the shell: 128 + the signal's number if stopped by a signal."""
    return 128 + _stopped_by if status == INTERRUPTED else status


@contextmanager
def _handled(numbers: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """Route signals to a handler, including SIGHUP unless it is ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def record(number: int, frame: FrameType | None) -> None:
        global _stopped_by
        _stopped_by = signal.Signals(number)
        handler(number, frame)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers = [*numbers, signal.SIGHUP]
    previous = {number: signal.signal(number, record) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
