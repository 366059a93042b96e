# SPDX-License-Identifier: Apache-2.0
"""How fast engines answer on this machine, side by side, in this process."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

BATCH: Final = 512
REPEATS: Final = 7
SECONDS: Final = 0.3
WARM_UP: Final = 3
"""PyTorch optimizes a graph during its first runs on a shape."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Speed:
    """Rows per second over the repeats."""

    median: float
    low: float
    high: float
    ratio: float | None
    """Median of the quotients by the base's rate in the same repeat; None where there is no base."""


def time_engines(
    engines: Mapping[Key, Callable[[NDArray[np.uint8]], Any]],
    rows: NDArray[np.uint8],
    *,
    base: Callable[[Key], Key],
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> dict[Key, Speed]:
    """Time engines in turns, so that a machine that slows down slows all of them.

    Args:
        engines: each evaluates `[BATCH, F]` rows.
        rows: `[n >= BATCH, F]` positions, given out in turns.
        base: the key that a key is compared with, which need not be among `engines`.
        repeats: turns.
        seconds: of each engine in each turn, at least.
    """
    batches = [rows[start : start + BATCH] for start in range(0, len(rows) - BATCH + 1, BATCH)]
    rates: dict[Key, list[float]] = {key: [] for key in engines}
    for _ in range(repeats):
        for key, run in engines.items():
            for batch in batches[:WARM_UP]:
                run(batch)
            rates[key].append(_rate(run, batches, seconds))
    return {
        key: Speed(
            median=statistics.median(found),
            low=min(found),
            high=max(found),
            ratio=statistics.median(mine / its for mine, its in zip(found, rates[base(key)], strict=True))
            if base(key) in rates
            else None,
        )
        for key, found in rates.items()
    }


def _rate(run: Callable[[NDArray[np.uint8]], Any], batches: list[NDArray[np.uint8]], seconds: float) -> float:
    """Rows per second."""
    n_batches, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or n_batches == 0:
        run(batches[n_batches % len(batches)])
        n_batches += 1
    return n_batches * BATCH / took
