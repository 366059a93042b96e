# SPDX-License-Identifier: Apache-2.0
"""How many workers and rounds side by side, where nobody says: from the cores and from who computes the network.

Measured on two cores: a worker takes 3 us of a core for an evaluation, the network in int8 takes 20
(docs/experiments/selfplay-speed.md).
"""

import os
from dataclasses import dataclass
from typing import Final, Literal

Auto = Literal["auto"]

CORES_PER_WORKER: Final = 8
"""Where the network computes on the same cores: a worker more would only wait."""
GROUPS: Final = 4
"""Batches in flight that keep network and search busy: of all workers where they share cores, else of each."""
GAMES_PER_GROUP: Final = 256
"""Make a request of some 600 rows: one costs client and server 0.4 to 0.8 ms each, whatever its size."""


@dataclass(frozen=True)
class Size:
    """Of a fleet."""

    workers: int
    games: int
    """Rounds side by side in each worker."""
    groups: int
    """In each worker, with a batch each."""


def choose_size(
    workers: int | Auto, games: int | Auto, groups: int | Auto, *, network_is_here: bool, cores: int | None = None
) -> Size:
    """What was asked for, and sound values for what was left to us.

    Args:
        workers, games, groups: numbers, or `auto`.
        network_is_here: whether the network computes on these cores, in processes of its own.
        cores: that this process may use, counted if not given.
    """
    cores = cores or len(os.sched_getaffinity(0))
    n_workers = workers if workers != "auto" else max(1, cores // CORES_PER_WORKER) if network_is_here else cores
    n_groups = groups if groups != "auto" else -(-GROUPS // n_workers) if network_is_here else GROUPS
    return Size(n_workers, games if games != "auto" else GAMES_PER_GROUP * n_groups, n_groups)
