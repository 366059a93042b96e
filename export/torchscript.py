# SPDX-License-Identifier: Apache-2.0
"""TorchScript files, `model.pt`: what Triton's PyTorch backend loads.

The properties that an ONNX file carries stand inside as one JSON object, `metadata.json`. Loading runs the graph's own
operators and nothing else; a Python pickle is refused by `torch.jit.load` before it is unpacked.

There is no int8 variant: PyTorch's quantization for TorchScript is deprecated in favour of an export that TorchScript
can't hold.
"""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from export.errors import ExportError, InvalidModel
from mcts_ext.contract import INPUT_NAME, N_ACTIONS, N_SEATS, OBSERVATION_BYTES
from training.files import write_whole

METADATA_FILE: Final = "metadata.json"


def export_torchscript(network: nn.Module, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write the network to `path`, traced and frozen, with a dynamic batch; `path` is whole or untouched.

    Raises:
        ExportError: the file could not be written.
    """
    example = torch.zeros(2, OBSERVATION_BYTES, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing warns that TorchScript is deprecated; Triton's backend reads nothing else.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.freeze(torch.jit.trace(network.eval().cpu(), example))  # type: ignore[no-untyped-call]
    _write(traced, path, metadata)


def annotate_torchscript(path: Path, properties: Mapping[str, str]) -> None:
    """Add properties to a file."""
    module, metadata = _load(path)
    _write(module, path, {**metadata, **properties})


def read_torchscript(path: Path) -> dict[str, str]:
    """The properties of a file, after checking that its tensors are the contract's.

    Raises:
        InvalidModel: not TorchScript, or of other inputs or outputs.
    """
    module, metadata = _load(path)
    try:
        names = [argument.name for argument in module.forward.schema.arguments[1:]]
        with torch.inference_mode():
            answer = module(torch.ones(2, OBSERVATION_BYTES, dtype=torch.uint8))
        shapes = [list(tensor.shape) for tensor in answer]
    except Exception as error:  # whatever a foreign module raises
        raise InvalidModel(
            f"expected a network of the contract, got {_one_line(error)} in {path}; export it again"
        ) from error
    expected = [[2, N_ACTIONS], [2, N_SEATS]]
    if names != [INPUT_NAME] or shapes != expected:
        raise InvalidModel(
            f"expected input {INPUT_NAME} and outputs {expected} for two rows, got {names} and {shapes} in {path}; "
            "export it again"
        )
    return metadata


def load_torchscript(path: Path) -> Any:
    """The module, to be called with `[B, F]` uint8.

    Raises:
        InvalidModel: not TorchScript.
    """
    return _load(path)[0]


def _load(path: Path) -> tuple[Any, dict[str, str]]:
    files = {METADATA_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            load: Any = torch.jit.load  # which has no types
            module = load(str(path), map_location="cpu", _extra_files=files)
        found = json.loads(files[METADATA_FILE] or "{}")
    except (RuntimeError, ValueError, OSError) as error:
        raise InvalidModel(f"expected a TorchScript file, got {_one_line(error)} in {path}; export it again") from error
    return module, {str(key): str(value) for key, value in found.items()}


def _write(module: Any, path: Path, metadata: Mapping[str, str]) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(module, buffer, _extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise ExportError(f"expected to write {path}, got {error}; free space or choose another folder") from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
