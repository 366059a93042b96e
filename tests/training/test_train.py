# SPDX-License-Identifier: Apache-2.0
"""Training runs: what they leave behind, that they go on exactly however they ended, and when they end early."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from blobzero.cli import main
from mcts_ext.errors import BlobError, InvalidConfig
from tests.support.recorded import record
from tests.support.train_and_kill import CONFIG
from training.checkpoint import load_checkpoint, save_checkpoint
from training.learner import Learner
from training.metrics import read_metrics
from training.network import create_network
from training.replay import ReplayError
from training.state import StateError, load_state
from training.trainer import METRICS, STATE, Progress, TrainReport, checkpoint_path, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("records") / "run1", rounds=300, cards=(3,), kind="uniform").parent


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side, and PyTorch's threads wait for each other by spinning."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def curve(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics without what a clock says."""
    return [{k: v for k, v in line.items() if k != "rows_per_s"} for line in read_metrics(out / METRICS)]


def same(one: Path, two: Path) -> None:
    """Two folders hold the same run."""
    assert curve(one) == curve(two)
    first, second = load_state(one / STATE), load_state(two / STATE)
    assert replace(first, tensors={}, shards=[]) == replace(second, tensors={}, shards=[])
    assert [entry.rows for entry in first.shards] == [entry.rows for entry in second.shards]
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name
    mean = load_file(checkpoint_path(one, first.step))
    assert all(torch.equal(tensor, mean[name]) for name, tensor in load_file(checkpoint_path(two, first.step)).items())


