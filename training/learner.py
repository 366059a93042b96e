# SPDX-License-Identifier: Apache-2.0
"""The training step: loss, learning rate, AdamW, and the exponential moving average (EMA) of the weights.

The loss is Silver et al. 2017 (AlphaZero, https://arxiv.org/abs/1712.01815), equation 1: cross-entropy to the search's
policy plus squared error to the outcome. Illegal actions are masked out of the softmax, because the search never uses
them, and there is one value per seat. Axes: contract.py.
"""

import copy
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from mcts_ext.legal import legal_actions, seats_in_round
from training.config import TrainConfig
from training.network import BlobNet
from training.shards import TrainingPositions

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8
MOMENTS: Final = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of the gradient and of its square, in PyTorch's names."""


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


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of step `step`: linear warm-up, then constant or a half cosine down to 0."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "cosine" and config.schedule_steps is not None:
        done = (step - config.warmup_steps) / (config.schedule_steps - config.warmup_steps)
        return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rate


class Learner:
    """Network, optimizer and EMA; `tensors` and `restore` save and restore them."""

    def __init__(self, network: BlobNet, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.network = network.to(device).train()
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self._parameters = dict(self.network.named_parameters())
        matrices = {id(m.weight) for m in self.network.modules() if isinstance(m, nn.Linear)}
        # Embeddings do not decay: a batch reads few rows of the patterns, and all others would shrink.
        decayed = [p for p in self._parameters.values() if id(p) in matrices]
        undecayed = [p for p in self._parameters.values() if id(p) not in matrices]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": undecayed, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            fused=True,
        )
        for parameter in self._parameters.values():  # as AdamW itself does in its first step
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            self._optimizer.state[parameter] = {"step": torch.zeros((), device=device), **moments}
        self._forward = torch.compile(self.network) if config.compile else self.network

    def step(self, positions: TrainingPositions, step: int) -> tuple[Losses, Tensor]:
        """Take one step; return the losses and the gradient's norm before clipping."""
        config, observation = self.config, positions.observation
        targets = {
            "policy": positions.policy,
            "outcome": positions.value,
            "legal": legal_actions(observation),
            "seats": seats_in_round(observation),
        }
        on_device = {name: torch.from_numpy(array).to(self.device) for name, array in targets.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.mixed_precision):
            logits, value = self._forward(torch.from_numpy(observation).to(self.device))
        loss = losses(logits, value, **on_device, value_weight=config.value_weight)
        self._optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), config.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        self._optimizer.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))  # forget the initial weights faster
        torch._foreach_lerp_(list(self.ema.parameters()), list(self._parameters.values()), 1 - decay)
        return Losses(*(term.detach() for term in loss)), norm.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, EMA and AdamW's moments, by name; no copies."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for name, parameter in self._parameters.items():
            tensors |= {f"{moment}.{name}": self._optimizer.state[parameter][moment] for moment in MOMENTS}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Restore the values of `tensors` after `step` steps.

        Raises:
            RuntimeError, KeyError: if they belong to another network.
        """
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        for state in self._optimizer.state.values():
            state["step"].fill_(step)
