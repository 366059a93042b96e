# SPDX-License-Identifier: Apache-2.0
"""Files that others may have written: regular ones only, and small ones where they are read whole.

A FIFO would be waited for, opening a device does things, and a file of 3 GB takes several times that as JSON.
"""

import errno
import os
import stat
from pathlib import Path
from typing import IO, Any, Final

from clients.jsontext import json_object

MOST_BYTES: Final = 64 << 20
"""Of a file that is read whole: a registry of 50,000 versions."""
KINDS: Final = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}

_OF_DISKS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Unfit(OSError):
    """A file that is not of the kind, or not of the size, that is read."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(what)
        self.path = path


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading, links followed; never waits.

    Raises:
        Unfit: not a regular file.
        OSError: it cannot be opened.
    """
    require_regular(path, os.stat(path).st_mode)  # before it is opened
    file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115 (the caller's)
    try:
        require_regular(path, os.fstat(file.fileno()).st_mode)  # another one may stand there by now
    except BaseException:
        file.close()
        raise
    return file


def read_small(path: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a file.

    Raises:
        Unfit: not a regular file, or one of more bytes than that.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > most_bytes:
            raise Unfit(f"{n_bytes:,} bytes, of {most_bytes:,} at most", path)
        return file.read()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: it cannot be read, or is not a small regular file.
        ValueError: no JSON object.
    """
    return json_object(read_small(path))


def require_regular(path: Path, mode: int) -> None:
    """Raise `Unfit` unless a file of this mode is a regular one."""
    if not stat.S_ISREG(mode):
        raise Unfit(KINDS.get(stat.S_IFMT(mode), "a device"), path)


def reason(error: BaseException) -> str:
    """What an error says, in one short line, without the path, which whoever tells of it names."""
    if isinstance(error, OSError):
        text = error.strerror or str(error)
    elif isinstance(error, ValueError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def fault(error: OSError) -> str:
    """A line about an error that a path or a disk causes, wherever it shows; empty for any other."""
    if isinstance(error, Unfit):
        return f"expected a small regular file, got {error} at {error.path}; name another"
    if error.filename is not None:
        path = error.filename2 or error.filename
        return f"expected to read or write {path}, got {error.strerror}; look to its name and permissions"
    if error.errno in _OF_DISKS:
        return f"expected a disk that takes what is written, got {error.strerror}; look to its room"
    return ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
