# SPDX-License-Identifier: Apache-2.0
"""What asks a long command to end, as an interruption or as a question that it asks between two pieces of work."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
INTERRUPTED = 130
"""The status that verbs return where they were asked to end; `exit_status` says by what."""
_asked_by = signal.SIGINT


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """SIGTERM and a terminal that is closed are as Ctrl-C: they raise KeyboardInterrupt, so that all is tidied up."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
        numbers.remove(signal.SIGINT)
    with _handled(numbers, signal.default_int_handler):
        yield


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM and a terminal that is closed ask for an orderly end; a second one ends at once."""
    stopped = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True

    with _handled([signal.SIGINT, signal.SIGTERM], ask):
        yield lambda: stopped


def exit_status(status: int) -> int:
    """A verb's status as a shell has it: an end that was asked for is 128 + the signal's number, 130 or 143 mostly."""
    return 128 + _asked_by if status == INTERRUPTED else status


@contextmanager
def _handled(numbers: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """These signals, and SIGHUP unless it is ignored as nohup does, go to a handler for the time being."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        global _asked_by
        _asked_by = signal.Signals(number)
        handler(number, frame)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers = [*numbers, signal.SIGHUP]
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
