# SPDX-License-Identifier: Apache-2.0
"""Paths that a shell would read as more than a path: what they name is served, and nothing in them is run."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from export.publishing.candidate import ExportOptions
from export.publishing.publish import publish
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ModelNotServable, ServerStartFailed, ServingError
from serving.folders import lay_out
from serving.install import Installation
from tests.support.tiny_model import write_repository
from training.network import create_network

ROOT = Path(__file__).parent.parent.parent
ALL = " ".join(
    (
        "a space",
        "\u00fc",
        "$(touch planted)",
        "`touch planted`",
        "a;touch planted;b",
        "a\nline",
        'two: one "quoted", one\'',
        os.fsdecode(b"not utf-8 \xff"),
    )
)
"""In one name, for each start of a server takes a second; a file system takes 255 bytes."""


@pytest.fixture(autouse=True)
def nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def planted(folder: Path) -> list[Path]:
    """What a command in a name has left, in the places where a server or its shell may have run."""
    return [path for place in (folder, ROOT, Path.cwd()) for path in place.glob("planted*")]


@pytest.mark.triton
def test_versions_are_published_to_such_a_repository(tmp_path: Path) -> None:
    repository = tmp_path / ALL / "models"
    publish(create_network("small", seed=1), repository=repository, options=ExportOptions("float32"))
    with EmbeddedTriton(ServerConfig(repository, log_file=tmp_path / ALL / "log", start_timeout_s=20.0)) as server:
        report = publish(
            create_network("small", seed=2), repository=repository, url=server.url, options=ExportOptions("float32")
        )
        assert report.version == 2
        server.infer_once(timeout_s=5)
        server.restart()
    assert planted(tmp_path) == []


@pytest.mark.triton
def test_a_folder_for_temporary_files_may_have_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ALL
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    repository = write_repository(tmp_path / "models")
    with EmbeddedTriton(ServerConfig(repository, start_timeout_s=20.0)) as server:
        assert server.log_file.parent == folder
    assert not server.folder.exists()
    assert planted(tmp_path) == []


@pytest.mark.triton
def test_the_project_and_the_environment_may_have_any_path(tmp_path: Path) -> None:
    """Links of such names to both: Python takes the path it is started by for that of its environment."""
    home = tmp_path / ALL
    home.mkdir()
    (home / "environment").symlink_to(sys.prefix)
    project = home / "project"
    project.mkdir()
    for package in ("mcts_ext", "serving", "tests"):
        (project / package).symlink_to(ROOT / package)
    code = (
        "import os, sys; sys.path.insert(0, os.getcwd()); import serving.install as install; from pathlib import Path; "
        "install.PROJECT = Path.cwd(); from serving.embedded import EmbeddedTriton as E, ServerConfig as C; "
        "server = E(C(Path(sys.argv[1]), log_file=Path(sys.argv[2]), start_timeout_s=20.0)); server.start(); "
        "print(sys.prefix.encode('utf-8', 'surrogateescape')); server.stop()"
    )
    repository = write_repository(tmp_path / "models")
    done = subprocess.run(
        [home / "environment" / "bin" / "python", "-c", code, repository, tmp_path / "log"],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.strip() == str(os.fsencode(home / "environment"))
    assert planted(project) == []


@pytest.mark.triton
def test_a_stub_finds_no_modules_in_the_user_s_folder(tmp_path: Path) -> None:
    for name in ("queue", "json", "random", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(1)")
    with EmbeddedTriton(ServerConfig(write_repository(tmp_path / "models"), start_timeout_s=20.0)) as server:
        server.infer_once(timeout_s=5)


@pytest.mark.parametrize("name", ["a b", "$(touch planted)", "../models", "", "-x", "a\nb"])
def test_a_model_s_name_that_a_shell_reads_as_more_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotServable, match="expected a model name of letters, digits"):
        EmbeddedTriton(ServerConfig(write_repository(tmp_path / "models"), model=name)).start()


def test_a_repository_that_can_not_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match=r"expected a model repository at .* File name too long"):
        EmbeddedTriton(ServerConfig(tmp_path / ("x" * 300))).start()


def test_no_place_for_the_server_s_folder_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    repository = write_repository(tmp_path / "models")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a b"))
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(ServingError, match=r"special characters of the shell in .*a b.*No space left"):
        EmbeddedTriton(ServerConfig(repository, log_file=tmp_path / "log")).start()


@pytest.mark.triton
def test_a_backend_that_does_not_start_is_reported_at_once_by_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(folder: Path, installation: Installation, repository: Path) -> dict[str, str]:
        environment = lay_out(folder, installation, repository)
        stub = folder / "backends" / "python" / installation.stub.name
        stub.write_text("#!/bin/sh\necho this stub ends >&2; exit 3\n")
        return environment

    monkeypatch.setattr("serving.embedded.lay_out", spoiled)
    server = EmbeddedTriton(ServerConfig(write_repository(tmp_path / "models"), log_file=tmp_path / "log"))
    began = time.monotonic()
    with pytest.raises(ServerStartFailed, match=r"backend to start, but it has died: this stub ends; see .*log"):
        server.start()
    assert time.monotonic() - began < 15  # Triton itself would wait on, and we for a minute
    assert not server.is_alive()
