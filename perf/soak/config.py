# SPDX-License-Identifier: Apache-2.0
"""What `blobzero soak` is asked for."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from clients.selfplay.folder import fresh_folder

FaultName = Literal[
    "server-kill", "backend-kill", "worker-kill", "network-cut", "network-stall", "slow-link", "model-swap", "disk-full"
]


@dataclass(frozen=True, kw_only=True)
class SoakConfig:
    """Play against a server of its own with faults on a schedule; then account for every round and every megabyte."""

    minutes: float = 20.0
    """How long to play; longer where a fault takes long to recover from."""
    faults: int = 16
    """How many, spread over the time."""
    kinds: tuple[FaultName, ...] = (
        "server-kill", "backend-kill", "worker-kill", "network-cut", "network-stall", "slow-link", "model-swap",
        "disk-full",
    )  # fmt: skip
    """Kinds of fault; every one comes before any comes again. `disk-full` takes the right to mount (root)."""
    workers: int = 2
    """Self-play processes."""
    preset: str = "small"
    """Shape of the untrained networks that are served."""
    seed: int = 0
    """Of the rounds, the schedule and the networks."""
    out: Path = field(default_factory=partial(fresh_folder, "soak"))
    """Folder for records, logs, soak.json and timeline.png; expected not to exist, or to be empty."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""
