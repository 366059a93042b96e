# SPDX-License-Identifier: Apache-2.0
"""Settings of training, without torch, so that the command can show its help at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcts_ext.config import LARGEST_SEED
from mcts_ext.errors import InvalidConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a network learns from records."""

    preset: str = "reference"
    """Shape of a new network: `reference` or `small`."""
    init: Path | None = None
    """Begin with this checkpoint's weights instead of a new network."""
    seed: int = 0
    """Of the new network's weights, and of the draws of positions."""
    batch: int = 512
    """Positions a step."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: stay, or fall along a cosine to 0 at `schedule_steps`."""
    schedule_steps: int | None = None
    """The step at which the cosine reaches 0."""
    weight_decay: float = 0.01
    """Decoupled, on the weights of linear layers only."""
    clip_norm: float = 1.0
    """The gradient's norm is cut to this."""
    value_weight: float = 10.0
    """Of the value loss beside the policy loss: squared errors are small numbers."""
    ema_decay: float = 0.999
    """Of the running mean of the weights that checkpoints hold; shorter in the first steps."""
    window_min: int = 250_000
    """Newest positions to draw from before the window grows slower than the records do: c of the power law."""
    window_exponent: float = 0.75
    """Alpha of the power law."""
    window_slope: float = 0.4
    """Beta of the power law: how fast the window grows, per new position, when it begins to lag."""
    window_max: int = 4_000_000
    """The window never grows beyond this; a position takes 260 bytes of memory."""
    sampling: Literal["uniform", "recent"] = "uniform"
    """How to draw from the window: uniformly, or the newer of two draws, whose chance rises linearly with its place."""
    max_reuse: float = 8.0
    """Draws for each recorded position, at most, over the whole run; training ends early instead."""
    relist_steps: int = 200
    """Look for new shards so often."""
    log_every: int = 50
    """Steps between lines of metrics."""
    checkpoint_every: int = 1000
    """Steps between checkpoints, each with the whole state."""
    mixed_precision: bool = False
    """Compute matrix products in bfloat16."""
    compile: bool = False
    """Pass the network through torch.compile; takes a minute at the start."""
    device: str = "auto"
    """`cpu`, `cuda` or `cuda:N`, or `auto`: a GPU where there is one."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("seed", 0, LARGEST_SEED),
            ("batch", 1, 1_000_000),
            ("learning_rate", 0, 10),
            ("warmup_steps", 0, 10**9),
            ("weight_decay", 0, 10),
            ("clip_norm", 1e-9, 1e9),
            ("value_weight", 0, 1e6),
            ("ema_decay", 0, 1),
            ("window_min", 1, 10**12),
            ("window_exponent", 1e-3, 1),
            ("window_slope", 0, 1),
            ("window_max", 1, 10**10),
            ("max_reuse", 1e-3, 1e9),
            ("relist_steps", 1, 10**9),
            ("log_every", 1, 10**9),
            ("checkpoint_every", 1, 10**9),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidConfig(f"expected --{name.replace('_', '-')} in {low}..{high}, got {value}")
        if self.schedule == "cosine" and self.schedule_steps is None:
            raise InvalidConfig("expected --schedule-steps with --schedule cosine, got none; say where it ends")
        if self.schedule_steps is not None and self.schedule_steps <= self.warmup_steps:
            raise InvalidConfig(
                f"expected --schedule-steps above --warmup-steps {self.warmup_steps}, got {self.schedule_steps}"
            )
