# SPDX-License-Identifier: Apache-2.0
"""Policy and value network: observation bytes in, policy logits and values out.

The bytes are decoded inside the graph (decoder.py), so every caller sends the bytes of a position:

```
                +-- context -- linear --------------------- + --> blocks --> norm --+-- linear ------------> 14 bids
uint8 [B, F] ---+                |                          |                       +-- linear, sigmoid --> value [B, 8]
                |                v                          |                       v
                +-- 4 suits -- linear, relu --+-- summed ---+                    linear
                                              +----------------------------------> + --> relu, linear --> 4 x 13 cards
```

The four suits share their input and output weights, so the network is equivariant under permutations of the suits:
nothing has to be learned four times, and no data augmentation over the 24 permutations is needed.

Axes: `B` rows, `F` bytes of an observation, `A` = 66 actions (14 bids, 4 x 13 cards), `S` = 8 seats, relative to the
seat to act.
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
    """Shape of a network."""

    width: int
    """Channels between blocks."""
    suit_width: int
    """Channels per suit before and after the blocks."""
    order_width: int
    """Channels of the embedding of a card in contest; it is narrow because 13 rows per suit are read and summed."""
    hidden: int
    """Channels inside a block."""
    n_blocks: int
    n_pattern_ranks: int
    """Number of ranks, from the ace down, in a suit's pattern; the table has 3 * 3 ** n_pattern_ranks rows."""


PRESETS: Final[dict[str, NetworkConfig]] = {
    "reference": NetworkConfig(width=256, suit_width=112, order_width=32, hidden=768, n_blocks=6, n_pattern_ranks=8),
    "small": NetworkConfig(width=64, suit_width=64, order_width=32, hidden=256, n_blocks=4, n_pattern_ranks=5),
}


class Block(nn.Module):
    """Pre-activation residual block: x + W2 relu(W1 norm(x)). The norm needs no scale because W1 follows."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.expand = nn.Linear(config.width, config.hidden)
        self.contract = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: `[..., width]` to `[..., width]`."""
        residual: Tensor = self.contract(torch.relu(self.expand(self.norm(x))))
        return x + residual


class BlobNet(nn.Module):
    """The network; `create_network` builds and initializes one."""

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
            relative seat / (10 + N). Values of missing seats are arbitrary.
        """
        policy, value = self.answer(*self.decoder(observation))
        return policy, torch.sigmoid(value).squeeze(1)

    def answer(self, context: Tensor, suits: Tensor, orders: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the layers after the decoder, in the dtype of the weights: logits `[B, A]` and `[B, 1, S]`."""
        per_suit = self.suits(suits) + self.from_orders(self.orders(orders).sum(2)) + self.patterns(patterns)
        per_suit = torch.relu(per_suit + self.suit_context(context).unsqueeze(1))  # [B, 4, suit_width]
        x = self.context(context) + self.from_suits(per_suit.sum(1))
        # [B, 1, width]: at rank 2 OpenVINO does not fuse a norm with the int8 quantization after it (20% of the time).
        x = self.norm(self.blocks(x.unsqueeze(1)))
        plays = self.plays(torch.relu(per_suit + self.to_suits(x)))
        return torch.cat([self.bids(x).squeeze(1), plays.flatten(1)], 1), self.value(x)

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters, all reachable by valid observations."""
        return sum(parameter.numel() for parameter in self.parameters())


def check_preset(preset: str) -> None:
    """Raise InvalidConfig unless a preset has that name."""
    if preset not in PRESETS:
        raise InvalidConfig(f"expected a network preset of {sorted(PRESETS)}, got {preset!r}")


def create_network(preset: str, *, seed: int) -> BlobNet:
    """Create an untrained network, a function of preset and seed; torch's global random state is unchanged.

    Raises:
        InvalidConfig: if there is no such preset.
    """
    check_preset(preset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BlobNet(PRESETS[preset])
        _initialize(network)
    return network.eval()


@torch.no_grad()
def _initialize(network: BlobNet) -> None:
    """Initialize as in He et al. 2015, with residual branches scaled down by depth and heads near zero.

    Pattern rows start small relative to the features, because rarely seen patterns would otherwise add noise.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for layer in (network.context, network.suit_context):
        nn.init.normal_(layer.weight, std=32**-0.5)  # about 32 of its inputs are not zero
    nn.init.normal_(network.suits.weight, std=8**-0.5)
    nn.init.normal_(network.orders.weight, std=0.25)
    nn.init.zeros_(network.orders.weight[-1])  # a card that is not in contest
    network.from_suits.weight.mul_(0.5)  # four are summed
    nn.init.normal_(network.patterns.weight, std=0.02)
    for block in network.blocks:
        block.contract.weight.mul_(network.config.n_blocks**-0.5)  # type: ignore[union-attr, operator]
    for head in (network.bids, network.plays, network.value):
        nn.init.normal_(head.weight, std=0.3 * head.in_features**-0.5)  # logits of about +-0.3
