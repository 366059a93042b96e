# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a safetensors file of weights with a JSON description in its header.

A checkpoint is written atomically. Loading executes no code, and checks that the weights are finite and have the shapes
stated in the header.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from clients.files import json_object, reason, write_whole
from mcts_ext.config import LARGEST_SEED
from mcts_ext.contract import OBSERVATION_VERSION
from mcts_ext.errors import BlobError
from training.header import check_shapes, integer, network_config, open_safetensors
from training.network import PRESETS, BlobNet, NetworkConfig

FORMAT: Final = "blobzero checkpoint 1"


class CheckpointError(BlobError):
    """The checkpoint cannot be read, written or used."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Description of a network, stored in checkpoints and exported models."""

    step: int
    """Training steps taken; 0 for an untrained network."""
    seed: int | None
    """Seed of the initial weights, if known."""
    config: NetworkConfig
    observation_version: int
    n_parameters: int
    weights_sha256: str
    """Hash of names, shapes and weights; equal for equal networks in any file."""

    @property
    def preset(self) -> str:
        """Name of the preset with this config, or "custom"."""
        return next((name for name, config in PRESETS.items() if config == self.config), "custom")


def describe(network: BlobNet, *, step: int = 0, seed: int | None = None) -> CheckpointInfo:
    """Return the description of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return CheckpointInfo(
        step=step,
        seed=seed,
        config=network.config,
        observation_version=OBSERVATION_VERSION,
        n_parameters=network.n_parameters,
        weights_sha256=digest.hexdigest(),
    )


def save_checkpoint(path: Path, network: BlobNet, *, step: int, seed: int | None = None) -> CheckpointInfo:
    """Write `network` to `path` atomically.

    Raises:
        CheckpointError: if it could not be written; `path` is unchanged.
    """
    info = describe(network, step=step, seed=seed)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    data = save(weights, metadata={"format": FORMAT, "info": json.dumps(asdict(info))})
    try:
        write_whole(path, data)
    except OSError as error:
        raise CheckpointError(
            f"expected room for checkpoint {path} ({len(data)} bytes) in a writable folder, got {reason(error)}; "
            "free space or choose another folder"
        ) from error
    return info


def load_checkpoint(path: Path) -> tuple[BlobNet, CheckpointInfo]:
    """Load a network, in evaluation mode, and its description.

    Raises:
        CheckpointError: if the file is no checkpoint, has another observation version, or its weights are damaged.
    """
    try:
        with open_safetensors(path) as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise _unusable(path, f"a file of format {FORMAT!r}", repr(metadata.get("format"))[:100])
            info = _parse(path, metadata)
            try:
                check_shapes(file, info.config)
            except ValueError as error:
                raise _unusable(path, f"the weights of {info.config}", str(error)) from error
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise _unusable(path, "a readable checkpoint", reason(error)) from error
    network = BlobNet(info.config)
    network.load_state_dict(weights)
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise _unusable(path, "finite weights", f"NaN or infinity in {', '.join(broken)}")
    if describe(network).weights_sha256 != info.weights_sha256:
        raise _unusable(path, f"weights of sha256 {info.weights_sha256}", "others")
    return network.eval(), info


def _parse(path: Path, metadata: Mapping[str, str]) -> CheckpointInfo:
    """Parse the description in a header."""
    try:
        fields = json_object(metadata["info"])
        version = integer(fields, "observation_version")
        if version != OBSERVATION_VERSION:
            raise CheckpointError(
                f"expected observation version {OBSERVATION_VERSION}, got {version} in {path}; "
                "train a network of this version, or use the code that wrote this one"
            )
        return CheckpointInfo(
            step=integer(fields, "step"),
            seed=None if fields["seed"] is None else integer(fields, "seed", low=-(2**63), high=LARGEST_SEED),
            config=network_config(fields["config"]),
            observation_version=version,
            n_parameters=integer(fields, "n_parameters"),
            weights_sha256=str(fields["weights_sha256"])[:64],
        )
    except (KeyError, ValueError) as error:
        raise _unusable(path, "a description of the network in the header", reason(error)) from error


def _unusable(path: Path, expected: str, got: str) -> CheckpointError:
    return CheckpointError(f"expected {expected} at {path}, got {got}; choose another checkpoint")
