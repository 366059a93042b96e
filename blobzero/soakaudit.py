# SPDX-License-Identifier: Apache-2.0
"""What a soak test must not find: rounds lost or doubled, shards that vanish, memory that grows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from clients.records import finished_rounds, read_keys, shard_paths

WARM_UP_S: Final = 30.0
"""Of a process: what it takes in its first seconds is not growth."""
JUDGED_S: Final = 60.0
"""Of a life after that, so that its last third can be held against its first."""
GROWTH: Final = 0.05
"""Growth that is let pass."""


@dataclass(frozen=True)
class Rounds:
    """The account of all rounds that were to be played."""

    expected: int
    lost: list[int]
    """Expected, and in no shard."""
    doubled: list[int]
    """In two shards, or with a decision that is recorded twice."""
    strange: list[int]
    """In a shard, and never asked for."""
    vanished: list[str]
    """Shards that stood there once, and no more."""
    unwritten: int
    """Rounds that processes which ended in order say they finished, and that their shards do not hold."""

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.strange or self.vanished or self.unwritten)


class Bookkeeper:
    """Watches the shards of a run as they come, and does the accounts at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()
        self._vanished: set[str] = set()
        self._unwritten = 0

    def look(self) -> None:
        """Note the shards there are, and those that are there no more."""
        present = {path.name for path in shard_paths(self._folder)}
        self._vanished |= self._seen - present
        self._seen |= present

    def compare(self, reported: Sequence[int]) -> None:
        """Hold what each worker's last process says it finished, by index, against the shards of that process."""
        for index, n_reported in enumerate(reported):
            # The name begins with the worker and the moment at which its process began.
            lives = sorted({path.name.rpartition("-")[0] for path in self._folder.glob(f"w{index:03d}-*.parquet")})
            written = set[int]()
            for path in self._folder.glob(f"{lives[-1]}-*.parquet") if lives and n_reported else ():
                written.update(read_keys(path)[0].tolist())
            self._unwritten += abs(n_reported - len(written))

    def rounds(self) -> set[int]:
        """The rounds that stand in shards."""
        return finished_rounds(self._folder)

    def settle(self, n_rounds: int) -> Rounds:
        """The accounts, once rounds 0 to `n_rounds` - 1 should all have been played."""
        self.look()
        n_shards_of = np.zeros(n_rounds, np.int32)
        doubled, strange = set[int](), set[int]()
        for path in shard_paths(self._folder):
            rounds, decisions = read_keys(path)
            distinct = np.unique(rounds)
            strange.update(distinct[(distinct < 0) | (distinct >= n_rounds)].tolist())
            n_shards_of[distinct[(distinct >= 0) & (distinct < n_rounds)]] += 1
            keys, times = np.unique(np.stack([rounds, decisions]), axis=1, return_counts=True)
            doubled.update(keys[0, times > 1].tolist())
        doubled.update(np.flatnonzero(n_shards_of > 1).tolist())
        return Rounds(
            expected=n_rounds,
            lost=np.flatnonzero(n_shards_of == 0).tolist(),
            doubled=sorted(doubled),
            strange=sorted(strange),
            vanished=sorted(self._vanished),
            unwritten=self._unwritten,
        )


@dataclass
class Life:
    """The memory of one process from its start, or from when it was first seen, to its end."""

    role: str
    at: list[float] = field(default_factory=list)
    """Seconds since the soak began."""
    bytes: list[int] = field(default_factory=list)
    """Resident, shared memory included."""

    @property
    def growth(self) -> float | None:
        """The share by which the last third is above the first, as medians, after warm-up; None for a short life."""
        thirds = self._thirds()
        return None if thirds is None else thirds[2] / thirds[0] - 1

    @property
    def steady_growth(self) -> float | None:
        """The same, of growth that went on: twice the smaller of what came from third to third.

        A process takes more memory once when more is asked of it than ever before: a second version in the server, a
        larger batch, more requests at once. What leaks goes on.
        """
        thirds = self._thirds()
        return None if thirds is None else 2 * (min(thirds[1] / thirds[0], thirds[2] / thirds[1]) - 1)

    def _thirds(self) -> tuple[float, float, float] | None:
        if not self.at or self.at[-1] - self.at[0] < WARM_UP_S + JUDGED_S:
            return None
        settled = np.asarray(self.bytes)[np.asarray(self.at) >= self.at[0] + WARM_UP_S]
        first, middle, last = (float(np.median(third)) for third in np.array_split(settled, 3))
        return first, middle, last


class Scales:
    """Weighs processes, each life of one for itself."""

    def __init__(self) -> None:
        self._lives: dict[tuple[int, float], Life] = {}

    def weigh(self, at: float, pids: Mapping[int, str]) -> None:
        """Note the memory of processes, given with their roles; those that have just ended are left out."""
        for pid, role in pids.items():
            try:
                process = psutil.Process(pid)
                key, resident = (pid, process.create_time()), process.memory_info().rss
            except psutil.Error:
                continue
            if resident:  # a process that waits to be reaped has none
                life = self._lives.setdefault(key, Life(role))
                life.at.append(at)
                life.bytes.append(resident)

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())


@dataclass(frozen=True)
class Memory:
    """The verdict on one role."""

    role: str
    lives: int
    judged: int
    """Lives long enough to tell."""
    worst: float | None
    """The largest steady growth of them."""
    worst_steps: float | None
    """The largest growth of them, steps that came once included."""
    largest_bytes: int

    @property
    def is_good(self) -> bool:
        return self.worst is None or self.worst <= GROWTH


def judge_memory(lives: Iterable[Life]) -> list[Memory]:
    """One verdict a role, in the order in which roles were first seen."""
    by_role: dict[str, list[Life]] = {}
    for life in lives:
        by_role.setdefault(life.role, []).append(life)
    return [
        Memory(
            role,
            lives=len(found),
            judged=sum(life.growth is not None for life in found),
            worst=max((g for life in found if (g := life.steady_growth) is not None), default=None),
            worst_steps=max((g for life in found if (g := life.growth) is not None), default=None),
            largest_bytes=max(max(life.bytes) for life in found),
        )
        for role, found in by_role.items()
    ]
