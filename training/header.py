# SPDX-License-Identifier: Apache-2.0
"""Validation of the header of an untrusted safetensors file.

The description of the network is checked, and compared with the shapes of the tensors, before memory is allocated for
the network or any weight is read.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from clients.files import open_regular
from training.decoder import N_RANKS
from training.network import BlobNet, NetworkConfig

LARGEST: Final = {"n_blocks": 1024, "n_pattern_ranks": N_RANKS}
WIDEST: Final = 65_536
"""Limit of the sizes not in `LARGEST`: 85 times the largest in a preset."""


def open_safetensors(path: Path) -> Any:
    """Open a file for reading; raises OSError or SafetensorError."""
    open_regular(path).close()  # opening a FIFO would block
    return safe_open(path, framework="pt")


def integer(fields: Mapping[str, Any], name: str, *, low: int = 0, high: int = 2**63 - 1) -> int:
    """Return an integer field of a description; raises KeyError or ValueError."""
    value = fields[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]!r} as {name}, not {low}..{high}")
    return value


def network_config(config: object) -> NetworkConfig:
    """Return the network config in a description; raises ValueError if it is invalid."""
    names = [field.name for field in fields(NetworkConfig)]
    if not isinstance(config, dict) or sorted(config) != sorted(names):
        raise ValueError(f"{str(config)[:100]}, not a network config ({', '.join(names)})")
    return NetworkConfig(**{name: integer(config, name, low=1, high=LARGEST.get(name, WIDEST)) for name in names})


def check_shapes(file: Any, config: NetworkConfig, *, group: str = "") -> None:
    """Raise ValueError unless the tensors `group*` of an open file match the config; no weights are read."""
    with torch.device("meta"):
        wanted = {f"{group}{name}": list(tensor.shape) for name, tensor in BlobNet(config).state_dict().items()}
    slices = {name: file.get_slice(name) for name in file.keys() if name.startswith(group)}  # noqa: SIM118 (no mapping)
    for name in sorted({*wanted, *slices}):
        has = f"{slices[name].get_dtype()} {slices[name].get_shape()}" if name in slices else "nothing"
        if name not in wanted or has != f"F32 {wanted[name]}":
            raise ValueError(f"{has} as {name[:100]}, not F32 {wanted.get(name, 'nothing')}")
