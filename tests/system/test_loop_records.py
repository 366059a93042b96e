# SPDX-License-Identifier: Apache-2.0
"""The loop as a trainer: others play, another server serves, and its control API wants a key."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.publishing.publish import ensure_model
from export.publishing.registry import Registry
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.system.test_loop_run import SETTINGS

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(480)]

BLOBZERO = (sys.executable, "-m", "blobzero.cli")


def test_a_loop_learns_from_what_others_record(tmp_path: Path) -> None:
    preset, models, key = tmp_path / "tiny.toml", tmp_path / "models", tmp_path / "key"
    preset.write_text(SETTINGS.replace("generations = 3", "generations = 2"))
    key.write_text("0123456789abcdef0123")
    ensure_model(models, preset="small", seed=1)
    with EmbeddedTriton(ServerConfig(models, log_file=tmp_path / "triton.log", key_file=key)) as triton:
        play = [
            *BLOBZERO,
            "selfplay",
            "--url",
            triton.url,
            "--out",
            str(tmp_path / "runs" / "a"),
            "--rounds",
            "3000",
        ]
        play += ["--seed", "auto", "--cards", "3", "--simulations", "6", "--workers", "1", "--shard-seconds", "1"]
        learn = [*BLOBZERO, "loop", "--preset", str(preset), "--out", str(tmp_path / "loop"), "--url", triton.url]
        learn += ["--records", str(tmp_path / "runs"), "--repository", str(models)]
        player = subprocess.Popen(play, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            without_key = subprocess.run(learn, capture_output=True, text=True, timeout=120, check=False)
            done = subprocess.run(
                [*learn, "--key-file", str(key)], capture_output=True, text=True, timeout=200, check=False
            )
        finally:
            player.terminate()
            player.wait(timeout=30)
    assert without_key.returncode == 1
    assert "--key-file" in without_key.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "loop" / "generations").glob("*.json"))]
    assert [result["generation"] for result in results] == [0, 1]
    recorded = sum(result["selfplay"]["rounds"] + result["selfplay"]["rounds_before"] for result in results)
    assert recorded >= 60 + 80
    assert len({entry.source for entry in Registry(models) if entry.state == "published"}) == 3
