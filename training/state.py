# SPDX-License-Identifier: Apache-2.0
"""State of a training run in one safetensors file, from which the run resumes exactly.

Tensors: `network.*`, `ema.*`, AdamW's moments `exp_avg.*` and `exp_avg_sq.*`, `sums` of the metrics since their last
line, `torch.random`. The header holds the rest as JSON. The file is written atomically.
"""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from clients.files import json_object, reason, write_whole
from mcts_ext.config import LARGEST_SEED
from mcts_ext.errors import BlobError
from training.header import check_shapes, integer, network_config, open_safetensors
from training.replay import ShardEntry

FORMAT: Final = "blobzero training state 1"


class StateError(BlobError):
    """The state cannot be read, written or resumed."""


@dataclass(frozen=True)
class TrainState:
    """State of a training run between two steps."""

    step: int
    n_drawn: int
    """Positions drawn so far."""
    seed: int | None
    """Seed of the network's initial weights, if known."""
    network: dict[str, int]
    """Fields of NetworkConfig."""
    config: dict[str, Any]
    """Fields of TrainConfig, paths as text."""
    shards: list[ShardEntry]
    """Shards in the order in which they were found; with `generator`, this determines the next batches."""
    generator: dict[str, Any]
    """State of numpy's bit generator."""
    tensors: dict[str, Tensor]


def save_state(path: Path, state: TrainState) -> None:
    """Write the state to `path` atomically.

    Raises:
        StateError: if it could not be written; `path` is unchanged.
    """
    fields = asdict(dataclasses.replace(state, tensors={}))
    fields["shards"] = [_plain(entry) for entry in state.shards]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    data = save(tensors, metadata={"format": FORMAT, "state": json.dumps(fields)})
    try:
        write_whole(path, data)
    except OSError as error:
        raise StateError(
            f"expected room for {path} ({len(data)} bytes) in a writable folder, "
            f"got {reason(error)}; free space, then run the command again"
        ) from error


def load_state(path: Path) -> TrainState:
    """Load a state.

    Raises:
        StateError: if the file is not a complete state of this format.
    """
    try:
        with open_safetensors(path) as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise _unusable(path, f"format {metadata.get('format')!r:.100}")
            fields = json_object(metadata["state"])
            network = network_config(fields["network"])
            for group in ("network", "ema"):
                check_shapes(file, network, group=f"{group}.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state = TrainState(
            step=integer(fields, "step"),
            n_drawn=integer(fields, "n_drawn"),
            seed=None if fields["seed"] is None else integer(fields, "seed", low=-(2**63), high=LARGEST_SEED),
            network=asdict(network),
            config=dict(fields["config"]),
            shards=[_entry(entry) for entry in fields["shards"]],
            generator=dict(fields["generator"]),
            tensors=tensors,
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, reason(error)) from error
    if any(not torch.isfinite(tensor).all() for tensor in tensors.values() if tensor.is_floating_point()):
        raise _unusable(path, "NaN or infinity in its tensors")
    return state


def _plain(entry: ShardEntry) -> list[str | int]:
    """Return the entry as a list; most shards have no duplicates, which are then left out."""
    duplicates: list[str | int] = [entry.n_again, entry.kept] if entry.n_again else []
    return [entry.name, entry.rows, *duplicates]


def _entry(values: Any) -> ShardEntry:
    name, rows, n_again, kept = [*values, 0, ""] if len(values) == 2 else values
    bytes.fromhex(kept)
    return ShardEntry(str(name), integer({"rows": rows}, "rows"), integer({"rounds": n_again}, "rounds"), kept)


def _unusable(path: Path, got: str) -> StateError:
    return StateError(
        f"expected a training state of format {FORMAT!r} at {path}, got {got}; "
        "train in another folder, with --init CHECKPOINT from this one's checkpoints/"
    )
