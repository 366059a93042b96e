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


class LockError(BlobError):
    """The folder cannot be locked."""


class FolderBusy(LockError):
    """Another process holds the lock."""


class FolderUnwritable(LockError):
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
    with _exclusive(folder, lock, f"expected a folder to write at {folder}", f"{folder}", advice):
        if lock == LOCK:
            _await_workers(folder, advice)
        try:
            yield
        finally:
            if lock == LOCK:
                _remove(folder / WORKERS_LOCK)


@contextlib.contextmanager
def sole_writer_of(file: Path) -> Iterator[None]:
    """Lock a file for writing; its folder is created if necessary.

    Raises:
        FolderBusy: if another process holds the lock; the message names it.
        FolderUnwritable: if the folder cannot be created or written.
    """
    with _exclusive(file.parent, f".{file.name}{LOCK}", f"expected to write {file}", f"{file}", ADVICE):
        yield


@contextlib.contextmanager
def worker_in(folder: Path) -> Iterator[None]:
    """Register as a worker of a folder's writer: the next writer waits until all workers have ended.

    Raises:
        FolderUnwritable: if the lock file cannot be created.
    """
    try:
        descriptor = _acquire(folder / WORKERS_LOCK, fcntl.LOCK_SH, within_s=ENDING_S)
    except OSError as error:
        raise FolderUnwritable(f"expected to write {folder}, got {error.strerror or error}") from error
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
def _exclusive(folder: Path, name: str, expected: str, what: str, advice: str) -> Iterator[None]:
    path, is_new = folder / name, not os.path.exists(folder)  # unlike Path.exists, False for a name that is too long
    try:
        descriptor = _acquire(path, fcntl.LOCK_EX, within_s=ENDING_S)
    except BlockingIOError as error:
        raise FolderBusy(f"expected no other writer of {what}, got {_holder(path)}; {advice}") from error
    except OSError as error:
        raise FolderUnwritable(
            f"{expected}, got {error.strerror or error}; free some space, change its owner, or choose another path"
        ) from error
    try:
        _sign(descriptor)
        yield
    finally:
        if _stands(path, descriptor):
            _remove(path)
            if is_new:
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()
        os.close(descriptor)


def _acquire(path: Path, kind: int, *, within_s: float) -> int:
    """Lock a file and return its descriptor; the file is guaranteed to still exist under its name.

    Raises:
        BlockingIOError: if another process holds the lock.
        OSError: if the file cannot be created or locked.
    """
    deadline = time.monotonic() + within_s
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # an earlier holder has removed the folder
            if time.monotonic() > deadline:
                raise
            continue
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if _stands(path, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise
            time.sleep(POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _stands(path: Path, descriptor: int) -> bool:
    """Return whether the opened file still exists under this name: the holder removes it at the end."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _await_workers(folder: Path, advice: str) -> None:
    path = folder / WORKERS_LOCK
    if not path.exists():
        return
    try:
        os.close(_acquire(path, fcntl.LOCK_EX, within_s=WORKERS_END_S))
    except BlockingIOError as error:
        raise FolderBusy(
            f"expected no other writer of {folder}, got workers of an earlier run that was killed "
            f"(python -m clients.selfplay.worker); {advice}"
        ) from error
    except OSError as error:
        raise FolderUnwritable(f"expected a folder to write at {folder}, got {error.strerror or error}") from error


def _sign(descriptor: int) -> None:
    """Write the holder's name into the lock file; optional, since the disk may be full."""
    command = " ".join(shlex.join(sys.orig_argv).split())
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    text = f"process {os.getpid()} on {platform.node()} since {since} ({command})".encode(errors="replace")
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text[:HOLDER_BYTES], 0)


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError), open_regular(path) as file:
        return " ".join(file.read(HOLDER_BYTES).decode(errors="replace").split()) or "another process"
    return "another process"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
