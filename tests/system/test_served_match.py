# SPDX-License-Identifier: Apache-2.0
"""A match between versions of one Triton: both served at once, one that is not served, and a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from training.checkpoint import save_checkpoint
from training.network import create_network

pytestmark = pytest.mark.triton


def test_versions_of_one_server_meet(repository: Path, tmp_path: Path) -> None:
    """The repository has versions 1, 2 and 3 of three networks, and Triton serves the latest two."""
    save_checkpoint(tmp_path / "one.safetensors", create_network("small", seed=0), step=0)
    with EmbeddedTriton(ServerConfig(repository=repository, log_file=tmp_path / "triton.log")) as server:

        def match(*players: str) -> tuple[dict[str, object], str]:
            done = subprocess.run(
                [
                    sys.executable, "-m", "blobzero.cli", "match", *players, "--url", server.url, "--deals", "16",
                    "--simulations", "6", "--seed", "3", "--repository", str(repository), "--json",
                ],
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout), done.stderr

        found, said = match("latest", "version:2", "version:3", "version:1", str(tmp_path / "one.safetensors"))
        with pytest.raises(AssertionError, match="version 9"):
            match("latest", "version:9")
    players = found["players"]
    assert isinstance(players, list)
    assert [player["what"].partition(",")[0] for player in players[:3]] == ["version 3", "version 2", "version 3"]
    assert "version 1 is not served" in said
    scores = [player["score_per_round"] for player in players]
    assert scores[0] != scores[1]
    assert found["deals"] == 16
    assert isinstance(found["evaluations"], int)
    assert found["evaluations"] > 1000
