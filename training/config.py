# SPDX-License-Identifier: Apache-2.0
"""Configuration of training; does not import torch, so that the command shows its help at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcts_ext.config import LARGEST_SEED
from mcts_ext.errors import InvalidConfig


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of training."""

    preset: str = "reference"
    """Preset of a new network: `reference` or `small`."""
    init: Path | None = None
    """Checkpoint to start from instead of a new network."""
    seed: int = 0
    """Seed of a new network's weights and of the sampling of positions."""
    batch: int = 512
    """Positions per step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a cosine down to 0 at `schedule_steps`."""
    schedule_steps: int | None = None
    """Step at which the cosine reaches 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay, applied to the weights of linear layers only."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient (clipping)."""
    value_weight: float = 10.0
    """Weight of the value loss relative to the policy loss; squared errors are small."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights stored in checkpoints; lower in the first steps."""
    window_min: int = 250_000
    """Number of positions up to which the window contains all of them: c of the power law."""
    window_exponent: float = 0.75
    """Exponent alpha of the power law."""
    window_slope: float = 0.4
    """Slope beta of the power law: initial growth of the window per new position beyond `window_min`."""
    window_max: int = 4_000_000
    """Maximum size of the window; a position takes 260 bytes of memory."""
    sampling: Literal["uniform", "recent"] = "uniform"
    """Sampling from the window: uniform, or the newer of two draws (the newer a position, the likelier, linearly)."""
    max_reuse: float = 8.0
    """Maximum draws per recorded position over the whole run; training ends early when it is reached."""
    relist_steps: int = 200
    """Steps between two scans for new shards."""
    log_every: int = 50
    """Steps between lines of metrics."""
    checkpoint_every: int = 1000
    """Steps between checkpoints, each with the training state."""
    mixed_precision: bool = False
    """Compute matrix products in bfloat16."""
    compile: bool = False
    """Compile the network with torch.compile; takes a minute at the start."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if available."""

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
            raise InvalidConfig("expected --schedule-steps with --schedule cosine, got none; set its last step")
        if self.schedule_steps is not None and self.schedule_steps <= self.warmup_steps:
            raise InvalidConfig(
                f"expected --schedule-steps above --warmup-steps {self.warmup_steps}, got {self.schedule_steps}"
            )
