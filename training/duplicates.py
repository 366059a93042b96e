# SPDX-License-Identifier: Apache-2.0
"""Detection of duplicate rounds: rounds of a seed that was played twice must be used once.

A run's seed determines its deals, so a round is identified by its run's seed, deal, search and kind of evaluator, its
number, and the model version that began it. Two runs of one seed with two networks are distinct.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import Shard

DECIDES: Final = ("seed", "deal", "search", "evaluator")
"""Keys of a shard's provenance that identify a round together with its number and model version."""


class KnownRounds:
    """Rounds of all shards so far.

    Args:
        on_event: called by `report` with one line about new duplicates.
    """

    def __init__(self, on_event: Callable[[str], None]) -> None:
        self._on_event = on_event
        self._known: dict[tuple[str, int], NDArray[np.int64]] = {}  # sorted numbers, by (DECIDES, model version)
        self._unreported: list[tuple[Path, int, Any]] = []

    def add_shard(self, path: Path, shard: Shard, *, is_reported: bool) -> tuple[NDArray[np.bool_], int]:
        """Add the rounds of a shard.

        Args:
            path: path of the shard.
            shard: its contents, including rounds and model versions.
            is_reported: whether its duplicates were reported before.

        Returns:
            `[n]` mask of the rows whose rounds are new, and the number of duplicate rounds. All rounds of a shard
            without a seed count as new.
        """
        provenance, numbers, versions = shard.provenance, shard.columns["round"], shard.columns["model_version"]
        if provenance.get("seed") is None:
            return np.ones(len(numbers), bool), 0
        decided = json.dumps([provenance.get(name) for name in DECIDES], sort_keys=True)
        rounds, first, of_row = np.unique(numbers, return_index=True, return_inverse=True)
        is_known = np.zeros(len(rounds), bool)
        for version in np.unique(versions[first]).tolist():
            is_version = versions[first] == version
            is_known[is_version] = self._add((decided, version), rounds[is_version])
        n_again = int(is_known.sum())
        if n_again and not is_reported:
            self._unreported.append((path, n_again, provenance["seed"]))
        return ~is_known[of_row], n_again

    def _add(self, key: tuple[str, int], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add sorted round numbers; return a mask of those already known."""
        known = self._known.get(key, numbers[:0])
        at = np.searchsorted(known, numbers)
        is_known = np.zeros(len(numbers), bool)
        is_within = at < len(known)
        is_known[is_within] = known[at[is_within]] == numbers[is_within]
        self._known[key] = np.insert(known, at[~is_known], numbers[~is_known])
        return is_known

    def report(self) -> None:
        """Report all new duplicates in one line."""
        if not self._unreported:
            return
        path, _, seed = self._unreported[0]
        n_rounds = sum(n for _, n, _ in self._unreported)
        self._on_event(
            f"{n_rounds:,} duplicate rounds are used once: {len(self._unreported)} shards repeat rounds of a seed in "
            f"other shards (the first: seed {seed}, {path}); play with --seed auto, or remove one run"
        )
        self._unreported.clear()
