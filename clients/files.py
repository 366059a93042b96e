# SPDX-License-Identifier: Apache-2.0
"""Files: written whole or not at all; read where they are regular ones, and small where they are read whole.

A FIFO would be waited for, opening a device does things, and a file of 3 GB takes several times that as JSON.
"""

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

MOST_BYTES: Final = 64 << 20
"""Of a file that is read whole: a registry of 50,000 versions."""
_OF_THE_MACHINE: Final = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
KINDS: Final = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


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
    data = bytearray()
    with open_regular(path) as file:
        if (n_bytes := os.fstat(file.fileno()).st_size) > most_bytes:
            raise Unfit(f"{n_bytes:,} bytes, of {most_bytes:,} at most", path)
        while more := file.read(1 << 20):  # its size may change meanwhile, and /proc gives none
            data += more
            if len(data) > most_bytes:
                raise Unfit(f"more than {most_bytes:,} bytes", path)
    return bytes(data)


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
    elif isinstance(error, KeyError):
        text = f"nothing under {error}"
    elif isinstance(error, ValueError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def fault(error: OSError) -> str:
    """A line about an error that a path, a disk or a limit causes, wherever it shows; empty for any other."""
    if isinstance(error, Unfit):
        return f"expected a small regular file, got {error} at {error.path}; name another"
    if error.filename is not None:
        path = error.filename2 or error.filename
        return (
            f"expected to read or write {path}, got {error.strerror}; see to its disk and permissions, or name another"
        )
    if error.errno in _OF_THE_MACHINE:
        return f"expected the machine to have room, memory and open files left, got {error.strerror}; free some"
    return ""


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write aside, sync, rename: `path` holds what it held before, or all of `data`, and never a part.

    Raises:
        OSError: `path` is untouched and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file aside, sync it and rename it."""
    write_whole(path, json.dumps(value, indent=2).encode() + b"\n")


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON text.

    Raises:
        ValueError: no JSON, not an object, or nested too deeply to be read.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, not a JSON object")
    return found
