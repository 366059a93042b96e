# SPDX-License-Identifier: Apache-2.0
"""Whatever starts a Triton starts it with a key and without HTTP."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from blobzero.cli import main
from clients.keys import RESTRICTED
from export.publishing.candidate import ExportOptions
from export.publishing.publish import publish
from serving.errors import ServingError
from training.network import create_network

ROOT = Path(__file__).parents[2]
VERBS: dict[str, list[str]] = {
    "serve": ["--repository", "models"],
    "play": ["--repository", "models"],
    "selfplay": ["--repository", "models", "--out", "out", "--rounds", "10", "--workers", "1"],
    "match": ["latest", "random", "--repository", "models", "--deals", "2"],
    "loadtest": ["--repository", "models", "--concurrency", "1"],
    "tune": ["--repository", "models", "--out", "out"],
    "loop": ["--preset", "demo", "--out", "out"],
    "soak": ["--out", "out", "--minutes", "1", "--faults", "1", "--kinds", "server-kill"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "models"
    publish(create_network("small", seed=1), repository=folder, options=ExportOptions("float32"))
    return folder


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_starts_its_server_with_a_key(
    verb: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def popen(command: list[str], **_: object) -> None:
        started.append(command)
        raise ServingError("seen enough")

    shutil.copytree(models, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    fake = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL, PIPE=subprocess.PIPE)
    monkeypatch.setattr("serving.embedded.subprocess", fake)
    assert main([verb, *VERBS[verb]]) == 1
    (command,) = started
    assert any(word.endswith("/tritonserver") for word in command)
    for flag in ("grpc-restricted-protocol", "http-restricted-api"):
        (given,) = [word for word in command if word.startswith(f"--{flag}")]
        assert re.fullmatch(rf"--{flag}={RESTRICTED}:admin-key=[0-9a-f]{{64}}", given)
    assert "--allow-http=false" in command
    assert {word.partition("=")[2] for word in command if "-address=" in word} == {"127.0.0.1"}


def test_nothing_else_starts_one() -> None:
    """Who finds the binary can start it: one file does, with the command that cannot be had without a key."""
    files = [path for folder in ("blobzero", "clients", "export", "perf", "serving", "training", "ui")
             for path in (ROOT / folder).rglob("*.py")]  # fmt: skip
    finding = {str(path.relative_to(ROOT)) for path in files if "find_installation" in path.read_text()}
    assert finding == {"serving/install.py", "serving/embedded.py"}
    assert (ROOT / "serving" / "embedded.py").read_text().count("subprocess.Popen(") == 1
