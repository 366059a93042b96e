# SPDX-License-Identifier: Apache-2.0
"""What a safetensors file says of a network, believed only as far as it is possible and its tensors bear it out.

Whoever wrote the file: its description is checked, and compared with the shapes of its tensors, before memory is taken
for a network of that size or any weight is read.
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
"""Of the sizes that `LARGEST` does not name: 85 times the largest of a preset."""


def open_safetensors(path: Path) -> Any:
    """Open for reading; raises OSError or SafetensorError."""
    open_regular(path).close()  # a FIFO would be waited for
    return safe_open(path, framework="pt")


def integer(found: Mapping[str, Any], name: str, *, low: int = 0, high: int = 2**63 - 1) -> int:
    """A whole number in a description; raises KeyError or ValueError."""
    value = found[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]!r} as {name}, not {low}..{high}")
    return value


def network_config(found: object) -> NetworkConfig:
    """The shape of a network in a description; raises ValueError where no network has it."""
    names = [field.name for field in fields(NetworkConfig)]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        raise ValueError(f"{str(found)[:100]}, not the shape of a network ({', '.join(names)})")
    return NetworkConfig(**{name: integer(found, name, low=1, high=LARGEST.get(name, WIDEST)) for name in names})


def check_shapes(file: Any, config: NetworkConfig, *, group: str = "") -> None:
    """Raise ValueError unless an open file's tensors `group*` are those of such a network; nothing is read for it."""
    with torch.device("meta"):
        wanted = {f"{group}{name}": list(tensor.shape) for name, tensor in BlobNet(config).state_dict().items()}
    found = {name: file.get_slice(name) for name in file.keys() if name.startswith(group)}  # noqa: SIM118 (no mapping)
    for name in sorted({*wanted, *found}):
        has = f"{found[name].get_dtype()} {found[name].get_shape()}" if name in found else "nothing"
        if name not in wanted or has != f"F32 {wanted[name]}":
            raise ValueError(f"{has} as {name[:100]}, not F32 {wanted.get(name, 'nothing')}")
