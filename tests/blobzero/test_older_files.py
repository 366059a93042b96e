# SPDX-License-Identifier: Apache-2.0
"""Files written by commit 3e4d01a, before the packages were rearranged, are still read and continued.

`tests/golden/before.tar.xz` holds what that commit wrote: a self-play run, a training run of a network of 4 units, a
model repository with that network, and a learning loop that waited for rounds of others.
"""

import json
import tarfile
from pathlib import Path

import pytest

from blobzero.cli import main
from clients.selfplay.records import finished_rounds, shard_paths
from export.publishing.registry import Registry
from tests.clients.test_lock import running
from tests.support.shards import read_keys
from training.checkpoint import load_checkpoint

ARCHIVE = Path(__file__).parents[1] / "golden" / "before.tar.xz"


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_self_play_run_goes_on(older: Path) -> None:
    flags = ["--evaluator", "uniform", "--workers", "1", "--games", "4", "--simulations", "4"]
    assert main(["selfplay", *flags, "--rounds", "16", "--out", "run"]) == 0
    shards = older / "run" / "shards"
    assert finished_rounds(shards) == set(range(16))
    keys = [key for path in shard_paths(shards) for key in zip(*(c.tolist() for c in read_keys(path)), strict=True)]
    assert len(keys) == len(set(keys))
    assert json.loads((older / "run" / "run.json").read_text())["seed"] == 7


def test_training_goes_on(older: Path) -> None:
    flags = ["--preset", "small", "--batch", "8", "--window-max", "1000", "--max-reuse", "100000"]
    assert main(["train", "--records", "run", "--out", "train", *flags, "--steps", "4"]) == 0
    files = [older / "train" / "checkpoints" / f"step-0000000{step}.safetensors" for step in (2, 4)]
    before, after = (load_checkpoint(file)[1] for file in files)
    assert (before.step, after.step) == (2, 4)
    assert before.config == after.config
    assert before.config.width == 4  # of the folder, not of today's preset


def test_a_repository_is_sound_and_takes_the_next_version(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--repository", "models"]) == 0
    assert "no problems found" in capsys.readouterr().out
    checkpoint = "train/checkpoints/step-00000002.safetensors"
    assert main(["publish", checkpoint, "--repository", "models", "--precision", "float32"]) == 0
    assert [entry.version for entry in Registry(older / "models")] == [1, 2]


def test_a_loop_goes_on(older: Path) -> None:
    flags = ["loop", "--records", "records", "--url", "127.0.0.1:9", "--out", "loop", "--preset", "demo"]
    before = json.loads((older / "loop" / "loop.json").read_text())
    with running(older, *flags, until="loop/generations") as loop:
        assert loop.poll() is None
    assert json.loads((older / "loop" / "loop.json").read_text()) == before
    assert before["seed"] == 3
