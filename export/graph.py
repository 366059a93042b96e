# SPDX-License-Identifier: Apache-2.0
"""Export from PyTorch to ONNX, and metadata of exported files, which are ONNX or TorchScript.

Axes: `B` rows (dynamic), `F` bytes of an observation, `A` = 66 actions, `S` = 8 seats.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from clients.files import open_regular, reason, write_whole
from clients.provenance import git
from export.errors import ExportError, InvalidModel
from export.torchscript import load_torchscript, read_torchscript, torchscript_bytes
from mcts_ext.contract import (
    INPUT_NAME,
    INPUTS,
    OBSERVATION_BYTES,
    OBSERVATION_VERSION,
    OUTPUTS,
    POLICY_NAME,
    VALUE_NAME,
    VERSION_KEY,
)
from training.checkpoint import CheckpointInfo

OPSET: Final = 17
"""The first opset with LayerNormalization as one operator. 18 and 20, the last that the exporter supports, give the
same operators and speed, and demand more of a server's parser."""

SHAPES: Final = {
    name: (onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)), width)
    for name, (kind, width) in (INPUTS | OUTPUTS).items()
}


def metadata_of(info: CheckpointInfo) -> dict[str, str]:
    """Return the metadata stored in an exported file."""
    return {
        VERSION_KEY: str(info.observation_version),
        "weights_sha256": info.weights_sha256,
        "preset": info.preset,
        "step": str(info.step),
        "seed": "unknown" if info.seed is None else str(info.seed),
        "n_parameters": str(info.n_parameters),
        "git_commit": git("rev-parse", "HEAD") or "unknown",
    }


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        raise ExportError(
            f"expected to write {path}, got {reason(error)}; free space or choose another folder"
        ) from error


def write_model(path: Path, data: bytes) -> None:
    """Write an exported file atomically; raises `ExportError` if it cannot be written."""
    with _writing(path):
        write_whole(path, data)


def export_onnx(network: nn.Module, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write the network to `path` atomically as ONNX with a dynamic batch axis.

    Raises:
        ExportError: if the file could not be written.
    """
    example = torch.zeros(2, OBSERVATION_BYTES, dtype=torch.uint8)
    device = next(network.parameters()).device
    with _writing(path):
        with (
            tempfile.TemporaryDirectory(prefix="blobzero-export-") as folder,
            # The tracing exporter is deprecated; its successor needs another package, onnxscript.
            warnings.catch_warnings(action="ignore", category=DeprecationWarning),
        ):
            traced = f"{folder}/{path.name}"
            torch.onnx.export(
                network.eval(),
                (example.to(device),),
                traced,
                input_names=[INPUT_NAME],
                output_names=[POLICY_NAME, VALUE_NAME],
                dynamic_axes={name: {0: "B"} for name in SHAPES},
                opset_version=OPSET,
                dynamo=False,
            )
            model = onnx.load(traced)
        for output in model.graph.output:  # the exporter loses the width of a concatenated tensor
            output.type.tensor_type.shape.dim[1].dim_value = SHAPES[output.name][1]
        onnx.helper.set_model_props(model, dict(metadata))
        write_whole(path, model.SerializeToString())


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an exported file, `.onnx` or `.pt`, after checking it against the contract.

    Raises:
        InvalidModel: if the file is unreadable, or its tensors, observation version or weights are invalid.
    """
    metadata = read_torchscript(path) if path.suffix == ".pt" else properties_of(_load_onnx(path))
    if metadata.get(VERSION_KEY) != str(OBSERVATION_VERSION):
        raise InvalidModel(
            f"expected observation version {OBSERVATION_VERSION}, got {metadata.get(VERSION_KEY)} in {path}; "
            "publish a network of this version"
        )
    return metadata


def annotate(path: Path, properties: Mapping[str, str]) -> None:
    """Add metadata to an exported file atomically.

    Raises:
        InvalidModel: if it is not an exported file. ExportError: if it could not be written.
    """
    if path.suffix == ".pt":
        module, present = load_torchscript(path)
        data = torchscript_bytes(module, {**present, **properties})
    else:
        model = _load_onnx(path)
        onnx.helper.set_model_props(model, {**properties_of(model), **properties})
        data = model.SerializeToString()
    write_model(path, data)


def properties_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of an ONNX model."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _load_onnx(path: Path) -> onnx.ModelProto:
    """Load an ONNX model after checking its tensors and weights."""
    try:
        open_regular(path).close()  # opening a FIFO would block
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError, onnx's ValidationError, OSError: no common base
        raise InvalidModel(f"expected an ONNX model, got {reason(error)} in {path}; export it again") from error
    tensors = {
        value.name: (value.type.tensor_type.elem_type, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    }
    for name, (kind, size) in SHAPES.items():
        if tensors.get(name) != (kind, [0, size]):  # a dynamic dimension reads as 0
            raise InvalidModel(
                f"expected tensor {name} [B, {size}] of type {onnx.TensorProto.DataType.Name(kind)}, "
                f"got {tensors.get(name)} in {path}; export it again"
            )
    if tensors.keys() != SHAPES.keys():
        raise InvalidModel(f"expected tensors {', '.join(SHAPES)}, got {', '.join(tensors)} in {path}; export it again")
    inline = (attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t"))
    for constant in (*model.graph.initializer, *inline):
        values = numpy_helper.to_array(constant)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InvalidModel(
                f"expected finite weights, got NaN or infinity in {constant.name} of {path}; choose another checkpoint"
            )
    return model