@pytest.fixture(scope="module")
def whole(records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainReport]:
    """A run of 123 steps that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    return out, train(CONFIG, records=[records], out=out, until_step=123)


def test_what_a_run_leaves_behind(whole: tuple[Path, TrainReport], records: Path) -> None:
    out, report = whole
    assert (report.step, report.resumed_from, report.reason) == (123, 0, "done")
    assert report.positions_drawn == 123 * 64
    assert report.shards == len(list(records.rglob("*.parquet"))) > 3
    assert report.positions_available == report.window > 2500
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}.safetensors" for step in [*range(10, 121, 10), 123]]
    network, info = load_checkpoint(report.checkpoint)
    assert (info.step, info.preset, info.seed) == (123, "small", 0)
    state = load_state(out / STATE)
    assert all(torch.equal(tensor, state.tensors[f"ema.{name}"]) for name, tensor in network.state_dict().items())
    assert any(
        not torch.equal(tensor, state.tensors[f"network.{name}"]) for name, tensor in network.state_dict().items()
    )
    assert [line["step"] for line in curve(out)] == list(range(4, 121, 4))
    assert report.metrics == read_metrics(out / METRICS)[-1]
    assert list((out / "tensorboard").glob("events.*"))


def test_the_loss_falls(whole: tuple[Path, TrainReport]) -> None:
    lines = curve(whole[0])
    first, last = lines[0], lines[-5:]
    for name, share in (("policy_kl", 0.97), ("value_loss", 0.7)):
        assert sum(line[name] for line in last) / 5 < share * first[name], name


def test_killed_at_ten_moments_it_ends_as_if_it_never_was(
    whole: tuple[Path, TrainReport], records: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.support.train_and_kill", str(records), str(tmp_path / "run"), "123", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8
    same(whole[0], tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == [line["step"] for line in curve(whole[0])]


def test_stopped_between_two_steps_it_goes_on_the_same(
    whole: tuple[Path, TrainReport], records: Path, tmp_path: Path
) -> None:
    steps: list[int] = []

    def at(step: int) -> Callable[[], bool]:
        return lambda: bool(steps) and steps[-1] >= step

    def note(progress: Progress) -> None:
        steps.append(progress.step)

    for stop in (6, 33, 34):
        report = train(CONFIG, records=[records], out=tmp_path, until_step=123, on_progress=note, should_stop=at(stop))
        assert (report.step, report.reason) == (stop, "stopped")
        assert report.checkpoint.exists()
    report = train(CONFIG, records=[records], out=tmp_path, until_step=123, on_progress=note)
    assert (report.resumed_from, report.reason) == (34, "done")
    assert steps == list(range(1, 124))
    again = train(CONFIG, records=[records], out=tmp_path, until_step=100)
    assert (again.step, again.reason, again.metrics) == (123, "done", report.metrics)
    for name in ("6", "33", "34"):
        checkpoint_path(tmp_path, int(name)).unlink()
    same(whole[0], tmp_path)


def test_a_run_that_samples_the_recent_goes_on_the_same(records: Path, tmp_path: Path) -> None:
    recent = replace(CONFIG, sampling="recent")
    train(recent, records=[records], out=tmp_path / "whole", until_step=30)
    for step in (13, 30):
        train(recent, records=[records], out=tmp_path / "halves", until_step=step)
    same(tmp_path / "whole", tmp_path / "halves")
    train(CONFIG, records=[records], out=tmp_path / "uniform", until_step=30)
    assert curve(tmp_path / "uniform") != curve(tmp_path / "whole")


def test_it_ends_before_positions_are_drawn_too_often_and_goes_on_with_more(tmp_path: Path) -> None:
    config = replace(CONFIG, max_reuse=2.0)
    record(tmp_path / "data", rounds=60)
    first = train(config, records=[tmp_path / "data"], out=tmp_path / "run", until_step=1000)
    assert first.reason == "reuse"
    assert first.step == 2 * first.positions_available // 64
    record(tmp_path / "data", rounds=90)
    second = train(config, records=[tmp_path / "data"], out=tmp_path / "run", until_step=1000)
    assert second.resumed_from == first.step
    assert second.step == 2 * second.positions_available // 64 > first.step


def test_shards_that_appear_while_it_trains_are_taken_up(tmp_path: Path) -> None:
    record(tmp_path / "data", rounds=60)

    def play_on(progress: Progress) -> None:
        if progress.step == 3:
            record(tmp_path / "data", rounds=90)

    report = train(CONFIG, records=[tmp_path], out=tmp_path / "run", until_step=12, on_progress=play_on)
    windows = {line["step"]: line["window"] for line in curve(tmp_path / "run")}
    assert windows[4] < windows[8] == windows[12] == report.positions_available


def test_a_run_begins_with_a_checkpoint(records: Path, tmp_path: Path) -> None:
    network = create_network("small", seed=77)
    save_checkpoint(tmp_path / "first.safetensors", network, step=5, seed=77)
    config = replace(CONFIG, init=tmp_path / "first.safetensors", learning_rate=1e-9)
    report = train(config, records=[records], out=tmp_path / "run", until_step=1)
    found, info = load_checkpoint(report.checkpoint)
    assert info.seed == 77
    for one, two in zip(found.parameters(), network.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-7)


def test_what_may_change_and_what_may_not(records: Path, tmp_path: Path) -> None:
    events: list[str] = []
    train(CONFIG, records=[records], out=tmp_path, until_step=2)
    slower = replace(CONFIG, learning_rate=1e-4)
    train(slower, records=[records], out=tmp_path, until_step=4, on_event=events.append)
    assert events == ["learning_rate 0.001 until step 2, 0.0001 from here on"]
    for other in (replace(CONFIG, seed=1), replace(CONFIG, preset="reference")):
        with pytest.raises(StateError, match="as in") as error:
            train(other, records=[records], out=tmp_path, until_step=9)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("spoiled", [b"", b"\x00" * 64, None])
def test_a_broken_state_is_refused(spoiled: bytes | None, records: Path, tmp_path: Path) -> None:
    train(CONFIG, records=[records], out=tmp_path, until_step=1)
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:-1000] if spoiled is None else spoiled)
    before = state.read_bytes()
    with pytest.raises(StateError, match="expected a training state") as error:
        train(CONFIG, records=[records], out=tmp_path, until_step=2)
    assert "\n" not in str(error.value)
    assert state.read_bytes() == before


def test_losses_that_are_not_finite_end_it_and_leave_the_state(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CONFIG, records=[records], out=tmp_path, until_step=4)
    before = (tmp_path / STATE).read_bytes()
    monkeypatch.setattr("training.learner.losses", infinite)
    with pytest.raises(StateError, match="expected finite losses"):
        train(CONFIG, records=[records], out=tmp_path, until_step=8)
    assert (tmp_path / STATE).read_bytes() == before
    assert [line["step"] for line in curve(tmp_path)] == [4]


def infinite(logits: torch.Tensor, value: torch.Tensor, **_: Any) -> Any:
    from training.learner import Losses

    total = logits.sum() * torch.inf
    return Losses(total, total, total, value.sum())


def test_the_random_state_of_the_caller_stays(records: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(CONFIG, records=[records], out=tmp_path, until_step=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "--batch"),
        ({"schedule": "cosine"}, "--schedule-steps"),
        ({"schedule_steps": 5, "warmup_steps": 5}, "--warmup-steps"),
        ({"learning_rate": -1.0}, "--learning-rate"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        replace(CONFIG, **settings)


@pytest.mark.parametrize("settings", [{"preset": "huge"}, {"init": Path("nowhere")}])
def test_what_is_not_there(settings: dict[str, Any], records: Path, tmp_path: Path) -> None:
    with pytest.raises(BlobError) as error:
        train(replace(CONFIG, **settings), records=[records], out=tmp_path / "run", until_step=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["abacus", "meta", "mps", "mkldnn", "", "cuda:99"])
def test_a_device_that_nothing_is_computed_on(device: str, records: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"--device .*, got") as error:
        train(replace(CONFIG, device=device), records=[records], out=tmp_path / "run", until_step=1)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="expected shards of records"):
        train(CONFIG, records=[tmp_path], out=tmp_path / "run", until_step=1)
    assert not (tmp_path / "run").exists()


def test_mixed_precision_learns_too(records: Path, tmp_path: Path) -> None:
    report = train(replace(CONFIG, mixed_precision=True), records=[records], out=tmp_path, until_step=8)
    exact = train(CONFIG, records=[records], out=tmp_path / "exact", until_step=8)
    assert report.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=0.02)
    assert report.metrics["loss"] != exact.metrics["loss"]


def arguments(records: Path, out: Path, *more: str) -> list[str]:
    where = ["train", "--records", str(records), "--out", str(out)]
    return [*where, "--preset", "small", "--batch", "32", "--log-every", "10", "--window-max", "20000", *more]


def test_the_command(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(records, tmp_path / "run", "--steps", "20", "--json")) == 0
    found = capsys.readouterr()
    report = json.loads(found.out)
    assert report["step"] == 20
    assert Path(report["checkpoint"]).exists()
    assert "blobzero publish" in found.err
    assert main(arguments(records, tmp_path / "run", "--seed", "3")) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("blobzero:")]
    assert "expected --seed 0" in line


def test_sigterm_ends_the_command_in_order(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Learner.step

    def interrupted(learner: Learner, *given: Any) -> Any:
        if given[-1] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(learner, *given)

    monkeypatch.setattr(Learner, "step", interrupted)
    assert main(arguments(records, tmp_path / "run", "--steps", "20")) == 143
    assert load_state(tmp_path / "run" / STATE).step == 6
    assert main(arguments(records, tmp_path / "run", "--steps", "8")) == 0
    assert load_state(tmp_path / "run" / STATE).step == 8
