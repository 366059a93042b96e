# SPDX-License-Identifier: Apache-2.0
"""The policy and value network: rows of bytes in, policy logits and values out.

The bytes are unpacked inside the graph (decoder.py), so that a position travels as 96 bytes and every caller sends the
same ones:

```
uint8 [B, 96] --+-- context, cards ----- linear --+
                |                                 +--> blocks --> norm --+-- linear -----------> policy [B, 66]
                +-- 4 patterns -- table, summed --+                      +-- linear, sigmoid --> value [B, 8]
```

Axes: `B` rows, `F` = 96 bytes, `A` = 66 actions, `S` = 8 seats, all relative to the seat to act.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from mcts_ext.contract import N_ACTIONS, N_SEATS
from mcts_ext.errors import InvalidConfig
from training.decoder import Decoder


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network."""

    width: int
    """Numbers per row between blocks."""
    hidden: int
    """Numbers per row inside a block."""
    n_blocks: int
    n_pattern_ranks: int
    """Ranks from the ace down that a suit's pattern covers; its tables hold 12 * 3 ** n_pattern_ranks rows."""


PRESETS: Final[dict[str, NetworkConfig]] = {
    "reference": NetworkConfig(width=256, hidden=768, n_blocks=6, n_pattern_ranks=6),
    "small": NetworkConfig(width=64, hidden=256, n_blocks=4, n_pattern_ranks=5),
}


class Block(nn.Module):
    """A pre-activation residual block: x + W2 relu(W1 norm(x)). The norm has no scale of its own: W1 has one."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.expand = nn.Linear(config.width, config.hidden)
        self.contract = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to `[..., width]`."""
        change: Tensor = self.contract(torch.relu(self.expand(self.norm(x))))
        return x + change


class BlobNet(nn.Module):
    """The whole network; `create_network` builds and initializes one."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config.n_pattern_ranks)
        self.context = nn.Linear(self.decoder.n_context, config.width)
        self.cards = nn.Linear(self.decoder.n_cards, config.width, bias=False)
        self.patterns = nn.Embedding(self.decoder.n_rows, config.width)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_blocks)))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.policy = nn.Linear(config.width, N_ACTIONS)
        self.value = nn.Linear(config.width, N_SEATS)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate a batch.

        Args:
            observation: `[B, F]` uint8.

        Returns:
            `policy` `[B, A]` float32 logits, unmasked; `value` `[B, S]` float32 in [0, 1], expected round score per
            relative seat / (10 + N). Seats that are not in the round hold anything.
        """
        context, cards, rows = self.decoder(observation)
        x = self.context(context) + self.cards(cards) + self.patterns(rows).sum(1)
        # [B, 1, width]: at rank 2 OpenVINO does not fuse a norm with the rounding to int8 behind it (20% of a row).
        x = self.norm(self.blocks(x.unsqueeze(1)))
        return self.policy(x).squeeze(1), torch.sigmoid(self.value(x)).squeeze(1)

    @property
    def n_parameters(self) -> int:
        """Trainable numbers, all of which a valid observation can reach."""
        return sum(parameter.numel() for parameter in self.parameters())


def create_network(preset: str, *, seed: int) -> BlobNet:
    """An untrained network, the same for the same preset and seed; it leaves torch's own random state alone.

    Raises:
        InvalidConfig: no preset has that name.
    """
    if preset not in PRESETS:
        raise InvalidConfig(f"expected a network preset of {sorted(PRESETS)}, got {preset!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BlobNet(PRESETS[preset])
        _initialize(network)
    return network.eval()


@torch.no_grad()
def _initialize(network: BlobNet) -> None:
    """He et al. 2015 for the layers before a relu, residual branches scaled down by depth, heads near zero.

    Pattern rows start small beside the features: most hands show few patterns, and a rare one must not be noise.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for weight, n_active in ((network.context.weight, 32), (network.cards.weight, 16)):
        nn.init.normal_(weight, std=n_active**-0.5)  # about so many of their inputs are not zero
    nn.init.normal_(network.patterns.weight, std=0.02)
    for block in network.blocks:
        block.contract.weight.mul_(network.config.n_blocks**-0.5)  # type: ignore[union-attr, operator]
    for head in (network.policy, network.value):
        nn.init.normal_(head.weight, std=0.3 * network.config.width**-0.5)  # logits of about +-0.3
