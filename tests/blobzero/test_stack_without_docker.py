# SPDX-License-Identifier: Apache-2.0
"""The verbs of the stack where there is no Docker, or none that does its work: one line that says what to do."""

from pathlib import Path

import pytest

from blobzero.cli import main
from blobzero.stack import compose as stack

CHECKOUT = str(Path(__file__).parents[2])
VERBS = (["up", "--cpu"], ["down"], ["status"], ["logs"], ["scale", "2"])


def docker(folder: Path, script: str) -> None:
    """A command `docker` of our own."""
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)


def refused(verb: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line it says; `up` says before what it takes."""
    assert main([*verb, "--project", CHECKOUT]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if not line.startswith("compose.yaml")]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only one where commands are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_no_docker_is_said(verb: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    says = "blobzero: expected Docker with Compose v2, got No such file or directory: docker; install both"
    assert refused(verb, capfd) == says


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_an_engine_that_is_not_there_is_said(verb: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    docker(folder, '[ "$1" = compose ] && exit 0; echo "Client: 28"; echo; echo "Cannot connect to it" >&2; exit 1')
    says = "blobzero: expected a Docker engine that answers, got Cannot connect to it; start it, or set DOCKER_HOST"
    assert refused(verb, capfd).startswith(says)


def test_an_engine_that_hangs_is_not_waited_for(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(folder, '[ "$1" = compose ] || exec /bin/sleep 60')
    monkeypatch.setattr(stack, "ANSWER_TIMEOUT_S", 0.5)
    assert "expected a Docker engine that answers, got none within 0.5 s; start it" in refused(["status"], capfd)


def test_what_compose_has_said_is_not_told_as_a_stack_of_calls(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    docker(folder, '[ "$1" = version ] || [ "$2" = version ] || exit 17')
    last = refused(["down"], capfd)
    assert last.startswith("blobzero: expected Docker to stop the stack, got status 17, for the reason above; ")
