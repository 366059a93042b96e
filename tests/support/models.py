# SPDX-License-Identifier: Apache-2.0
"""Turn the tiny network's file into one of another contract."""

from pathlib import Path

import numpy as np
import onnx


def widen(path: Path, width: int) -> None:
    """Make it take rows of `width` bytes."""
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = width
    for tensor in model.graph.initializer:
        weights = np.zeros((width, tensor.dims[1]), np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, str(path))


def rename_output(path: Path, old: str, new: str) -> None:
    """Give an output another name."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for tensor in model.graph.output:
        tensor.name = new if tensor.name == old else tensor.name
    onnx.save(model, str(path))


def state_property(path: Path, key: str, value: str) -> None:
    """Write a property as exported files carry them."""
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {key: value})
    onnx.save(model, str(path))


def round_weights_to_float16(path: Path) -> None:
    """Store its weights in float16, each with a cast back to float32, as a float16 export does."""
    model = onnx.load(str(path))
    casts = []
    for tensor in model.graph.initializer:
        name = tensor.name
        rounded = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, f"{name}.float16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.float16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.helper.set_model_props(model, {"precision": "float16"})
    onnx.save(model, str(path))
