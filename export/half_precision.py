# SPDX-License-Identifier: Apache-2.0
"""Network in a 16-bit type: half the size, and matrix products that are several times faster on a GPU.

The decoder stays in float32 and int32, because float16 represents integers exactly only to 2048 and bfloat16 to 256.
Norms sum squares, which would overflow float16; the sigmoid is computed in float32, the type of the outputs.
"""

import copy

import torch
from torch import Tensor, nn

from training.network import BlobNet


class HalfNet(nn.Module):
    """Copy of a network with weights and matrix products in `dtype`, and the same inputs and outputs.

    A weight that overflows `dtype` becomes infinite, so that readers of the exported file reject it.
    """

    def __init__(self, network: BlobNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.network = copy.deepcopy(network).cpu()
        for name, part in self.network.named_children():
            if name != "decoder":
                part.to(dtype)
        for block in self.network.blocks:
            block.norm = _Norm(block.norm, dtype)  # type: ignore[arg-type]
        self.network.norm = _Norm(self.network.norm, dtype)  # type: ignore[assignment]

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """See `BlobNet.forward`."""
        context, suits, orders, patterns = self.network.decoder(observation)
        policy, value = self.network.answer(context.to(self.dtype), suits.to(self.dtype), orders, patterns)
        return policy.float(), torch.sigmoid(value.float()).squeeze(1)


class _Norm(nn.Module):
    """Norm in float32 between layers of another type."""

    def __init__(self, norm: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = norm
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(x.float()).to(self.dtype)
        return result
