# SPDX-License-Identifier: Apache-2.0
"""Loss: cross-entropy to the search's policy plus squared error to the outcome of each seat.

Silver et al. 2017 (AlphaZero, https://arxiv.org/abs/1712.01815), equation 1, with illegal actions masked out of the
softmax, because the search never uses them, and with one value per seat. Axes: contract.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Losses(NamedTuple):
    """Losses of a batch: scalars, means over its rows."""

    total: Tensor
    """Minimized total."""
    policy: Tensor
    """Cross-entropy in nats."""
    policy_kl: Tensor
    """Cross-entropy minus the entropy of the search's policy: 0 if the network reproduces it."""
    value: Tensor
    """Squared error in units of (round score / (10 + N))^2, mean over the seats of the round."""


def losses(
    logits: Tensor, value: Tensor, *, policy: Tensor, outcome: Tensor, legal: Tensor, seats: Tensor, value_weight: float
) -> Losses:
    """Return the losses of a batch.

    Args:
        logits: `[B, A]` unmasked.
        value: `[B, S]` in [0, 1].
        policy: `[B, A]` probabilities, 0 for illegal actions.
        outcome: `[B, S]` round score / (10 + N).
        legal: `[B, A]` bool.
        seats: `[B, S]` bool, seats that exist in the round.
    """
    # Not -inf, which would turn 0 * log(0) of an illegal action into NaN.
    log_probability = torch.log_softmax(logits.float().masked_fill(~legal, -1e9), dim=1)
    cross_entropy = -(policy * log_probability).sum(1).mean()
    entropy = -torch.xlogy(policy, policy).sum(1).mean()
    error = torch.where(seats, (value.float() - outcome) ** 2, 0.0)
    value_loss = (error.sum(1) / seats.sum(1)).mean()
    return Losses(cross_entropy + value_weight * value_loss, cross_entropy, cross_entropy - entropy, value_loss)
