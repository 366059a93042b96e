# SPDX-License-Identifier: Apache-2.0
"""A disk in memory that can be full and have room again, seen by this process and its children alone."""

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
"""Of what nothing is taken until it is used."""
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class NoSmallDisk(BlobError):
    """No file system may be mounted here."""


class LostRecords(BlobError):
    """What stood on a small disk could not be kept."""


class SmallDisk:
    """Mounts a tmpfs on an empty folder; at the end its files stand in the folder itself, and after SIGKILL nowhere.

    It lives in a mount namespace of its own: however this process ends, nothing stays mounted. Open it before other
    threads are started, which would not see it.

    Raises:
        NoSmallDisk: it takes root, or the right to mount (CAP_SYS_ADMIN).
        LostRecords: the folder has no room for the files.
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
        """Leave no room: the disk shrinks to what it holds."""
        for spare in (2, 64, 1024):  # a file that is being written may grow meanwhile
            try:
                return self._resize(self.n_bytes + spare * PAGE_BYTES)
            except NoSmallDisk:
                if spare == 1024:
                    raise
        return None

    @property
    def n_bytes(self) -> int:
        """What is on it."""
        return shutil.disk_usage(self.folder).used

    def empty(self) -> None:
        """Give it its room back."""
        self._resize(SIZE_BYTES)

    def _resize(self, n_bytes: int) -> None:
        self._run("mount", "-o", f"remount,size={n_bytes}", str(self.folder))

    def __exit__(self, *_: object) -> None:
        aside = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(self.folder, aside)
        except OSError as lost:
            shutil.rmtree(aside, ignore_errors=True)
            raise LostRecords(
                f"expected room for {self.n_bytes / 1e6:,.0f} MB of records in {self.folder}, got none; they are lost"
            ) from lost
        self._run("umount", "--lazy", str(self.folder))
        self.folder.rmdir()
        aside.rename(self.folder)

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise NoSmallDisk(str(error)) from error
        if done.returncode:
            raise NoSmallDisk(" ".join(done.stderr.split()))
