# SPDX-License-Identifier: Apache-2.0
"""Replay window: the newest positions of all shards, in memory, and the batches drawn from it.

Positions are numbered in the order in which their shards were found. Position i is stored at i % capacity of a ring
buffer, so a new shard overwrites the oldest positions:

```
 0        n_total - window                     n_total
 | forgotten |  drawn from                      |
             [ ring of `capacity` >= window rows ]
```

The list of shards in order and their duplicate rounds (duplicates.py) are part of a run's state: with the same shards,
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
from training.shards import TrainingPositions, find_shards, read_positions


class ReplayError(BlobError):
    """There are no usable records."""


def window_size(n_total: int, *, minimum: int, exponent: float, slope: float, maximum: int) -> int:
    """Return the window size for `n_total` positions.

    N while N <= c, then c (1 + beta ((N / c)^alpha - 1) / alpha), which has slope beta at c and grows as N^alpha.
    Source: Wu 2019 (KataGo), https://arxiv.org/abs/1902.10565, appendix C (c = 250,000, alpha = 0.75, beta = 0.4).
    """
    if n_total > minimum:
        n_total = int(minimum * (1 + slope * ((n_total / minimum) ** exponent - 1) / exponent))
    return min(n_total, maximum)


@dataclass(frozen=True)
class ShardEntry:
    """Shard in use: its path relative to the training run's folder, and its number of positions."""

    name: str
    rows: int
    n_again: int = 0
    """Number of its rounds that are duplicates and therefore not used."""
    kept: str = ""
    """Bit mask of the used rows in hexadecimal; empty if all or none are used."""


class Replay:
    """Finds shards, keeps their newest positions and draws batches; invalid shards are reported and skipped."""

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
        """Reason why each skipped shard is skipped, by name."""
        self._known: set[str] = set()  # real paths of shards that need not be read again
        self._unlisted: set[str] = set()  # messages about folders that cannot be listed
        self.n_total = 0
        self._records = list(records)
        self._relative_to = relative_to
        self._capacity = capacity
        self._window = window
        self._recent = recent
        self._on_event = on_event
        self._rounds = KnownRounds(on_event)
        self._first = 0  # the lowest number in the ring
        # Untouched pages take no memory, so a small run does not pay for the whole capacity.
        self._observation = np.empty((capacity, OBSERVATION_BYTES), dtype=np.uint8)
        self._policy = np.empty((capacity, N_ACTIONS), dtype=np.float16)  # 11 significant bits are enough
        self._value = np.empty((capacity, N_SEATS), dtype=np.float32)

    @property
    def window(self) -> int:
        """Current number of positions in the window."""
        return min(self._window(self.n_total), self.n_total - self._first)

    def restore(self, entries: Sequence[ShardEntry]) -> None:
        """Restore the shards of an earlier state, in its order; those outside the window are not read again."""
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
                self._load(entry.name, entry)

    def find_new(self) -> int:
        """Load new shards; return the number of their positions."""
        before = self.n_total
        for path in find_shards(self._records, on_error=self._report_unlisted):
            if str(path) not in self._known:
                self._load(os.path.relpath(path, self._relative_to))
        self._rounds.report()
        return self.n_total - before

    def check_not_empty(self) -> None:
        """Raise ReplayError if there is no usable shard."""
        if self.n_total:
            return
        where = ", ".join(map(str, self._records)) or "no folder"
        got = "none"
        if self.set_aside:
            got = f"{len(self.set_aside)} unusable ones (the first: {next(iter(self.set_aside.values()))})"
        raise ReplayError(
            f"expected shards of records (**/shards/*.parquet) under {where}, got {got}; "
            "record some with blobzero selfplay --out FOLDER"
        )

    def draw(self, n: int, random: np.random.Generator) -> TrainingPositions:
        """Draw `n` positions with replacement from the window; `random` advances.

        Uniform, or with `recent` the newer of two uniform draws: position i of w, from the oldest, has probability
        (2 i + 1) / w^2, so the newest is drawn twice as often as the average and the oldest hardly ever.
        """
        first = self.n_total - self.window
        rows = random.integers(first, self.n_total, n)
        if self._recent:
            rows = np.maximum(rows, random.integers(first, self.n_total, n))
        rows %= self._capacity
        return TrainingPositions(self._observation[rows], _normalized(self._policy[rows]), self._value[rows])

    def _report_unlisted(self, error: OSError) -> None:
        text = f"skipped for now: expected to list {error.filename}, got: {error.strerror}; check its permissions"
        if text not in self._unlisted:
            self._unlisted.add(text)
            self._on_event(text)

    def _path(self, name: str) -> Path:
        return Path(os.path.normpath(self._relative_to / name))

    def _load(self, name: str, earlier: ShardEntry | None = None) -> None:
        """Load the new rounds of a shard, or the rows that an earlier state used, into the ring."""
        path = self._path(name)
        try:
            positions, shard = read_positions(path)
        except ShardError as error:
            if not isinstance(error, ShardGone | ShardUnavailable):  # the next listing may find those again
                self._known.add(os.path.realpath(path))
            if self.set_aside.get(name) != str(error):
                self._on_event(f"skipped: {error}")
            if not isinstance(error, ShardGone):
                self.set_aside[name] = str(error)
            return
        self._known.add(os.path.realpath(path))
        self.set_aside.pop(name, None)
        is_new, n_again = self._rounds.add_shard(path, shard, is_reported=earlier is not None)
        if earlier is not None:
            is_new, n_again = _mask(earlier.kept, len(positions)), earlier.n_again
        if not is_new.all():
            positions = TrainingPositions(
                positions.observation[is_new], positions.policy[is_new], positions.value[is_new]
            )
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
    """Decode `_hex` to a mask `[n]`."""
    if not kept:
        return np.ones(n, bool)
    return np.unpackbits(np.frombuffer(bytes.fromhex(kept), np.uint8), count=n).astype(bool)


def _normalized(policy: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return policies that sum to 1 despite their rounding."""
    normalized = policy.astype(np.float32)
    normalized /= normalized.sum(axis=1, keepdims=True)
    return normalized
