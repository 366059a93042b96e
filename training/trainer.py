# SPDX-License-Identifier: Apache-2.0
"""Training run: from shards of records to checkpoints, in a folder where it can be stopped and resumed at any time.

```
out/state.safetensors                   state from which the run resumes (state.py)
out/checkpoints/step-%08d.safetensors   EMA of the weights, for blobzero publish
out/metrics.jsonl, out/tensorboard/     metrics
```
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from clients.lock import sole_writer
from mcts_ext.errors import InvalidConfig
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.learner import Learner, learning_rate
from training.metrics import Metrics, read_metrics
from training.network import BlobNet, NetworkConfig, create_network
from training.replay import Replay, window_size
from training.state import StateError, TrainState, load_state, save_state

STATE: Final = "state.safetensors"
METRICS: Final = "metrics.jsonl"
FIXED: Final = ("preset", "init", "seed")
"""Settings that a resumed run cannot change."""
SUMS: Final = ("loss", "policy_loss", "policy_kl", "value_loss", "grad_norm", "steps")
"""Quantities summed between two lines of metrics."""

Reason = Literal["done", "stopped", "reuse"]


@dataclass(frozen=True)
class Progress:
    """Progress of a run after a step."""

    step: int
    metrics: Mapping[str, Any]
    """The latest line of metrics.jsonl; empty before the first."""


@dataclass(frozen=True)
class TrainReport:
    """Result of a call of `train`."""

    step: int
    """Total steps of the run."""
    resumed_from: int
    reason: Reason
    """Why it ended: `done`; `stopped` by request; `reuse`: each position was drawn `max_reuse` times, record more."""
    checkpoint: Path
    """Checkpoint of `step`."""
    positions_drawn: int
    """Positions drawn over the whole run."""
    positions_available: int
    """Positions in all usable shards."""
    window: int
    shards: int
    set_aside: Mapping[str, str]
    """Skipped shards and the reasons."""
    rounds_again: int
    """Number of duplicate rounds, which are used once."""
    seconds: float
    rows_per_s: float
    """Overall rate of this call."""
    metrics: Mapping[str, Any]
    """The latest line of metrics.jsonl."""


def checkpoint_path(out: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return out / "checkpoints" / f"step-{step:08d}.safetensors"


def train(
    config: TrainConfig,
    *,
    records: Sequence[Path],
    out: Path,
    until_step: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_event: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train until the run in `out` has taken `until_step` steps, resuming an existing run.

    With the same shards and configuration, a resumed run continues exactly as an uninterrupted one. It returns early,
    between two steps, if `should_stop` returns true, or if positions would be drawn more than `config.max_reuse` times
    on average: call it again when there are more. Nothing in `out` changes if the steps are already taken.

    Args:
        records: folders of runs, or folders that contain runs; shards may be added meanwhile.
        on_progress: called after every step.
        on_event: called with one line for users (skipped shards, duplicate rounds, changed settings).

    Raises:
        ReplayError: if there is no usable shard.
        StateError: if the state in `out` cannot be read or written, or belongs to another run.
        CheckpointError: if `config.init` cannot be read, or a checkpoint cannot be written.
        InvalidConfig: if the preset or device is unknown.
        FolderBusy, FolderUnwritable: if another process trains in `out`, or `out` cannot be written.
    """
    with sole_writer(out), torch.random.fork_rng(devices=[]):  # keep the caller's random state
        try:
            run = _Run(config, records, out, on_event)
            return run.go(until_step, on_progress, should_stop)
        except OSError as error:
            raise StateError(
                f"expected to read and write {out}, got {error}; check its disk, then run the same command again"
            ) from error


