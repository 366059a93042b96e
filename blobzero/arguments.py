# SPDX-License-Identifier: Apache-2.0
"""Validation of arguments common to all verbs, before anything is created or started."""

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from clients.address import split_url
from clients.keys import read_key
from mcts_ext.config import check_seed
from mcts_ext.errors import InvalidConfig

OPEN_ANY: Final = ("serve", "selfplay")
"""Verbs whose paths only Python and Triton open, which accept any bytes (selfplay: unless --evaluator local)."""
LARGEST: Final = 1e9
"""Upper limit of seconds, minutes and rates: 30 years; gRPC and the kernel still accept it."""


@dataclass(frozen=True)
class Range:
    """Annotation of a flag with its smallest and its largest value."""

    low: float
    high: float


def check_arguments(verb: str, config: Any) -> None:
    """Reject numbers, seeds and paths that are out of range or unusable.

    Raises:
        InvalidConfig: with the name of the flag.
        KeyUnreadable: if there is no key in the given file.
    """
    for field in fields(config):
        value, flag = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if isinstance(value, float) and not 0 <= value <= LARGEST:  # also false for NaN
            raise InvalidConfig(f"expected {flag} in 0..{LARGEST:.0f}, got {value:g}")
        for bounds in getattr(field.type, "__metadata__", ()):
            if isinstance(bounds, Range) and isinstance(value, int | float) and not bounds.low <= value <= bounds.high:
                raise InvalidConfig(f"expected {flag} in {bounds.low}..{bounds.high}, got {value}")
        if field.name == "seed" and isinstance(value, int):
            check_seed(value, what=flag)
        if is_dataclass(value):  # a group of flags
            check_arguments(verb, value)
        if field.name == "url" and isinstance(value, str):
            split_url(value)
        if field.name == "key_file" and value is not None:
            read_key(value)
    _check_paths(verb, config)


def _check_paths(verb: str, config: Any) -> None:
    """Reject paths that PyTorch, ONNX Runtime, OpenVINO and TensorBoard cannot open.

    Raises:
        InvalidConfig: if a path is not UTF-8.
    """
    if verb in OPEN_ANY and getattr(config, "evaluator", "") != "local":
        return
    for field in fields(config):
        value = getattr(config, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str | Path) and any("\ud800" <= letter <= "\udfff" for letter in str(path)):
                raise InvalidConfig(f"expected UTF-8 in the path {str(path)!a}, got other bytes; use a link to it")
