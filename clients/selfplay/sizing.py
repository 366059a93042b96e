# SPDX-License-Identifier: Apache-2.0
"""Default size of a fleet: workers, concurrent rounds and groups.

Measured on two cores (docs/experiments/selfplay-speed.md): per evaluation a worker takes 3 us of a core, the network in
int8 takes 20 us.
"""

import os
from dataclasses import dataclass
from typing import Final, Literal

Auto = Literal["auto"]

CORES_PER_WORKER: Final = 8
"""Cores per worker if the network runs on the same cores; more workers would only wait."""
GROUPS: Final = 4
"""Batches in flight that keep network and search busy: over all workers if the network runs here, else per worker."""
GAMES_PER_GROUP: Final = 256
"""Concurrent rounds per group, which give requests of some 600 rows; the fixed cost of a request is 0.4 to 0.8 ms each
in client and server."""


@dataclass(frozen=True)
class Size:
    """Size of a fleet."""

    workers: int
    games: int
    """Concurrent rounds per worker."""
    groups: int
    """Groups per worker, with one batch each."""


def choose_size(
    workers: int | Auto, games: int | Auto, groups: int | Auto, *, network_is_here: bool, cores: int | None = None
) -> Size:
    """Return the size of a fleet with defaults for `auto`.

    Args:
        network_is_here: whether the network runs on the same cores, in another process.
        cores: cores available to this process; counted by default.
    """
    cores = cores or len(os.sched_getaffinity(0))
    n_workers = workers if workers != "auto" else max(1, cores // CORES_PER_WORKER) if network_is_here else cores
    n_groups = groups if groups != "auto" else -(-GROUPS // n_workers) if network_is_here else GROUPS
    return Size(n_workers, games if games != "auto" else GAMES_PER_GROUP * n_groups, n_groups)
