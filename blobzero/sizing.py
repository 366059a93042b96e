# SPDX-License-Identifier: Apache-2.0
"""How many workers and rounds side by side, where nobody says: from the cores and from who computes the network.

Measured on two cores (docs/log.md): a worker takes 3 us of a core for an evaluation, the network in int8 takes 20.
"""

import os
from dataclasses import dataclass
from typing import Final, Literal

Auto = Literal["auto"]

CORES_PER_WORKER: Final = 8
"""Where the network computes on the same cores: a worker more would only wait, and split the batches."""
ROUNDS_IN_FLIGHT: Final = 1024
"""Of all workers on a machine that computes the network too: four groups of 256 fill batches of 600 rows."""
MIN_GAMES: Final = 64
GAMES_ELSEWHERE: Final = 512
"""Of each worker where the network computes elsewhere: its answers take longer, and its batches are larger."""


@dataclass(frozen=True)
class Size:
    """Of a fleet."""

    workers: int
    games: int
    """Rounds side by side in each worker."""


def choose_size(workers: int | Auto, games: int | Auto, *, network_is_here: bool, cores: int | None = None) -> Size:
    """What was asked for, and sound values for what was left to us.

    Args:
        workers, games: numbers, or `auto`.
        network_is_here: whether the network computes on these cores, in processes of its own.
        cores: that this process may use, counted if not given.
    """
    cores = cores or len(os.sched_getaffinity(0))
    n_workers = workers if workers != "auto" else max(1, cores // CORES_PER_WORKER) if network_is_here else cores
    if games != "auto":
        return Size(n_workers, games)
    return Size(n_workers, max(MIN_GAMES, ROUNDS_IN_FLIGHT // n_workers) if network_is_here else GAMES_ELSEWHERE)
