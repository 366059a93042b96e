# SPDX-License-Identifier: Apache-2.0
"""What the real server makes of version folders that are named oddly, and that ours say the same."""

import shutil
from pathlib import Path

import pytest

from export.publishing.repository import numbers
from export.publishing.server import ModelServer
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ModelNotServable
from tests.support.tiny_model import MODEL, write_repository


def serve(root: Path) -> list[int]:
    """The versions that a server on a repository has ready."""
    config = ServerConfig(repository=root / "models", log_file=root / "triton.log")
    with EmbeddedTriton(config) as server, ModelServer(server.url) as control:
        return [version for version, state in sorted(control.states().items()) if state == "READY"]


def repository(root: Path, *names: str) -> Path:
    """A repository with these version folders, all of the same network; the model's folder."""
    folder = write_repository(root / "models") / MODEL
    with (folder / "config.pbtxt").open("a") as file:
        file.write("version_policy { all { } }\n")
    for name in names:
        shutil.copytree(folder / "1", folder / name)
    return folder


def test_a_leading_zero_is_left_out_and_its_cure_works(tmp_path: Path) -> None:
    folder = repository(tmp_path, "0", "02", "٣")
    (folder / "3").write_text("a file")
    served = serve(tmp_path)
    (folder / "3").unlink()
    assert served == numbers(tmp_path / "models") == [0, 1]
    (folder / "02").rename(folder / "2")  # what the doctor says
    assert serve(tmp_path) == numbers(tmp_path / "models") == [0, 1, 2]


@pytest.mark.parametrize("name", ["02", "2x", "2.bak", "+2", " 2", str(2**63)])
def test_a_name_that_the_server_stumbles_over_is_refused_before_it_starts(name: str, tmp_path: Path) -> None:
    folder = repository(tmp_path, name)
    if name == "02":  # alone: nothing is served
        shutil.rmtree(folder / "1")
    with pytest.raises(ModelNotServable) as caught:
        serve(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "triton.log").exists()
