# SPDX-License-Identifier: Apache-2.0
"""What a soak test must not find in its records: rounds lost or doubled, shards that vanish or cannot be read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import ShardError, ShardGone, ShardUnavailable, read_shard, shard_paths

SHOWN: Final = 10
"""Numbers of rounds that are named; the others are counted."""


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
    unreadable: list[str]
    """Shards that are none."""
    unwritten: int
    """Rounds that should stand in shards when workers have ended in order, and do not."""
    n_missing_records: int
    """How many records fewer stand in shards than workers, those that were killed too, said they had written."""

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words."""
        found = []
        for name in ("lost", "doubled", "strange", "vanished", "unreadable"):
            which = getattr(self, name)
            if which:
                listed = ", ".join(map(str, which[:SHOWN])) + (", ..." if len(which) > SHOWN else "")
                found.append(f"{len(which)} {'shards' if isinstance(which[0], str) else 'rounds'} {name}: {listed}")
        if self.unwritten:
            found.append(f"{self.unwritten} rounds that workers had finished at the end, and shards do not hold")
        if self.n_missing_records:
            found.append(f"{self.n_missing_records} records missing that workers said they had written")
        return found


class Bookkeeper:
    """Reads the shards of a run as they come, and does the accounts on the way and at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n_rounds_in: dict[str, int] = {}  # of every shard there was, by name
        self._n_records = 0
        self._n_missing_records = 0
        self._vanished: set[str] = set()
        self._unreadable: set[str] = set()
        self._unavailable: set[str] = set()  # at the last look; they are tried again at the next
        self._is_recorded = np.zeros(1 << 16, bool)  # a byte a round: hours of play must not weigh on this process
        self._doubled: set[int] = set()
        self._strange: set[int] = set()
        self._unwritten = 0

    def look(self, n_written: int = 0) -> Rounds:
        """Read the shards that are new, and note those that are gone; the accounts so far, nothing lost yet.

        Args:
            n_written: records that workers had said to be in shards before this was called.
        """
        present = {path.name: path for path in shard_paths(self._folder)}
        self._vanished |= self._n_rounds_in.keys() - present.keys()
        unavailable: set[str] = set()
        for name in sorted(present.keys() - self._n_rounds_in.keys()):
            try:
                columns = read_shard(present[name], ["round", "decision"]).columns
                self._n_rounds_in[name] = self._enter(columns["round"], columns["decision"])
            except ShardGone:
                self._vanished.add(name)
            except ShardUnavailable:
                unavailable.add(name)
            except ShardError:
                self._n_rounds_in[name] = 0
                self._unreadable.add(name)
        self._unavailable = unavailable
        self._n_missing_records = max(self._n_missing_records, n_written - self._n_records)
        return self._accounts(0, lost=[], strange=[])

    def compare(self, reported: Sequence[int], *, n_under_way: int) -> None:
        """Hold what each worker's last process says it finished, by index, against its shards.

        What processes before it had not written was played again; so of a worker's rounds, every W-th, no more may be
        missing than it had under way, `n_under_way` at most.
        """
        self.look()
        written_by = Counter[str]()  # a shard's name begins with the worker and the moment at which its process began
        for name, n_rounds in self._n_rounds_in.items():
            written_by[name.rpartition("-")[0]] += n_rounds
        for index, n_reported in enumerate(reported):
            last = max((life for life in written_by if life.startswith(f"w{index:03d}-")), default="")
            self._unwritten += abs(n_reported - written_by[last]) if n_reported else 0
            recorded = np.flatnonzero(self._is_recorded[index :: len(reported)])
            self._unwritten += max(0, 1 + int(recorded.max(initial=-1)) - len(recorded) - n_under_way)

    @property
    def n_begun(self) -> int:
        """One more than the highest round in a shard."""
        return 1 + int(np.flatnonzero(self._is_recorded).max(initial=-1))

    def settle(self, n_rounds: int) -> Rounds:
        """The accounts, once rounds 0 to `n_rounds` - 1 should all have been played; every shard is read anew."""
        self.look()
        anew = Bookkeeper(self._folder)
        anew.look()
        self._doubled |= anew._doubled
        self._unreadable |= anew._unreadable
        found = np.flatnonzero(anew._is_recorded)
        lost = np.setdiff1d(np.arange(n_rounds), found, assume_unique=True)
        return self._accounts(n_rounds, lost=lost.tolist(), strange=found[found >= n_rounds].tolist())

    def _enter(self, rounds: NDArray[np.int64], decisions: NDArray[np.int16]) -> int:
        """Take in all records of a shard; how many rounds it holds."""
        self._n_records += len(rounds)
        keys, times = np.unique(np.stack([rounds, decisions]), axis=1, return_counts=True)
        self._doubled.update(keys[0, times > 1].tolist())
        distinct = np.unique(rounds)
        self._strange.update(distinct[distinct < 0].tolist())
        known = distinct[distinct >= 0]
        n_more = int(known.max(initial=0)) + 1 - len(self._is_recorded)
        if n_more > 0:
            self._is_recorded = np.pad(self._is_recorded, (0, max(n_more, len(self._is_recorded))))
        self._doubled.update(known[self._is_recorded[known]].tolist())
        self._is_recorded[known] = True
        return len(distinct)

    def _accounts(self, expected: int, *, lost: list[int], strange: list[int]) -> Rounds:
        return Rounds(
            expected=expected,
            lost=lost,
            doubled=sorted(self._doubled),
            strange=sorted(self._strange) + strange,
            vanished=sorted(self._vanished),
            unreadable=sorted(self._unreadable | self._unavailable),
            unwritten=self._unwritten,
            n_missing_records=self._n_missing_records,
        )
