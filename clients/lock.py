# SPDX-License-Identifier: Apache-2.0
"""One writer per folder: a lock that its process holds, and that the kernel drops with it, however it ends.

```
<folder>/.lock           exclusive: the one process that writes here; holds who that is
<folder>/.workers.lock   shared: its workers, which may outlive it for a moment and still write what they have finished
```
A lock is `flock(2)` on the file, not the file itself: one that a killed process left means nothing. Children do not
inherit it (Python's descriptors are closed on exec). It keeps processes of one host apart, in containers too. On NFS it
also keeps hosts apart, for Linux asks the server for it, unless the mount says `nolock` or `local_lock`.
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
"""How long a holder may take to end that was killed just now, or the look of somebody who only asks."""
WORKERS_END_S: Final = 20.0
"""How long workers of a writer that was killed may take to write what they have finished."""
HOLDER_BYTES: Final = 1000
ADVICE: Final = "wait until it is done, or choose another --out"


class LockError(BlobError):
    """A folder that cannot be locked."""


class FolderBusy(LockError):
    """Another process writes there."""


class FolderUnwritable(LockError):
    """The lock's file cannot be made; the cause is an OSError."""


@contextlib.contextmanager
def sole_writer(folder: Path, *, lock: str = LOCK, advice: str = ADVICE) -> Iterator[None]:
    """Be the only one who writes into a folder; the lock ends with the process.

    The folder is made if need be, and goes again if nothing was written.

    Args:
        lock: the lock's file. Different ones are for writers who do not meet.
        advice: what to do where another process holds it.

    Raises:
        FolderBusy: another process holds it, or workers of an earlier one still do; says which.
        FolderUnwritable: the folder cannot be made or written.
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
    """Be the only one who writes a file, whose folder is made if need be.

    Raises:
        FolderBusy: another process is at it; says which.
        FolderUnwritable: the folder cannot be made or written.
    """
    with _exclusive(file.parent, f".{file.name}{LOCK}", f"expected to write {file}", f"{file}", ADVICE):
        yield


@contextlib.contextmanager
def worker_in(folder: Path) -> Iterator[None]:
    """Be one of the workers of a folder's writer: the next writer waits until they have ended.

    Raises:
        FolderUnwritable: the lock's file cannot be made.
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
    """Whether some process holds the lock of this file now."""
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
    path, is_new = folder / name, not os.path.exists(folder)  # no error of a name that is too long
    try:
        descriptor = _acquire(path, fcntl.LOCK_EX, within_s=ENDING_S)
    except BlockingIOError as error:
        raise FolderBusy(f"expected to be alone in writing {what}, got {_holder(path)} at it; {advice}") from error
    except OSError as error:
        raise FolderUnwritable(
            f"{expected}, got {error.strerror or error}; make room, change its owner, or choose another place"
        ) from error
    try:
        _sign(descriptor)
        yield
    finally:
        if _stands(path, descriptor):
            _remove(path)
            if is_new:
                with contextlib.suppress(OSError):  # it goes if nothing was written
                    folder.rmdir()
        os.close(descriptor)


def _acquire(path: Path, kind: int, *, within_s: float) -> int:
    """The descriptor of a file that is locked, and that still stands under its name.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made or locked.
    """
    deadline = time.monotonic() + within_s
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder went with its first holder
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
    """Whether a file that was opened is still the one of that name: its holder removes it at the end."""
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
            f"expected to be alone in writing {folder}, got workers of an earlier run that was killed still at it "
            f"(python -m clients.selfplay.worker); {advice}"
        ) from error
    except OSError as error:
        raise FolderUnwritable(f"expected a folder to write at {folder}, got {error.strerror or error}") from error


def _sign(descriptor: int) -> None:
    """Say who holds the lock: a courtesy, without which it holds on a full disk."""
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
