# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
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
