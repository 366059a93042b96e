# SPDX-License-Identifier: Apache-2.0
"""Locks that allow one writer per folder; the kernel releases them when the process ends.

```
<folder>/.lock           exclusive: the writer of the folder; the file names its process
<folder>/.workers.lock   shared: the writer's workers, which may briefly outlive it and still write finished rounds
```
A lock is `flock(2)` on the file, not the file itself: a leftover file means nothing. Children do not inherit it
(Python closes descriptors on exec). It excludes processes of one host, including those in containers. On NFS it also
excludes other hosts, unless the mount has `nolock` or `local_lock`.
"""

import contextlib
import fcntl
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clients.files import open_regular
from mcts_ext.errors import BlobError

LOCK: Final = ".lock"
WORKERS_LOCK: Final = ".workers.lock"
POLL_S: Final = 0.05
ENDING_S: Final = 2.0
"""How long to wait for a holder that is just ending, or a process that only tests the lock."""
WORKERS_END_S: Final = 20.0
"""How long to wait for the workers of a killed writer to write their finished rounds."""
HOLDER_BYTES: Final = 1000
ADVICE: Final = "wait until it is done, or choose another --out"


class FolderBusy(BlobError):
    """Another process holds the lock."""


class FolderUnwritable(BlobError):
    """The lock file cannot be created; the cause is an OSError."""


@contextlib.contextmanager
def sole_writer(folder: Path, *, lock: str = LOCK, advice: str = ADVICE) -> Iterator[None]:
    """Lock a folder for writing.

    The folder is created if necessary, and removed again if nothing was written.

    Args:
        lock: name of the lock file; writers of different files may use different locks.
        advice: what to do if another process holds the lock, for the error message.

    Raises:
        FolderBusy: if another process, or workers of an earlier one, hold the lock; the message names them.
        FolderUnwritable: if the folder cannot be created or written.
    """
    expected = f"expected a folder to write at {folder}"
    with _exclusive(folder / lock, of=folder, expected=expected, advice=advice):
        workers = folder / WORKERS_LOCK
        if lock == LOCK and workers.exists():
            held = _lock(workers, fcntl.LOCK_EX, within_s=WORKERS_END_S, of=folder, expected=expected, advice=advice)
            os.close(held)
        try:
            yield
        finally:
            if lock == LOCK:
                _remove(workers)


@contextlib.contextmanager
def sole_writer_of(file: Path) -> Iterator[None]:
    """Lock a file for writing; its folder is created if necessary.

    Raises:
        FolderBusy: if another process holds the lock; the message names it.
        FolderUnwritable: if the folder cannot be created or written.
    """
    lock = file.parent / f".{file.name}{LOCK}"
    with _exclusive(lock, of=file, expected=f"expected to write {file}", advice=ADVICE):
        yield


@contextlib.contextmanager
def worker_in(folder: Path) -> Iterator[None]:
    """Register as a worker of a folder's writer: the next writer waits until all workers have ended.

    Raises:
        FolderBusy, FolderUnwritable: if the lock file cannot be locked or created.
    """
    path, expected = folder / WORKERS_LOCK, f"expected to write {folder}"
    descriptor = _lock(path, fcntl.LOCK_SH, within_s=ENDING_S, of=folder, expected=expected, advice=ADVICE)
    try:
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock on this file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _exclusive(path: Path, *, of: Path, expected: str, advice: str) -> Iterator[None]:
    is_new = not os.path.exists(path.parent)  # unlike Path.exists, False for a name that is too long
    descriptor = _lock(path, fcntl.LOCK_EX, within_s=ENDING_S, of=of, expected=expected, advice=advice)
    try:
        _sign(descriptor)
        yield
    finally:
        if _stands(path, descriptor):
            _remove(path)
            if is_new:
                with contextlib.suppress(OSError):  # it is not empty
                    path.parent.rmdir()
        os.close(descriptor)


def _lock(path: Path, kind: int, *, within_s: float, of: Path, expected: str, advice: str) -> int:
    """Lock a file and return its descriptor; the file is guaranteed to still exist under its name.

    Raises:
        FolderBusy: if another process holds the lock after `within_s`.
        FolderUnwritable: if the file cannot be created or locked.
    """
    deadline = time.monotonic() + within_s
    try:
        while (descriptor := _lock_now(path, kind)) is None:
            if time.monotonic() > deadline:
                raise FolderBusy(f"expected no other writer of {of}, got {_holder(path)}; {advice}")
            time.sleep(POLL_S)
    except OSError as error:
        raise FolderUnwritable(
            f"{expected}, got {error.strerror or error}; free some space, change its owner, or choose another path"
        ) from error
    return descriptor


def _lock_now(path: Path, kind: int) -> int | None:
    """Return the descriptor of the locked file, or None if another process holds it or is removing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # an earlier holder has removed the folder
        return None
    is_ours = False
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        is_ours = _stands(path, descriptor)
    except BlockingIOError:
        pass
    finally:
        if not is_ours:
            os.close(descriptor)
    return descriptor if is_ours else None


def _stands(path: Path, descriptor: int) -> bool:
    """Return whether the opened file still exists under this name: the holder removes it at the end."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Write the holder's name into the lock file; optional, since the disk may be full."""
    command = " ".join(shlex.join(sys.orig_argv).split())
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    text = f"process {os.getpid()} on {platform.node()} since {since} ({command})".encode(errors="replace")
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text[:HOLDER_BYTES], 0)


def _holder(path: Path) -> str:
    if path.name == WORKERS_LOCK:
        return "workers of an earlier run that was killed (python -m clients.selfplay.worker)"
    with contextlib.suppress(OSError), open_regular(path) as file:
        return " ".join(file.read(HOLDER_BYTES).decode(errors="replace").split()) or "another process"
    return "another process"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
