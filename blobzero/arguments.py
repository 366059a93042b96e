# SPDX-License-Identifier: Apache-2.0
"""What holds for the arguments of every verb, checked before anything is made or started."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from clients.address import split_url
from clients.keys import read_key
from mcts_ext.config import check_seed
from mcts_ext.errors import InvalidConfig

OPEN_ANY: Final = ("serve", "selfplay")
"""Verbs whose paths Python and Triton alone open, which take any bytes; self-play so without --evaluator local."""
LARGEST: Final = 1e9
"""Of any number of seconds, minutes, requests a second: 30 years, and what gRPC and the kernel still take."""


def check_arguments(verb: str, config: Any) -> None:
    """Refuse numbers that are none or no option means, seeds that would be those of other ones, and odd paths.

    Raises:
        InvalidConfig: names the flag.
        KeyUnreadable: no key in the file that is named.
    """
    for field in fields(config):
        value, flag = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if isinstance(value, float) and not 0 <= value <= LARGEST:  # nor is NaN
            raise InvalidConfig(f"expected {flag} in 0..{LARGEST:.0f}, got {value:g}")
        if field.name == "seed" and isinstance(value, int):
            check_seed(value, what=flag)
        if field.name == "url" and isinstance(value, str):
            split_url(value)
        if field.name == "key_file" and value is not None:
            read_key(value)
    _check_paths(verb, config)


def _check_paths(verb: str, config: Any) -> None:
    """Refuse what PyTorch, ONNX Runtime, OpenVINO and TensorBoard cannot open.

    Raises:
        InvalidConfig: a path that is not UTF-8.
    """
    if verb in OPEN_ANY and getattr(config, "evaluator", "") != "local":
        return
    for field in fields(config):
        value = getattr(config, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str | Path) and any("\ud800" <= letter <= "\udfff" for letter in str(one)):
                raise InvalidConfig(f"expected UTF-8 in the path {str(one)!a}, got other bytes; link to it by another")
