# SPDX-License-Identifier: Apache-2.0
"""Standard output and error of the command, either of which may be lost: a pipe that closes, a disk that is full.

What is said on the way decides nothing, so a run goes on without it. At the end only output that was the result counts.

| lost | where the output is the result, as of --json | where the result stands in files |
| --- | --- | --- |
| a pipe that nobody reads any more | 141, as of a program that SIGPIPE ends; no word | the run's own status |
| anything else, such as a full disk | 1, and a line on standard error | the run's own status, and the line |
"""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

PIPE_STATUS = 141
"""128 + SIGPIPE."""


class OutputLost(Exception):
    """Nobody takes what this program has to say; it has nothing else to do."""


class _Stream(io.RawIOBase):
    """A file descriptor whose first failure is kept; what is written after it goes nowhere."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.fault: OSError | None = None
        self.ends_with_it = False
        """Whether a failure raises OutputLost."""

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        while self.fault is None:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # another program has set its terminal so
                select.select([], [self._fd], [])
            except OSError as error:
                self.fault = error
        if self.ends_with_it:
            raise OutputLost
        return len(data)


class Output:
    """What a verb writes to; `status` settles what is lost."""

    def __init__(self, out: _Stream | None = None) -> None:
        self._out = out

    def ends_with_it(self) -> None:
        """From now on the verb ends when its output is lost: it would go on for ever, for nobody."""
        if self._out is not None:
            self._out.ends_with_it = True

    def status(self, status: int, *, is_result: bool) -> int:
        """The exit status of a verb that would end with `status`."""
        if self._out is None:
            return status
        self._out.ends_with_it = False
        sys.stdout.flush()
        fault = self._out.fault
        if fault is None:
            return status
        if fault.errno != errno.EPIPE:
            print(f"blobzero: expected to write to standard output, got {fault.strerror}", file=sys.stderr)
        if status or not is_result:
            return status
        return PIPE_STATUS if fault.errno == errno.EPIPE else 1


@contextlib.contextmanager
def guarded() -> Iterator[Output]:
    """Put streams that may be lost in the place of this process's own; those that somebody else put there stay."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield Output()
        return
    _take_numbers()
    out, err = _Stream(1), _Stream(2)
    if sys.stdout is None:  # it was closed before we began
        out.fault = OSError(errno.EBADF, os.strerror(errno.EBADF))
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _text(out, before[0]), _text(err, before[1])
    try:
        yield Output(out)
    finally:
        with contextlib.suppress(OutputLost):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _take_numbers() -> None:
    """Leave no file of ours, a shard for one, the number of a standard stream that was closed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _text(stream: _Stream, like: TextIO | None) -> io.TextIOWrapper:
    """A path may hold bytes that are no text: they are shown, escaped."""
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=like.encoding if like is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=bool(getattr(like, "line_buffering", True)),
        write_through=bool(getattr(like, "write_through", False)),
    )
