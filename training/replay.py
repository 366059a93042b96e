# SPDX-License-Identifier: Apache-2.0
"""The window: the newest positions of all shards, held in memory, and batches drawn from it.

Positions have a number each, in the order in which their shards were found. Number i stands at i % capacity of a ring,
so a new shard takes the place of the oldest positions and nothing moves:

```
 0        n_total - window                     n_total
 | forgotten |  drawn from                      |
             [ ring of `capacity` >= window rows ]
```

What was found, in which order, and what of it came twice (duplicates.py) is part of a run's state: with the same shards
a resumed run draws the same batches.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import ShardError, ShardGone, ShardUnavailable
from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES
from mcts_ext.errors import BlobError
from training.duplicates import KnownRounds
from training.shards import Positions, find_shards, read_positions


class ReplayError(BlobError):
    """There is nothing to learn from."""


def window_size(n_total: int, *, minimum: int, exponent: float, slope: float, maximum: int) -> int:
    """How many of `n_total` positions to draw from, the newest.

    All of them while N <= c, then c (1 + beta ((N / c)^alpha - 1) / alpha), which leaves (c, c) with slope beta and
    grows as N^alpha. Source: Wu 2019 (KataGo), https://arxiv.org/abs/1902.10565, appendix C (c = 250,000, alpha =
    0.75, beta = 0.4).
    """
    if n_total > minimum:
        n_total = int(minimum * (1 + slope * ((n_total / minimum) ** exponent - 1) / exponent))
    return min(n_total, maximum)


@dataclass(frozen=True)
class ShardEntry:
    """A shard that was learned from: its path relative to the training run's folder, and its positions."""

    name: str
    rows: int
    n_again: int = 0
    """Rounds that it holds and other shards held before, which are left out."""
    kept: str = ""
    """Which of its rows are learned from, a bit each, in hexadecimal; empty where it is all or none."""


class Replay:
    """Finds shards, keeps their newest positions, draws batches; a shard that is no good is named and left out."""

    def __init__(
        self,
        records: Sequence[Path],
        *,
        relative_to: Path,
        capacity: int,
        window: Callable[[int], int],
        recent: bool = False,
        on_event: Callable[[str], None],
    ) -> None:
        self.entries: list[ShardEntry] = []
        self.set_aside: dict[str, str] = {}
        """Why each shard that is left out is left out, by name."""
        self._known: set[str] = set()  # real paths of all that need not be looked at again
        self._unlisted: set[str] = set()  # what was said of folders that cannot be listed
        self.n_total = 0
        self._records = list(records)
        self._relative_to = relative_to
        self._capacity = capacity
        self._window = window
        self._recent = recent
        self._on_event = on_event
        self._rounds = KnownRounds(on_event)
        self._first = 0  # the lowest number that was read into the ring
        # Memory that was never written takes no room, so a small run pays for what it has.
        self._observation = np.empty((capacity, OBSERVATION_BYTES), dtype=np.uint8)
        self._policy = np.empty((capacity, N_ACTIONS), dtype=np.float16)  # 11 bits of a share of visits
        self._value = np.empty((capacity, N_SEATS), dtype=np.float32)

    @property
    def window(self) -> int:
        """How many positions are drawn from now."""
        return min(self._window(self.n_total), self.n_total - self._first)

    def restore(self, entries: Sequence[ShardEntry]) -> None:
        """Take up the shards of an earlier state, in its order; those that left the window are not read again."""
        total = sum(entry.rows for entry in entries)
        start = total - self._window(total)
        for entry in entries:
            if self.n_total + entry.rows <= start or not entry.rows:
                self._known.add(os.path.realpath(self._path(entry.name)))
                self.entries.append(entry)
                self.n_total += entry.rows
                if entry.rows:
                    self._first = self.n_total
            else:
                self._take(entry.name, entry)

    def find_new(self) -> int:
        """Look for shards that were not there before; how many positions they brought."""
        before = self.n_total
        for path in find_shards(self._records, on_error=self._tell_folder):
            if str(path) not in self._known:
                self._take(os.path.relpath(path, self._relative_to))
        self._rounds.tell()
        return self.n_total - before

    def check_not_empty(self) -> None:
        """Raise ReplayError when no shard can be learned from."""
        if self.n_total:
            return
        where = ", ".join(map(str, self._records)) or "no folder"
        got = "none"
        if self.set_aside:
            got = f"{len(self.set_aside)} that cannot be used (the first: {next(iter(self.set_aside.values()))})"
        raise ReplayError(
            f"expected shards of records (**/shards/*.parquet) under {where}, got {got}; "
            "record some with blobzero selfplay --out FOLDER"
        )

    def draw(self, n: int, random: np.random.Generator) -> Positions:
        """`n` positions, with replacement from the window; `random` advances.

        All alike, or with `recent` the newer of two such draws: position i of w, from the oldest, comes with
        probability (2 i + 1) / w^2, so the newest twice as often as the mean and the oldest hardly ever.
        """
        first = self.n_total - self.window
        rows = random.integers(first, self.n_total, n)
        if self._recent:
            rows = np.maximum(rows, random.integers(first, self.n_total, n))
        rows %= self._capacity
        return Positions(self._observation[rows], _shares(self._policy[rows]), self._value[rows])

    def _tell_folder(self, error: OSError) -> None:
        text = f"left out for now: expected to list {error.filename}, got: {error.strerror}; see to its permissions"
        if text not in self._unlisted:
            self._unlisted.add(text)
            self._on_event(text)

    def _path(self, name: str) -> Path:
        return Path(os.path.normpath(self._relative_to / name))

    def _take(self, name: str, earlier: ShardEntry | None = None) -> None:
        """Read a shard into the ring: the rounds that are new, or the rows that an earlier state had of it."""
        path = self._path(name)
        try:
            positions, shard = read_positions(path)
        except ShardError as error:
            if not isinstance(error, ShardGone | ShardUnavailable):  # those the next listing may bring again
                self._known.add(os.path.realpath(path))
            if self.set_aside.get(name) != str(error):
                self._on_event(f"left out: {error}")
            if not isinstance(error, ShardGone):
                self.set_aside[name] = str(error)
            return
        self._known.add(os.path.realpath(path))
        self.set_aside.pop(name, None)
        is_new, n_again = self._rounds.enter(path, shard, is_told=earlier is not None)
        if earlier is not None:
            is_new, n_again = _mask(earlier.kept, len(positions)), earlier.n_again
        if not is_new.all():
            positions = Positions(positions.observation[is_new], positions.policy[is_new], positions.value[is_new])
        self.entries.append(ShardEntry(name, len(positions), n_again, _hex(is_new)))
        if not len(positions):
            return
        kept = min(len(positions), self._capacity)
        at = np.arange(self.n_total + len(positions) - kept, self.n_total + len(positions)) % self._capacity
        self._observation[at] = positions.observation[-kept:]
        self._policy[at] = positions.policy[-kept:]
        self._value[at] = positions.value[-kept:]
        self.n_total += len(positions)


def _hex(mask: NDArray[np.bool_]) -> str:
    return "" if mask.all() or not mask.any() else np.packbits(mask).tobytes().hex()


def _mask(kept: str, n: int) -> NDArray[np.bool_]:
    """`[n]`, of which rows `_hex` spoke."""
    if not kept:
        return np.ones(n, bool)
    return np.unpackbits(np.frombuffer(bytes.fromhex(kept), np.uint8), count=n).astype(bool)


def _shares(policy: NDArray[np.float16]) -> NDArray[np.float32]:
    """Shares that sum to 1 again after rounding."""
    shares = policy.astype(np.float32)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