class _Run:
    """State of one call of `train`."""

    def __init__(
        self, config: TrainConfig, records: Sequence[Path], out: Path, on_event: Callable[[str], None]
    ) -> None:
        self.config, self.out, self.on_event = config, out, on_event
        self.device = _device(config.device)
        state = load_state(out / STATE) if (out / STATE).exists() else None
        if state is not None:
            self._check_same_run(state)
        limit = partial(
            window_size,
            minimum=config.window_min,
            exponent=config.window_exponent,
            slope=config.window_slope,
            maximum=config.window_max,
        )
        self.replay = Replay(
            records,
            relative_to=out,
            capacity=config.window_max,
            window=limit,
            recent=config.sampling == "recent",
            on_event=on_event,
        )
        if state is not None:
            self.replay.restore(state.shards)
        self.replay.find_new()
        self.replay.check_not_empty()
        self.random = np.random.default_rng(config.seed)
        self.sums = torch.zeros(len(SUMS), dtype=torch.float64, device=self.device)
        self.step = self.resumed_from = self.n_drawn = 0
        if state is None:
            network, self.seed = _first_network(config)
            self.learner = Learner(network, config, self.device)
            torch.manual_seed(config.seed)
        else:
            self._restore(state)

    def go(
        self, until_step: int, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> TrainReport:
        started = self.line_started = time.monotonic()
        reason: Reason = "done"
        self.out.mkdir(parents=True, exist_ok=True)
        self.latest: Mapping[str, Any] = next(reversed(read_metrics(self.out / METRICS, until=self.step)), {})
        if self.step < until_step:
            with Metrics(self.out, step=self.step) as metrics:
                while self.step < until_step:
                    if should_stop():
                        reason = "stopped"
                        break
                    if self.step % self.config.relist_steps == 0 or not self._may_draw():
                        self.replay.find_new()
                    if not self._may_draw():
                        reason = "reuse"
                        break
                    self._take_step(metrics)
                    on_progress(Progress(self.step, self.latest))
                    if self.step % self.config.checkpoint_every == 0 and self.step < until_step:
                        self._save(metrics)
                self._save(metrics)
        seconds = time.monotonic() - started
        return TrainReport(
            step=self.step,
            resumed_from=self.resumed_from,
            reason=reason,
            checkpoint=checkpoint_path(self.out, self.step),
            positions_drawn=self.n_drawn,
            positions_available=self.replay.n_total,
            window=self.replay.window,
            shards=sum(entry.rows > 0 for entry in self.replay.entries),
            rounds_again=sum(entry.n_again for entry in self.replay.entries),
            set_aside=dict(self.replay.set_aside),
            seconds=round(seconds, 3),
            rows_per_s=round((self.step - self.resumed_from) * self.config.batch / max(seconds, 1e-9), 1),
            metrics=self.latest,
        )

    def _may_draw(self) -> bool:
        return self.n_drawn + self.config.batch <= self.config.max_reuse * self.replay.n_total

    def _take_step(self, metrics: Metrics) -> None:
        positions = self.replay.draw(self.config.batch, self.random)
        losses, norm = self.learner.step(positions, self.step)
        self.sums += torch.stack([*losses, norm, torch.ones_like(norm)])
        self.step += 1
        self.n_drawn += self.config.batch
        if self.step % self.config.log_every == 0:
            *means, n_steps = self._finite_sums()  # synchronizes with the device
            now = time.monotonic()
            self.latest = {
                "step": self.step,
                **{name: total / n_steps for name, total in zip(SUMS, means, strict=False)},
                "learning_rate": learning_rate(self.step - 1, self.config),
                "rows_per_s": round(self.config.log_every * self.config.batch / (now - self.line_started), 1),
                "window": self.replay.window,
                "positions_available": self.replay.n_total,
                "positions_drawn": self.n_drawn,
            }
            metrics.add(self.latest)
            self.sums.zero_()
            self.line_started = now

    def _finite_sums(self) -> list[float]:
        sums: list[float] = self.sums.tolist()
        if not np.isfinite(sums).all():
            raise StateError(
                f"expected finite losses and gradients, got {sums} before step {self.step}; "
                f"resume from the last state in {self.out} with a lower --learning-rate"
            )
        return sums

    def _save(self, metrics: Metrics) -> None:
        """Write checkpoint, metrics and state, in this order: a state may rely on the files before it."""
        self._finite_sums()
        save_checkpoint(checkpoint_path(self.out, self.step), self.learner.ema, step=self.step, seed=self.seed)
        metrics.sync()
        tensors = {**self.learner.tensors(), "sums": self.sums, "torch.random": torch.get_rng_state()}
        state = TrainState(
            step=self.step,
            n_drawn=self.n_drawn,
            seed=self.seed,
            network=asdict(self.learner.network.config),
            config=_plain(self.config),
            shards=self.replay.entries,
            generator=dict(self.random.bit_generator.state),
            tensors=tensors,
        )
        save_state(self.out / STATE, state)

    def _check_same_run(self, state: TrainState) -> None:
        for name, value in _plain(self.config).items():
            before = state.config.get(name)
            if before != value and name in FIXED:
                raise StateError(
                    f"expected --{name} {before} as in {self.out / STATE}, got {value}; "
                    "use the same value, or choose another --out"
                )
            if before != value:
                self.on_event(f"{name} {before} until step {state.step}, {value} from here on")

    def _restore(self, state: TrainState) -> None:
        network = BlobNet(NetworkConfig(**state.network))
        self.learner = Learner(network, self.config, self.device)
        try:
            self.learner.restore(state.tensors, step=state.step)
            self.sums.copy_(state.tensors["sums"])
            torch.set_rng_state(state.tensors["torch.random"])
            self.random.bit_generator.state = state.generator
        except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise StateError(
                f"expected a complete state at {self.out / STATE}, got {text}; train in another folder"
            ) from error
        self.step = self.resumed_from = state.step
        self.n_drawn, self.seed = state.n_drawn, state.seed


def _first_network(config: TrainConfig) -> tuple[BlobNet, int | None]:
    if config.init is None:
        return create_network(config.preset, seed=config.seed), config.seed
    network, info = load_checkpoint(config.init)
    return network, info.seed


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", name):  # PyTorch accepts other names without having kernels for them
        raise InvalidConfig(f"expected --device auto, cpu, cuda or cuda:N, got {name!r}; choose one of them")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfig(f"expected a GPU for --device {name}, got: {reason}; choose cpu or auto") from error
    return device


def _plain(config: TrainConfig) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return fields
