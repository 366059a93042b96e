# SPDX-License-Identifier: Apache-2.0
"""Accounts of a soak test's records: no round lost or doubled, no shard vanished or unreadable."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import ShardError, ShardGone, ShardUnavailable, read_shard, shard_paths

SHOWN: Final = 10
"""Number of rounds or shards that a finding lists."""


@dataclass(frozen=True)
class Rounds:
    """Account of all rounds that should have been played."""

    expected: int
    lost: list[int]
    """Expected rounds that no shard holds."""
    doubled: list[int]
    """Rounds in two shards, or with a decision that is recorded twice."""
    strange: list[int]
    """Rounds that were never to be played."""
    vanished: list[str]
    """Shards that existed before."""
    unreadable: list[str]
    unwritten: int
    """Rounds that shards should hold after an orderly stop, but do not."""
    n_missing_records: int
    """How many records fewer the shards hold than workers, including killed ones, reported as written."""

    @property
    def faults(self) -> list[str]:
        """Describe what is wrong."""
        found = []
        for name in ("lost", "doubled", "strange", "vanished", "unreadable"):
            which = getattr(self, name)
            if which:
                listed = ", ".join(map(str, which[:SHOWN])) + (", ..." if len(which) > SHOWN else "")
                found.append(f"{len(which)} {'shards' if isinstance(which[0], str) else 'rounds'} {name}: {listed}")
        if self.unwritten:
            found.append(f"{self.unwritten} rounds that workers had finished at the end are not in shards")
        if self.n_missing_records:
            found.append(f"{self.n_missing_records} records missing that workers said they had written")
        return found


class Bookkeeper:
    """Reads the shards of a run as they appear, and keeps the accounts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n_rounds_in: dict[str, int] = {}  # by name, for every shard ever seen
        self._n_records = 0
        self._n_missing_records = 0
        self._vanished: set[str] = set()
        self._unreadable: set[str] = set()
        self._unavailable: set[str] = set()  # at the last look; the next one tries them again
        self._is_recorded = np.zeros(1 << 16, bool)  # a byte per round, since hours of play must not need much memory
        self._doubled: set[int] = set()
        self._strange: set[int] = set()
        self._unwritten = 0

    def look(self, n_written: int = 0) -> Rounds:
        """Read new shards and note missing ones; return the accounts so far, with no round lost yet.

        Args:
            n_written: number of records that workers had reported as written before this call.
        """
        present = {path.name: path for path in shard_paths(self._folder)}
        self._vanished |= self._n_rounds_in.keys() - present.keys()
        self._unavailable = set()
        for name in sorted(present.keys() - self._n_rounds_in.keys()):
            try:
                columns = read_shard(present[name], ["round", "decision"]).columns
                self._n_rounds_in[name] = self._enter(columns["round"], columns["decision"])
            except ShardGone:
                self._vanished.add(name)
            except ShardUnavailable:
                self._unavailable.add(name)
            except ShardError:
                self._n_rounds_in[name] = 0
                self._unreadable.add(name)
        self._n_missing_records = max(self._n_missing_records, n_written - self._n_records)
        return self._accounts(0, lost=[], strange=[])

    def compare(self, reported: Sequence[int], *, n_under_way: int) -> None:
        """Compare the number of rounds that each worker's last process reports, by index, with its shards.

        Rounds that earlier processes had not written were played again. So among the rounds of a worker, every W-th, at
        most the `n_under_way` that it had in progress may be missing.
        """
        self.look()
        written_by = Counter[str]()  # by worker and start of its process, with which a shard's name begins
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
        """Read every shard again; return the accounts when rounds 0 to `n_rounds` - 1 should have been played."""
        self.look()
        anew = Bookkeeper(self._folder)
        anew.look()
        self._doubled |= anew._doubled
        self._unreadable |= anew._unreadable
        found = np.flatnonzero(anew._is_recorded)
        lost = np.setdiff1d(np.arange(n_rounds), found, assume_unique=True)
        return self._accounts(n_rounds, lost=lost.tolist(), strange=found[found >= n_rounds].tolist())

    def _enter(self, rounds: NDArray[np.int64], decisions: NDArray[np.int16]) -> int:
        """Enter all records of a shard; return its number of rounds."""
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
