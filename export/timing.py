# SPDX-License-Identifier: Apache-2.0
"""How fast each variant of a network is on this machine, in this process."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

REPEATS: Final = 7
SECONDS: Final = 0.3
BATCH: Final = 512

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Speed:
    """Rows per second over the repeats, and how many times those of the base, each repeat beside its neighbour."""

    median: float
    low: float
    high: float
    ratio: float


def time_engines(
    engines: Mapping[Key, Callable[[NDArray[np.uint8]], Any]],
    rows: NDArray[np.uint8],
    *,
    base: Callable[[Key], Key],
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> dict[Key, Speed]:
    """Time all engines in turns, so that a machine that slows down slows all of them.

    Args:
        engines: each evaluates `[b, F]` rows.
        rows: `[n, F]` positions, given `BATCH` at a time.
        base: the key that a key is to be compared with.
        repeats: turns.
        seconds: of each engine in each turn, at least.
    """
    found: dict[Key, list[float]] = {key: [] for key in engines}
    batches = [rows[start : start + BATCH] for start in range(0, len(rows) - BATCH + 1, BATCH)] or [rows]
    for run in engines.values():
        run(batches[0])  # memory and code of this shape
    for _ in range(repeats):
        for key, run in engines.items():
            n_rows, began = 0, time.perf_counter()
            while (took := time.perf_counter() - began) < seconds:
                batch = batches[n_rows // BATCH % len(batches)]
                run(batch)
                n_rows += len(batch)
            found[key].append(n_rows / took)
    return {
        key: Speed(
            statistics.median(rates),
            min(rates),
            max(rates),
            statistics.median(rate / other for rate, other in zip(rates, found[base(key)], strict=True)),
        )
        for key, rates in found.items()
    }
