# SPDX-License-Identifier: Apache-2.0
"""Speed of inference engines in this process, measured in turns."""

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
"""Warm-up batches: PyTorch optimizes a graph during its first runs on a shape."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Speed:
    """Statistics of rows per second over the repeats."""

    median: float
    low: float
    high: float
    ratio: float | None
    """Median ratio to the base's rate in the same repeat; None without a base."""


def time_engines(
    engines: Mapping[Key, Callable[[NDArray[np.uint8]], Any]],
    rows: NDArray[np.uint8],
    *,
    base: Callable[[Key], Key],
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> dict[Key, Speed]:
    """Time engines in turns, so that a slowdown of the machine affects all of them.

    Args:
        engines: functions that evaluate `[BATCH, F]` rows.
        rows: `[n >= BATCH, F]` positions, used cyclically.
        base: maps a key to the key it is compared with, which need not be in `engines`.
        repeats: number of turns.
        seconds: minimum time per engine and turn.
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
            median=statistics.median(own),
            low=min(own),
            high=max(own),
            ratio=statistics.median(rate / base_rate for rate, base_rate in zip(own, rates[base(key)], strict=True))
            if base(key) in rates
            else None,
        )
        for key, own in rates.items()
    }


def _rate(run: Callable[[NDArray[np.uint8]], Any], batches: list[NDArray[np.uint8]], seconds: float) -> float:
    """Return the rows per second of one turn."""
    n_batches, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or n_batches == 0:
        run(batches[n_batches % len(batches)])
        n_batches += 1
    return n_batches * BATCH / took
