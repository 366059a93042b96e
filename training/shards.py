# SPDX-License-Identifier: Apache-2.0
"""Discovery of shards, and reading of their positions.

A shard is rejected as a whole: after one invalid row, no other row of the file can be trusted.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import Shard, is_shard_name, read_shard


@dataclass(frozen=True)
class TrainingPositions:
    """The columns of `n` records used in training."""

    observation: NDArray[np.uint8]
    """`[n, F]`."""
    policy: NDArray[np.float32]
    """`[n, A]` probabilities, 0 for illegal actions."""
    value: NDArray[np.float32]
    """`[n, S]` outcome by relative seat; 0 for missing seats."""

    def __len__(self) -> int:
        return len(self.observation)


def find_shards(folders: Sequence[Path], *, on_error: Callable[[OSError], None] = lambda _: None) -> list[Path]:
    """Return the shards of runs, or of folders of runs, sorted by modification time, then by path.

    Links are followed; each shard is returned once, under its real path. Hidden folders are skipped: file systems and
    tools keep copies in them.

    Args:
        folders: runs, their `shards` folders, or folders that contain runs.
        on_error: called for each folder that cannot be listed.
    """
    changed: dict[Path, int] = {}
    for path in _named_like_shards(folders, on_error):
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                status, path = os.stat(path), Path(os.path.realpath(path))
            changed[path] = status.st_mtime_ns
        except FileNotFoundError:  # removed meanwhile, or a dangling link
            continue
        except OSError:  # reading it will report the error
            changed[path] = 0
    return sorted(changed, key=lambda path: (changed[path], str(path)))


def _named_like_shards(folders: Sequence[Path], on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the entries of `shards` folders that are named like shards; each real folder is visited once."""

    def report(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            on_error(error)

    seen: set[tuple[str, bool]] = set()
    for folder in folders:
        for root, subfolders, files in os.walk(folder, onerror=report, followlinks=True):
            real, holds_shards = os.path.realpath(root), os.path.basename(os.path.abspath(root)) == "shards"
            if (real, holds_shards) in seen:  # another link to it, or a cycle of links
                subfolders.clear()
                continue
            seen.add((real, holds_shards))
            if holds_shards:
                yield from (Path(real, name) for name in (*files, *subfolders) if is_shard_name(name))
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]


def read_positions(path: Path) -> tuple[TrainingPositions, Shard]:
    """Read one shard; return its positions and the shard itself. Raises as `clients.selfplay.records.read_shard`."""
    shard = read_shard(path, ["observation", "policy", "value", "round", "model_version"])
    columns = shard.columns
    return TrainingPositions(columns["observation"], columns["policy"], columns["value"]), shard
