# SPDX-License-Identifier: Apache-2.0
"""The names of version folders: what counts as one, and what the doctor says of those that almost do."""

import shutil
from pathlib import Path

import pytest

from clients.errors import ModelNotFound
from clients.local import latest_model_file
from export.errors import RepositoryError
from export.publishing.doctor import examine, set_right
from export.publishing.publish import publish
from export.publishing.registry import Registry
from export.publishing.repository import numbers, versions
from mcts_ext.contract import MODEL_NAME
from mcts_ext.versions import LAST_VERSION, is_left_out, is_mistaken, version_number
from training.checkpoint import save_checkpoint
from training.network import create_network


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    save_checkpoint(folder / "a.safetensors", create_network("small", seed=1), step=1)
    publish(folder / "a.safetensors", repository=folder / "models")
    return folder


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    """One published version."""
    shutil.copytree(published / "models", tmp_path / "models")
    return tmp_path / "models"


def test_names() -> None:
    found = ["0", "1", "17", str(LAST_VERSION)]
    assert [version_number(name) for name in found] == [0, 1, 17, LAST_VERSION]
    left_out = ["02", "00", "01", "007", "0x"]
    mistaken = ["2x", "2.bak", "+2", "-2", " 2", str(LAST_VERSION + 1), "9" * 5000]
    others = ["", "configs", "٣", "²", "x2", ".2"]
    for name in (*left_out, *mistaken, *others):
        assert version_number(name) is None, name
    assert [name for name in (*found, *left_out, *mistaken, *others) if is_left_out(name)] == left_out
    assert [name for name in (*found, *left_out, *mistaken, *others) if is_mistaken(name)] == mistaken


@pytest.mark.parametrize("name", ["02", "٣", "2.bak", str(LAST_VERSION + 1)])
def test_only_what_triton_serves_counts(name: str, repository: Path) -> None:
    folder = repository / MODEL_NAME
    shutil.copytree(folder / "1", folder / name)
    assert numbers(repository) == versions(repository) == [1]
    assert latest_model_file(repository, MODEL_NAME) == folder / "1" / "model.onnx"
    shutil.rmtree(folder / "1")
    with pytest.raises(ModelNotFound):
        latest_model_file(repository, MODEL_NAME)


def test_the_doctor_s_cure_for_a_leading_zero_works(repository: Path) -> None:
    folder = repository / MODEL_NAME
    shutil.copytree(folder / "1", folder / "02")
    (finding,) = examine(repository)
    assert str(folder / "02") in finding.what
    assert f"rename it to {folder / '2'}, then: blobzero doctor --mend" in finding.mend
    (folder / "02").rename(folder / "2")
    set_right(repository)
    assert examine(repository) == []
    assert Registry(repository).published() == [1, 2]
    shutil.copytree(folder / "1", folder / "01")  # its number is taken
    assert [found.mend for found in examine(repository)] == [f"move it out of {folder}"]


def test_the_doctor_names_what_keeps_a_model_from_loading(repository: Path) -> None:
    (repository / MODEL_NAME / "2.bak").mkdir()
    (finding,) = examine(repository)
    assert (finding.what.split()[0], finding.mend) == (
        f"{repository / MODEL_NAME / '2.bak'}",
        f"move it out of {repository / MODEL_NAME}",
    )


def test_there_is_a_last_version(repository: Path, published: Path) -> None:
    folder = repository / MODEL_NAME
    shutil.copytree(folder / "1", folder / str(LAST_VERSION))
    set_right(repository)
    with pytest.raises(RepositoryError, match="the largest Triton supports"):
        publish(published / "a.safetensors", repository=repository)
    assert versions(repository) == [1, LAST_VERSION]
