# SPDX-License-Identifier: Apache-2.0
"""What asks a long command to end, as an interruption or as a question that it asks between two pieces of work."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """SIGTERM and a terminal that is closed are as Ctrl-C: they raise KeyboardInterrupt, so that all is tidied up."""
    with _handled([signal.SIGTERM], signal.default_int_handler):
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


@contextmanager
def _handled(numbers: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """These signals, and SIGHUP unless it is ignored as nohup does, go to a handler for the time being."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers = [*numbers, signal.SIGHUP]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
