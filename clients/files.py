# SPDX-License-Identifier: Apache-2.0
"""Safe file access: atomic writes, and reads of small regular files only.

Opening a FIFO blocks, opening a device can have side effects, and a 3 GB file takes several times that as JSON.
"""

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

MOST_BYTES: Final = 64 << 20
"""Size limit of a file that is read at once; enough for a registry of 50,000 versions."""
_RESOURCE_ERRORS: Final = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
KINDS: Final = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


class Unfit(OSError):
    """The file is not regular, or too large to read."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(what)
        self.path = path


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading, following links; never blocks.

    Raises:
        Unfit: if it is not a regular file.
        OSError: if it cannot be opened.
    """
    require_regular(path, os.stat(path).st_mode)  # before it is opened
    file = open(path, "rb", buffering=0, opener=_open_nonblocking)  # noqa: SIM115 (the caller closes it)
    try:
        require_regular(path, os.fstat(file.fileno()).st_mode)  # it may have been replaced meanwhile
    except BaseException:
        file.close()
        raise
    return file


def read_small(path: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the contents of a file.

    Raises:
        Unfit: if it is not a regular file, or larger than `most_bytes`.
        OSError: if it cannot be read.
    """
    data = bytearray()
    with open_regular(path) as file:
        if (n_bytes := os.fstat(file.fileno()).st_size) > most_bytes:
            raise Unfit(f"{n_bytes:,} bytes, more than {most_bytes:,}", path)
        while chunk := file.read(1 << 20):  # its size may change meanwhile, and is 0 under /proc
            data += chunk
            if len(data) > most_bytes:
                raise Unfit(f"more than {most_bytes:,} bytes", path)
    return bytes(data)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: if it cannot be read, or is not a small regular file.
        ValueError: if it holds no JSON object.
    """
    return json_object(read_small(path))


def require_regular(path: Path, mode: int) -> None:
    """Raise `Unfit` unless the mode is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise Unfit(KINDS.get(stat.S_IFMT(mode), "a device"), path)


def reason(error: BaseException) -> str:
    """Return an error's message in one short line, without the path, which the caller names."""
    if isinstance(error, OSError):
        text = error.strerror or str(error)
    elif isinstance(error, KeyError):
        text = f"no key {error}"
    elif isinstance(error, ValueError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def fault(error: OSError) -> str:
    """Return a message for an error caused by a path, a disk or a limit; empty for any other error."""
    if isinstance(error, Unfit):
        return f"expected a small regular file, got {error} at {error.path}; choose another"
    if error.filename is not None:
        path = error.filename2 or error.filename
        return (
            f"expected to read or write {path}, got {error.strerror}; "
            "check its disk and permissions, or choose another path"
        )
    if error.errno in _RESOURCE_ERRORS:
        return f"expected free disk space, memory and file descriptors, got {error.strerror}; free some"
    return ""


def write_whole(path: Path, data: bytes | memoryview, *, mode: int = 0o666) -> None:
    """Write a file atomically: write a temporary file, sync, rename. The user's mask applies to `mode`.

    Raises:
        OSError: on failure; `path` is unchanged and no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_whole(path, json.dumps(value, indent=2).encode() + b"\n")


def json_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: if the text is not JSON, not an object, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not a JSON object")
    return value
