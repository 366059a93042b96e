# SPDX-License-Identifier: Apache-2.0
"""TorchScript files, `model.pt`, for Triton's PyTorch backend.

A file contains a frozen graph with its weights, and the same metadata as an ONNX file in a JSON object,
`metadata.json`. PyTorch's reader rejects a Python pickle without executing it.

There is no int8: PyTorch has deprecated quantization for TorchScript, and its replacement (torchao) produces
`torch.export` programs, which cannot be stored in this format.

Axes: `B` rows, `F` bytes of an observation, `A` = 66 actions, `S` = 8 seats.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from clients.files import json_object, open_regular, reason
from export.errors import InvalidModel
from mcts_ext.contract import INPUT_NAME, N_ACTIONS, N_SEATS, OBSERVATION_BYTES

METADATA_FILE: Final = "metadata.json"
# PyTorch deprecates TorchScript, which Triton's PyTorch backend needs.
_quiet: Final = partial(warnings.catch_warnings, action="ignore", category=DeprecationWarning)


def trace(network: nn.Module) -> Any:
    """Return a network on the CPU as a frozen module with a dynamic batch axis."""
    example = torch.zeros(2, OBSERVATION_BYTES, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(network.eval(), example))  # type: ignore[no-untyped-call]


def torchscript_bytes(module: Any, metadata: Mapping[str, str]) -> bytes:
    """Return the file of a module made by `trace` or read by `load_torchscript`."""
    buffer = io.BytesIO()
    with _quiet():
        torch.jit.save(module, buffer, _extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    return buffer.getvalue()


def load_torchscript(path: Path) -> tuple[Any, dict[str, str]]:
    """Load a module, to be called with `[B, F]` uint8 on the CPU, and the file's metadata; nothing is executed.

    Raises:
        InvalidModel: if the file is not TorchScript, or has no metadata.
    """
    files = {METADATA_FILE: ""}
    try:
        open_regular(path).close()  # opening a FIFO would block
        with _quiet():
            load: Any = torch.jit.load  # untyped
            module = load(str(path), map_location="cpu", _extra_files=files)
        properties = json_object(files[METADATA_FILE])
        return module, {str(key): str(value) for key, value in properties.items()}
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        raise InvalidModel(
            f"expected a TorchScript model with {METADATA_FILE}, got {reason(error)} in {path}; export it again"
        ) from error


def read_torchscript(path: Path) -> dict[str, str]:
    """Return the metadata of a file, after checking its tensors against the contract and its weights.

    Runs two batches, because a graph does not state its shapes.

    Raises:
        InvalidModel: if it is not TorchScript, has other tensors, or has NaN or infinity in its weights.
    """
    module, properties = load_torchscript(path)
    try:
        arguments = [argument.name for argument in module.forward.schema.arguments if argument.name != "self"]
        if arguments != [INPUT_NAME]:
            raise InvalidModel(f"expected the argument {INPUT_NAME}, got {arguments} in {path}; export it again")
        if not all(torch.isfinite(weights).all() for weights in _weights(module)):
            raise InvalidModel(f"expected finite weights, got NaN or infinity in {path}; choose another checkpoint")
        for n in (2, 3):
            expected = [f"float32 [{n}, {N_ACTIONS}]", f"float32 [{n}, {N_SEATS}]"]
            with torch.inference_mode():
                outputs = module(torch.zeros(n, OBSERVATION_BYTES, dtype=torch.uint8))
            got = [f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}" for output in outputs]
            if got != expected:
                raise InvalidModel(f"expected outputs {expected}, got {got} in {path}; export it again")
    except (RuntimeError, AttributeError, TypeError) as error:  # another input shape, no forward, ...
        raise InvalidModel(
            f"expected a graph for {INPUT_NAME} [B, {OBSERVATION_BYTES}], got {reason(error)} in {path}; "
            "export it again"
        ) from error
    return properties


def _weights(module: Any) -> Iterator[Tensor]:
    """Yield all weights: constants of a frozen graph, or parameters and buffers."""
    yield from module.state_dict().values()
    graph = module.inlined_graph  # keep a reference: its nodes are freed with it
    for node in graph.findAllNodes("prim::Constant"):
        value = node.output().toIValue()
        if isinstance(value, Tensor):
            yield value
