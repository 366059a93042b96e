# SPDX-License-Identifier: Apache-2.0
"""Where shards stand, and the positions in one.

A shard is refused whole, with its name and one reason. One bad row says that something went wrong, and nothing about
which other rows it spared.
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
class Positions:
    """What training needs of `n` records."""

    observation: NDArray[np.uint8]
    """`[n, F]`."""
    policy: NDArray[np.float32]
    """`[n, A]` probabilities, 0 for illegal actions."""
    value: NDArray[np.float32]
    """`[n, S]` outcome by relative seat; 0 for seats that do not exist."""

    def __len__(self) -> int:
        return len(self.observation)


def find_shards(folders: Sequence[Path], *, on_error: Callable[[OSError], None] = lambda _: None) -> list[Path]:
    """The shards of runs, or of folders of runs, in order of time of change, then of path.

    Links are followed; a shard is found once, by the path that it really has, however many lead to it. What begins
    with a dot is not looked at: such folders hold what file systems and tools keep of files that stand elsewhere too.

    Args:
        folders: each a run, its `shards`, or a folder that holds some.
        on_error: told of a folder that cannot be listed.
    """
    changed: dict[Path, int] = {}
    for path in _named_like_shards(folders, on_error):
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                found, path = os.stat(path), Path(os.path.realpath(path))
            changed[path] = found.st_mtime_ns
        except FileNotFoundError:  # removed by someone who needs the room, or a link to nothing
            continue
        except OSError:  # who reads it will say why
            changed[path] = 0
    return sorted(changed, key=lambda path: (changed[path], str(path)))


def _named_like_shards(folders: Sequence[Path], on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """What stands in a folder `shards` under a shard's name; each real folder is looked at once."""

    def tell(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            on_error(error)

    seen: set[tuple[str, bool]] = set()
    for folder in folders:
        for root, subfolders, files in os.walk(folder, onerror=tell, followlinks=True):
            real, holds_shards = os.path.realpath(root), os.path.basename(os.path.abspath(root)) == "shards"
            if (real, holds_shards) in seen:  # another link to it, or a circle of links
                subfolders.clear()
                continue
            seen.add((real, holds_shards))
            if holds_shards:
                yield from (Path(real, name) for name in (*files, *subfolders) if is_shard_name(name))
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]


def read_positions(path: Path) -> tuple[Positions, Shard]:
    """Read and check one shard, once: what is learned from, and all that was read, which says of what rounds it is.

    Raises ShardError and its kinds as `clients.selfplay.records.read_shard`.
    """
    shard = read_shard(path, ["observation", "policy", "value", "round", "model_version"])
    found = shard.columns
    return Positions(found["observation"], found["policy"], found["value"]), shard
