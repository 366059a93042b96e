# SPDX-License-Identifier: Apache-2.0
"""Training step: the network, AdamW, and the exponential moving average (EMA) of the weights, which is exported."""

import copy
import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from mcts_ext.legal import legal_actions, seats_in_round
from training.config import TrainConfig
from training.loss import Losses, losses
from training.network import BlobNet
from training.shards import TrainingPositions

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


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
    """Mutable state of training; `tensors` and `restore` save and restore it."""

    def __init__(self, network: BlobNet, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.network = network.to(device).train()
        self.ema = copy.deepcopy(self.network).eval()
        for parameter in self.ema.parameters():
            parameter.requires_grad_(False)
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
        self._forward = torch.compile(self.network) if config.compile else self.network

    def step(self, positions: TrainingPositions, step: int) -> tuple[Losses, Tensor]:
        """Take one step; return the losses and the gradient's norm before clipping."""
        config = self.config
        observation = positions.observation
        arrays = (
            observation,
            positions.policy,
            positions.value,
            legal_actions(observation),
            seats_in_round(observation),
        )
        rows, target, outcome, legal, seats = (torch.from_numpy(array).to(self.device) for array in arrays)

        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.mixed_precision):
            logits, value = self._forward(rows)
        loss = losses(
            logits, value, policy=target, outcome=outcome, legal=legal, seats=seats, value_weight=config.value_weight
        )
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
        """Return weights, EMA and AdamW's moments, by name."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for name, parameter in self._parameters.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                value = self._optimizer.state[parameter].get(moment)
                tensors[f"{moment}.{name}"] = torch.zeros_like(parameter) if value is None else value
        return tensors

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], *, step: int) -> None:
        """Restore the tensors of `tensors`, by group.

        Raises:
            RuntimeError, KeyError: if they belong to another network.
        """
        self.network.load_state_dict(groups["network"])
        self.ema.load_state_dict(groups["ema"])
        for name, parameter in self._parameters.items():
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=self.device),
                **{m: groups[m][name].to(self.device).clone() for m in ("exp_avg", "exp_avg_sq")},
            }
