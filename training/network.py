# SPDX-License-Identifier: Apache-2.0
"""The policy and value network: rows of bytes in, policy logits and values out.

The bytes are unpacked inside the graph (decoder.py), so that a position travels as 96 bytes and every caller sends the
same ones:

```
                +-- context -- linear --------------------- + --> blocks --> norm --+-- linear ------------> 14 bids
uint8 [B, 96] --+                |                          |                       +-- linear, sigmoid --> value [B, 8]
                |                v                          |                       v
                +-- 4 suits -- linear, relu --+-- summed ---+                    linear
                                              +----------------------------------> + --> relu, linear --> 4 x 13 cards
```

The four suits are read, and their cards chosen from, with the same weights: rename the suits, and the answer is the
same with its cards renamed. So nothing has to be learned four times, nor shown under all 24 names.

Axes: `B` rows, `F` = 96 bytes, `A` = 66 actions (14 bids, 4 x 13 cards), `S` = 8 seats, relative to the seat to act.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from mcts_ext.contract import FIRST_CARD_ACTION, N_SEATS
from mcts_ext.errors import InvalidConfig
from training.decoder import N_RANKS, Decoder


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network."""

    width: int
    """Numbers per row between blocks."""
    suit_width: int
    """Numbers per row and suit before and after the blocks."""
    order_width: int
    """Numbers per card in contest; 13 cards a suit are read and summed, so that narrow rows are worth their product."""
    hidden: int
    """Numbers per row inside a block."""
    n_blocks: int
    n_pattern_ranks: int
    """Ranks from the ace down that a suit's pattern covers; the table holds 3 * 3 ** n_pattern_ranks rows."""


PRESETS: Final[dict[str, NetworkConfig]] = {
    "reference": NetworkConfig(width=256, suit_width=112, order_width=32, hidden=768, n_blocks=6, n_pattern_ranks=8),
    "small": NetworkConfig(width=64, suit_width=64, order_width=32, hidden=256, n_blocks=4, n_pattern_ranks=5),
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
        self.suit_context = nn.Linear(self.decoder.n_context, config.suit_width)
        self.suits = nn.Linear(self.decoder.n_suits, config.suit_width, bias=False)
        self.orders = nn.Embedding(self.decoder.n_orders, config.order_width)
        self.from_orders = nn.Linear(config.order_width, config.suit_width, bias=False)
        self.patterns = nn.Embedding(self.decoder.n_patterns, config.suit_width)
        self.from_suits = nn.Linear(config.suit_width, config.width, bias=False)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_blocks)))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.to_suits = nn.Linear(config.width, config.suit_width)
        self.bids = nn.Linear(config.width, FIRST_CARD_ACTION)
        self.plays = nn.Linear(config.suit_width, N_RANKS)
        self.value = nn.Linear(config.width, N_SEATS)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate a batch.

        Args:
            observation: `[B, F]` uint8.

        Returns:
            `policy` `[B, A]` float32 logits, unmasked; `value` `[B, S]` float32 in [0, 1], expected round score per
            relative seat / (10 + N). Seats that are not in the round hold anything.
        """
        policy, value = self.answer(*self.decoder(observation))
        return policy, torch.sigmoid(value).squeeze(1)

    def answer(self, context: Tensor, suits: Tensor, orders: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """What follows the decoder, in the type of the weights: logits, `policy` `[B, A]` and `value` `[B, 1, S]`."""
        each = self.suits(suits) + self.from_orders(self.orders(orders).sum(2)) + self.patterns(patterns)
        each = torch.relu(each + self.suit_context(context).unsqueeze(1))  # [B, 4, suit_width]
        x = self.context(context) + self.from_suits(each.sum(1))
        # [B, 1, width]: at rank 2 OpenVINO does not fuse a norm with the rounding to int8 behind it (20% of a row).
        x = self.norm(self.blocks(x.unsqueeze(1)))
        plays = self.plays(torch.relu(each + self.to_suits(x)))
        return torch.cat([self.bids(x).squeeze(1), plays.flatten(1)], 1), self.value(x)

    @property
    def n_parameters(self) -> int:
        """Trainable numbers, all of which a valid observation can reach."""
        return sum(parameter.numel() for parameter in self.parameters())


def check_preset(preset: str) -> None:
    """Raise InvalidConfig unless a preset has that name."""
    if preset not in PRESETS:
        raise InvalidConfig(f"expected a network preset of {sorted(PRESETS)}, got {preset!r}")


def create_network(preset: str, *, seed: int) -> BlobNet:
    """An untrained network, the same for the same preset and seed; it leaves torch's own random state alone.

    Raises:
        InvalidConfig: no preset has that name.
    """
    check_preset(preset)
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
    for layer in (network.context, network.suit_context):
        nn.init.normal_(layer.weight, std=32**-0.5)  # about so many of its inputs are not zero
    nn.init.normal_(network.suits.weight, std=8**-0.5)
    nn.init.normal_(network.orders.weight, std=0.25)
    nn.init.zeros_(network.orders.weight[-1])  # a card that is not in contest
    network.from_suits.weight.mul_(0.5)  # four are summed
    nn.init.normal_(network.patterns.weight, std=0.02)
    for block in network.blocks:
        block.contract.weight.mul_(network.config.n_blocks**-0.5)  # type: ignore[union-attr, operator]
    for head in (network.bids, network.plays, network.value):
        nn.init.normal_(head.weight, std=0.3 * head.in_features**-0.5)  # logits of about +-0.3
