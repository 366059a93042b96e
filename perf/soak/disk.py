# SPDX-License-Identifier: Apache-2.0
"""A disk in memory that can be filled and emptied, visible only to this process and its children."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, Self

from mcts_ext.errors import BlobError

CLONE_NEWNS: Final = 0x00020000  # <sched.h>
MS_REC, MS_PRIVATE = 0x4000, 1 << 18  # <sys/mount.h>
SIZE_BYTES: Final = 4 << 30
"""Size of the disk; it takes memory only for its contents."""
SPARE_PAGES: Final = (2, 64, 1024)
"""Room left on a full disk; a later value is tried if the files have grown meanwhile."""
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class NoSmallDisk(BlobError):
    """No file system can be mounted here."""


class LostRecords(BlobError):
    """The files of a small disk could not be saved."""


class SmallDisk:
    """Mounts a tmpfs on an empty folder; at the end its files are moved to the folder itself (SIGKILL loses them).

    The mount has a namespace of its own, so nothing stays mounted however this process ends. Enter the context before
    starting other threads, which would not see the mount.

    Raises:
        NoSmallDisk: without root or the right to mount (CAP_SYS_ADMIN).
        LostRecords: if the folder has no room for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            raise NoSmallDisk(os.strerror(ctypes.get_errno()))
        self._run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(self.folder))
        return self

    def fill(self) -> None:
        """Leave no room: shrink the disk to its contents."""
        for pages in SPARE_PAGES[:-1]:
            with contextlib.suppress(NoSmallDisk):
                return self._resize(self.n_bytes + pages * PAGE_BYTES)
        return self._resize(self.n_bytes + SPARE_PAGES[-1] * PAGE_BYTES)

    @property
    def n_bytes(self) -> int:
        """Size of its contents."""
        return shutil.disk_usage(self.folder).used

    def empty(self) -> None:
        """Restore the disk's size."""
        self._resize(SIZE_BYTES)

    def _resize(self, n_bytes: int) -> None:
        self._run("mount", "-o", f"remount,size={n_bytes}", str(self.folder))

    def __exit__(self, *_: object) -> None:
        copy = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(copy, ignore_errors=True)
        try:
            shutil.copytree(self.folder, copy)
        except OSError as lost:
            shutil.rmtree(copy, ignore_errors=True)
            raise LostRecords(
                f"expected room for {self.n_bytes / 1e6:,.0f} MB of records in {self.folder}, got none; they are lost"
            ) from lost
        self._run("umount", "--lazy", str(self.folder))
        self.folder.rmdir()
        copy.rename(self.folder)

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise NoSmallDisk(str(error)) from error
        if done.returncode:
            raise NoSmallDisk(" ".join(done.stderr.split()))
