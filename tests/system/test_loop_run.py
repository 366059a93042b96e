# SPDX-License-Identifier: Apache-2.0
"""The whole loop against a real Triton: killed again and again, it ends with every round once and nothing left over."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from clients.selfplay.records import shard_paths
from export.publishing.doctor import examine
from export.publishing.registry import Registry
from tests.support.shards import read_shards

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(480)]

SETTINGS = """
network = "small"
generations = 3
rounds = [60, 80]
determinizations = [1, 2]
simulations = [4, 6]
match_search = [2, 6]
c_puct = 0.6
q_scale = 30
match_q_scale = 10
match_even_root = true
dirichlet_fraction = 0.1
temperature = [1.0, 0.5]
players = [3, 4]
cards = [2, 3]
unit = "round"
steps = 12
learning_rate = 3e-3
value_weight = 10
ema_decay = 0.99
window = 100_000
deals = 4
final_deals = 6
bots = ["heuristic"]
bots_every = 2
gate = "better"
"""
N_KILLS = 3


def test_a_loop_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    preset, out = tmp_path / "tiny.toml", tmp_path / "run"
    preset.write_text(SETTINGS)
    command = [sys.executable, "-m", "blobzero.cli", "loop", "--preset", str(preset), "--out", str(out)]
    random = Random(7)
    n_killed = 0
    for _ in range(N_KILLS):
        loop = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            loop.wait(random.uniform(3, 9))
        except subprocess.TimeoutExpired:
            loop.send_signal(signal.SIGKILL)
            loop.wait()
            n_killed += 1
    assert n_killed
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(path.read_text()) for path in sorted((out / "generations").glob("*.json"))]
    assert [result["generation"] for result in results] == [0, 1, 2]
    for generation, rounds in enumerate((60, 70, 80)):
        shards = shard_paths(out / "selfplay" / f"{generation:03}" / "shards")
        found = read_shards(shards)
        keys = list(zip(found.round.tolist(), found.decision.tolist(), strict=True))
        assert len(keys) == len(set(keys))
        assert set(found.round.tolist()) <= set(range(rounds))
        assert len(set(found.round.tolist())) > 0.9 * rounds  # one whose every move was forced leaves no record
    steps = [json.loads(line)["step"] for line in (out / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    published = [entry for entry in Registry(out / "models") if entry.state == "published"]
    assert len({entry.source for entry in published}) == 4  # the untrained network and one of each generation
    assert examine(out / "models") == []
    assert {"before", "heuristic"} == set(results[-1]["matches"])
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0
    assert "finished 3 generations" in again.stderr

    assert subprocess.run(["pgrep", "-f", str(out)], capture_output=True, check=False).returncode == 1
    assert subprocess.run([*command[:3], "report", str(out)], capture_output=True, check=False).returncode == 0
    assert (out / "report.html").stat().st_size > 50_000
