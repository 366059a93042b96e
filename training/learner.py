# SPDX-License-Identifier: Apache-2.0
"""One step of learning: a network, AdamW, and the running mean of the weights that is exported."""

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
from training.shards import Positions

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


def learning_rate(step: int, config: TrainConfig) -> float:
    """Of the step from `step` to `step + 1`: linear warm-up, then constant or half a cosine down to 0."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "cosine" and config.schedule_steps is not None:
        done = (step - config.warmup_steps) / (config.schedule_steps - config.warmup_steps)
        return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rate


class Learner:
    """Holds what changes from step to step; `tensors` and `restore` carry it over a restart."""

    def __init__(self, network: BlobNet, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.network = network.to(device).train()
        self.ema = copy.deepcopy(self.network).eval()
        for parameter in self.ema.parameters():
            parameter.requires_grad_(False)
        self._parameters = dict(self.network.named_parameters())
        matrices = {id(m.weight) for m in self.network.modules() if isinstance(m, nn.Linear)}
        # Not the table of patterns: a batch reads few of its rows, and the others would shrink unseen.
        decayed = [p for p in self._parameters.values() if id(p) in matrices]
        others = [p for p in self._parameters.values() if id(p) not in matrices]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            fused=True,
        )
        self._forward = torch.compile(self.network) if config.compile else self.network

    def step(self, positions: Positions, step: int) -> tuple[Losses, Tensor]:
        """Learn from one batch; its losses and the gradient's norm before clipping."""
        config = self.config
        observation = positions.observation
        arrays = (
            observation,
            positions.policy,
            positions.value,
            legal_actions(observation),
            seats_in_round(observation),
        )
        rows, target, outcome, may, exists = (torch.from_numpy(array).to(self.device) for array in arrays)

        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.mixed_precision):
            logits, value = self._forward(rows)
        found = losses(
            logits, value, policy=target, outcome=outcome, legal=may, seats=exists, value_weight=config.value_weight
        )
        self._optimizer.zero_grad(set_to_none=True)
        found.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), config.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        self._optimizer.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))  # else the first weights would stay in it for long
        torch._foreach_lerp_(list(self.ema.parameters()), list(self._parameters.values()), 1 - decay)
        return Losses(*(loss.detach() for loss in found)), norm.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, running means and moments, by name."""
        found = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        found |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for name, parameter in self._parameters.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                kept = self._optimizer.state[parameter].get(moment)
                found[f"{moment}.{name}"] = torch.zeros_like(parameter) if kept is None else kept
        return found

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], *, step: int) -> None:
        """Take up the tensors of `tensors`, by group.

        Raises:
            RuntimeError, KeyError: they are of another network.
        """
        self.network.load_state_dict(groups["network"])
        self.ema.load_state_dict(groups["ema"])
        for name, parameter in self._parameters.items():
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=self.device),
                **{m: groups[m][name].to(self.device).clone() for m in ("exp_avg", "exp_avg_sq")},
            }
