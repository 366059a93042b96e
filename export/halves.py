# SPDX-License-Identifier: Apache-2.0
"""16-bit variants of a network.

- *onnx float16*: the weights are rounded, each with a cast back, so the file is half as large and every engine computes
  in what it likes best. A graph converted as a whole was 100 times farther off, for the norms' sums do not fit float16.
- *torchscript float16, bfloat16*: weights and products are of that type; the decoder stays float32, for its bytes and
  table rows are whole numbers, which bfloat16 holds exactly to 256 only.

ONNX has no bfloat16 file of its own here: ONNX Runtime's CPU provider has no products of that type, and OpenVINO makes
them from float32 weights when the file's property asks for it.
"""

import copy

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from training.network import BlobNet


def round_weights(model: onnx.ModelProto) -> None:
    """Store the float32 matrices of `model` in float16, each with a cast back to float32."""
    graph = model.graph
    casts = []
    for constant in graph.initializer:
        if constant.data_type != onnx.TensorProto.FLOAT or len(constant.dims) < 2:
            continue
        name = constant.name
        rounded = numpy_helper.to_array(constant).astype(np.float16)
        constant.CopyFrom(numpy_helper.from_array(rounded, f"{name}.float16"))
        casts.append(onnx.helper.make_node("Cast", [constant.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


class HalfNet(nn.Module):
    """A copy of a network that computes in a 16-bit type behind its decoder; in and out as the original."""

    def __init__(self, network: BlobNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)
        self.network.decoder = network.decoder
        for layer in (self.network.context, self.network.cards):
            layer.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(dtype),))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """See `BlobNet`."""
        policy, value = self.network(observation)
        return policy.float(), value.float()
