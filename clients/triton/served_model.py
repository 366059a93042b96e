# SPDX-License-Identifier: Apache-2.0
"""Check of a served model's configuration against the contract."""

from collections.abc import Iterable
from typing import Any, Final

from clients.errors import ModelMismatch
from clients.triton.protocol import model_config_pb2
from mcts_ext.contract import INPUTS, OBSERVATION_VERSION, OUTPUTS, VERSION_KEY

_TYPES: Final = {"uint8": "UINT8", "float32": "FP32"}
_INPUTS, _OUTPUTS = (
    sorted(f"{name} {_TYPES[kind]} [{width}]" for name, (kind, width) in tensors.items())
    for tensors in (INPUTS, OUTPUTS)
)
_ADVICE: Final = "export it with this version of blobzero, or name another model"


def check_served_model(config: Any, *, model: str, url: str) -> int:
    """Check a `ModelConfig` message.

    Returns:
        The maximum batch size of a request.

    Raises:
        ModelMismatch: if tensor names, types or shapes, batching, or the observation version do not match.
    """
    where = f"of model {model} at {url}"
    inputs, outputs = _describe(config.input), _describe(config.output)
    if inputs != _INPUTS:
        raise ModelMismatch(f"expected input {_listing(_INPUTS)} {where}, got {_listing(inputs)}; {_ADVICE}")
    if not set(_OUTPUTS) <= set(outputs):  # other outputs are not requested
        raise ModelMismatch(f"expected outputs {_listing(_OUTPUTS)} {where}, got {_listing(outputs)}; {_ADVICE}")
    if config.max_batch_size < 1:
        raise ModelMismatch(
            f"expected max_batch_size >= 1 {where}, got {config.max_batch_size}; correct its config.pbtxt"
        )
    if VERSION_KEY in config.parameters:
        stated = config.parameters[VERSION_KEY].string_value
        if stated != str(OBSERVATION_VERSION):
            raise ModelMismatch(f"expected {VERSION_KEY} {OBSERVATION_VERSION} {where}, got {stated!r}; {_ADVICE}")
    return int(config.max_batch_size)


def _describe(tensors: Iterable[Any]) -> list[str]:
    """Return each tensor as `name TYPE [dims]`, by name."""
    kinds = model_config_pb2.DataType
    return sorted(
        f"{tensor.name} {kinds.Name(tensor.data_type).removeprefix('TYPE_')} [{', '.join(map(str, tensor.dims))}]"
        for tensor in tensors
    )


def _listing(tensors: list[str]) -> str:
    return " and ".join(tensors) or "none"
