# SPDX-License-Identifier: Apache-2.0
"""Everything a training run needs to go on as if it had never stopped, in one safetensors file.

Tensors: `network.*`, `ema.*`, AdamW's moments `exp_avg.*` and `exp_avg_sq.*`, `sums` of the metrics since their last
line, `torch.random`. The header holds the rest as JSON. The file appears by rename, so a killed run finds the state
before or the state after, and never a mixture.
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
    """A state that cannot be read, written, or gone on from."""


@dataclass(frozen=True)
class TrainState:
    """A training run between two steps."""

    step: int
    n_drawn: int
    """Positions drawn so far."""
    seed: int | None
    """Of the network's first weights, where known."""
    network: dict[str, int]
    """NetworkConfig."""
    config: dict[str, Any]
    """TrainConfig, paths as text."""
    shards: list[ShardEntry]
    """In the order in which they were found: with the generator's state, the position in the data."""
    generator: dict[str, Any]
    """State of numpy's bit generator."""
    tensors: dict[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors named `prefix.*`, without the prefix."""
        return {name.removeprefix(f"{prefix}."): t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


def save_state(path: Path, state: TrainState) -> None:
    """Write the state to `path`; what is there is replaced once the new file is whole.

    Raises:
        StateError: it could not be written; what was under `path` is untouched.
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
            f"got {reason(error)}; free space, then go on"
        ) from error


def load_state(path: Path) -> TrainState:
    """Read a state.

    Raises:
        StateError: not a whole state of this format.
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
    """In brief: most shards are learned from whole."""
    again: list[str | int] = [entry.n_again, entry.kept] if entry.n_again else []
    return [entry.name, entry.rows, *again]


def _entry(found: Any) -> ShardEntry:
    name, rows, n_again, kept = [*found, 0, ""] if len(found) == 2 else found
    bytes.fromhex(kept)
    return ShardEntry(str(name), integer({"rows": rows}, "rows"), integer({"rounds": n_again}, "rounds"), kept)


def _unusable(path: Path, got: str) -> StateError:
    return StateError(
        f"expected a training state of format {FORMAT!r} at {path}, got {got}; "
        "train into another folder, with --init CHECKPOINT from this one's checkpoints/"
    )
