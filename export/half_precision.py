# SPDX-License-Identifier: Apache-2.0
"""A network in a 16-bit type: half the bytes, and matrix products that a GPU computes several times faster.

Both formats come from this one module. The decoder stays float32 and int32, for its bytes and table rows are whole
numbers, which float16 holds exactly to 2048 and bfloat16 to 256 only; norms add up squares, which float16 has no room
for; the sigmoid is taken in float32, the type of the answers.
"""

import copy

import torch
from torch import Tensor, nn

from training.network import BlobNet


class HalfNet(nn.Module):
    """A copy of a network whose weights and products are of `dtype`; in and out as the original.

    A weight that `dtype` can't hold becomes infinite: readers of the exported file refuse it.
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
    """A norm in float32 between layers of another type."""

    def __init__(self, norm: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = norm
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(x.float()).to(self.dtype)
        return result
