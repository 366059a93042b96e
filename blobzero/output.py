# SPDX-License-Identifier: Apache-2.0
"""Standard output and error of the command, whose writes may fail: a closed pipe, a full disk.

Progress output is not essential, so a run continues without it. The exit status depends on the output only if the
output is the result.

| failure | the output is the result (for example --json) | the result is in files |
| --- | --- | --- |
| closed pipe | 141, as if ended by SIGPIPE; no message | the run's own status |
| other, such as a full disk | 1, and a line on standard error | the run's own status, and the line |
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
    """The output of a verb whose output is its only result was lost."""


class _Stream(io.RawIOBase):
    """File descriptor that records its first failure and discards later writes."""

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
            except BlockingIOError:  # the terminal is in non-blocking mode
                select.select([], [self._fd], [])
            except OSError as error:
                self.fault = error
        if self.ends_with_it:
            raise OutputLost
        return len(data)


class Output:
    """Output of a verb; `status` accounts for lost output."""

    def __init__(self, out: _Stream | None = None) -> None:
        self._out = out

    def ends_with_it(self) -> None:
        """Make the verb end when its output is lost, since it would otherwise run forever."""
        if self._out is not None:
            self._out.ends_with_it = True

    def status(self, status: int, *, is_result: bool) -> int:
        """Return the exit status of a verb that would end with `status`."""
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
    """Replace the process's standard streams with guarded ones, unless they have been replaced already."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield Output()
        return
    _reserve_standard_descriptors()
    out, err = _Stream(1), _Stream(2)
    if sys.stdout is None:  # closed before the process started
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


def _reserve_standard_descriptors() -> None:
    """Occupy the descriptors of closed standard streams, so that no file gets one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _text(stream: _Stream, like: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream that escapes undecodable bytes, as in paths."""
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=like.encoding if like is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=bool(getattr(like, "line_buffering", True)),
        write_through=bool(getattr(like, "write_through", False)),
    )
