# SPDX-License-Identifier: Apache-2.0
"""Rounds that stand in two shards: a seed that was played twice must not count twice.

A run's seed decides its deals, so a round is known by what decided it: seed, deal, search and kind of evaluator of its
run, its number, and the model version that began it. Two runs of one seed with two networks are two sets of rounds.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import Shard

DECIDES: Final = ("seed", "deal", "search", "evaluator")
"""Of a shard's provenance: what decides a round beside its number and the network."""


class KnownRounds:
    """The rounds of all shards so far, and how many came again.

    Args:
        on_event: told in one line, by `tell`, what came again since it was told before.
    """

    def __init__(self, on_event: Callable[[str], None]) -> None:
        self._on_event = on_event
        self._known: dict[tuple[str, int], NDArray[np.int64]] = {}  # numbers in order, by the rest of what decides
        self._untold: list[tuple[Path, int, Any]] = []

    def enter(self, path: Path, shard: Shard, *, is_told: bool) -> tuple[NDArray[np.bool_], int]:
        """Take in a shard.

        Args:
            path: of the shard.
            shard: what was read of it, rounds and model versions among that.
            is_told: whether what came again in it was told before.

        Returns:
            `[n]`, which of its rows are of rounds that no shard before had; and how many rounds the others are of. A
            shard that does not say its seed has new rounds alone.
        """
        provenance, numbers, versions = shard.provenance, shard.columns["round"], shard.columns["model_version"]
        if provenance.get("seed") is None:
            return np.ones(len(numbers), bool), 0
        decided = json.dumps([provenance.get(name) for name in DECIDES], sort_keys=True)
        found, first, of_row = np.unique(numbers, return_index=True, return_inverse=True)
        is_known = np.zeros(len(found), bool)
        for version in np.unique(versions[first]).tolist():
            which = versions[first] == version
            is_known[which] = self._add((decided, version), found[which])
        n_again = int(is_known.sum())
        if n_again and not is_told:
            self._untold.append((path, n_again, provenance["seed"]))
        return ~is_known[of_row], n_again

    def _add(self, key: tuple[str, int], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these numbers, in order, were known; from now on all are."""
        known = self._known.get(key, numbers[:0])
        at = np.searchsorted(known, numbers)
        is_known = np.zeros(len(numbers), bool)
        is_within = at < len(known)
        is_known[is_within] = known[at[is_within]] == numbers[is_within]
        self._known[key] = np.insert(known, at[~is_known], numbers[~is_known])
        return is_known

    def tell(self) -> None:
        """One line for all that came again."""
        if not self._untold:
            return
        path, _, seed = self._untold[0]
        n_rounds = sum(n for _, n, _ in self._untold)
        self._on_event(
            f"{n_rounds:,} rounds came twice and are used once: {len(self._untold)} shards hold rounds of a seed that "
            f"other shards have too (the first: seed {seed}, {path}); play with --seed auto, or leave one run out"
        )
        self._untold.clear()
