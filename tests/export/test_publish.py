# SPDX-License-Identifier: Apache-2.0
"""Versions on disk and in the registry: published, brought back, taken out, mended, examined. No server here."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from blobzero.cli import main
from clients.lock import FolderBusy
from export.errors import InvalidModel, RegistryError, RepositoryError
from export.graph import read_metadata
from export.precisions import PRECISIONS
from export.publishing.candidate import ExportOptions, build_candidate
from export.publishing.config import config_path, ensure_config
from export.publishing.doctor import examine, set_right
from export.publishing.publish import ensure_model, publish, rollback, unpublish
from export.publishing.registry import Entry, Registry, exclusive
from export.publishing.repository import model_path, version_folder, versions
from mcts_ext.errors import InvalidConfig
from training.checkpoint import CheckpointError, describe, save_checkpoint
from training.network import create_network


def state(repository: Path) -> dict[int, str]:
    return {entry.version: entry.state for entry in Registry(repository)}


def network_of(repository: Path, version: int) -> str:
    return read_metadata(model_path(repository, version))["weights_sha256"]


def test_ensure_model_publishes_once(tmp_path: Path) -> None:
    assert ensure_model(tmp_path, preset="small", seed=5) == 1
    before = model_path(tmp_path, 1).stat()
    assert ensure_model(tmp_path, preset="small", seed=6) == 1
    assert model_path(tmp_path, 1).stat() == before
    assert network_of(tmp_path, 1) == describe(create_network("small", seed=5)).weights_sha256
    assert read_metadata(model_path(tmp_path, 1))["seed"] == "5"


def test_what_is_published_is_in_the_registry_with_its_origin_and_figures(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", create_network("small", seed=1), step=40)
    report = publish(tmp_path / "a.safetensors", repository=tmp_path / "models", options=ExportOptions("int8"))
    entry = Registry(tmp_path / "models").get(1)
    assert entry is not None
    assert (entry.state, entry.source) == ("published", str(tmp_path / "a.safetensors"))
    assert (entry.properties["step"], entry.properties["precision"]) == ("40", "int8")
    assert entry.parity["mean_policy_kl"] == report.candidate.parity["onnx int8"].mean_policy_kl
    assert entry.parity["n_rows"] == 4096
    assert list(json.loads(read_metadata(report.path / "model.onnx")["parity"]).values()) == [entry.parity]
    with pytest.raises(CheckpointError):
        publish(tmp_path / "missing.safetensors", repository=tmp_path / "models")
    assert versions(tmp_path / "models") == [1]


def test_both_formats_can_stand_in_one_version(tmp_path: Path) -> None:
    options = ExportOptions("float16", formats=("onnx", "torchscript"))
    report = publish(create_network("small", seed=1), repository=tmp_path, options=options)
    assert {path.name for path in report.path.iterdir()} == {"model.onnx", "model.pt"}
    assert read_metadata(report.path / "model.pt")["precision"] == "float16"
    assert set(report.candidate.parity) == {"onnx float16", "torchscript float16"}


def test_what_is_made_for_a_gpu_holds_float16(tmp_path: Path) -> None:
    network = create_network("small", seed=1)
    made = build_candidate(network, describe(network), tmp_path, source="here", options=ExportOptions(on_gpu=True))
    assert made.why == "float16: the server runs on a GPU"
    assert read_metadata(made.files["model.onnx"])["precision"] == "float16"
    made.parity["onnx float16"].require(PRECISIONS["float16"].tolerance, what="the file")


def test_rollback_brings_the_networks_back_under_new_numbers(repository: Path) -> None:
    hashes = {version: network_of(repository, version) for version in (1, 2, 3)}
    first = rollback(repository)
    assert (first.version, first.same_as, network_of(repository, 4)) == (4, 2, hashes[2])
    second = rollback(repository)  # from the network of version 2 to the one before it, not back to 3
    assert (second.version, second.same_as, network_of(repository, 5)) == (5, 1, hashes[1])
    with pytest.raises(RepositoryError, match="expected a version before the current one"):
        rollback(repository)
    third = rollback(repository, 3)
    assert (third.version, network_of(repository, 6)) == (6, hashes[3])
    assert versions(repository) == [1, 2, 3, 4, 5, 6]
    for wrong in (6, 7, 0):
        with pytest.raises(RepositoryError, match=f"got {wrong}"):
            rollback(repository, wrong)
    assert examine(repository) == []


def test_a_version_is_taken_out_but_never_the_current_one(repository: Path, files: list[Path]) -> None:
    unpublish(repository, 2)
    assert versions(repository) == [1, 3]
    for wrong in (3, 2):
        with pytest.raises(RepositoryError):
            unpublish(repository, wrong)
    assert state(repository) == {1: "published", 2: "unpublished", 3: "published"}
    assert publish(files[0], repository=repository).version == 4
    unpublish(repository, 3)
    unpublish(repository, 1)
    assert publish(files[0], repository=repository).version == 5  # a number is not used twice


def test_keep_leaves_the_newest(repository: Path, files: list[Path]) -> None:
    report = publish(files[0], repository=repository, keep=2)
    assert (report.removed, versions(repository)) == ((1, 2), [3, 4])
    with pytest.raises(InvalidConfig, match="at least 2"):
        publish(files[0], repository=repository, keep=1)


def test_a_version_does_not_change_with_the_file_it_came_from(tmp_path: Path, files: list[Path]) -> None:
    own = tmp_path / "model.onnx"
    own.write_bytes(files[0].read_bytes())
    publish(own, repository=tmp_path / "models")
    with own.open("r+b") as file:
        file.write(b"other")
    assert model_path(tmp_path / "models", 1).read_bytes() == files[0].read_bytes()


def test_one_of_two_publishers_wins_and_the_other_is_told(repository: Path, files: list[Path]) -> None:
    with exclusive(repository):
        for attempt in (lambda: publish(files[0], repository=repository), lambda: rollback(repository)):
            with pytest.raises(FolderBusy, match=f"got process {os.getpid()} on"):
                attempt()
        assert [finding.what for finding in examine(repository)] == [
            f"{repository} is being changed by another command"
        ]
    assert versions(repository) == [1, 2, 3]
    assert publish(files[0], repository=repository).version == 4


# What killed commands leave, or people: each is found, and mended by the next command.


def left_building(repository: Path) -> None:
    (repository / ".incoming" / "onnx").mkdir(parents=True)


def left_half_written(repository: Path) -> None:
    (repository / ".registry.json.77.tmp").write_text("{")


def left_renamed(repository: Path) -> None:
    publish(model_path(repository, 1), repository=repository)
    registry = Registry(repository)
    registry.put(registry.get(4).become("publishing"))  # type: ignore[union-attr]


def left_announced(repository: Path) -> None:
    Registry(repository).put(Entry(4, "publishing", "now"))


def left_half_removed(repository: Path) -> None:
    version_folder(repository, 1).rename(repository / ".outgoing.1")
    registry = Registry(repository)
    registry.put(registry.get(1).become("unpublished"))  # type: ignore[union-attr]


def left_to_be_removed(repository: Path) -> None:
    registry = Registry(repository)
    registry.put(registry.get(1).become("unpublished"))  # type: ignore[union-attr]


def removed_by_hand(repository: Path) -> None:
    version_folder(repository, 2).rename(repository.parent / "2")


def brought_by_hand(repository: Path) -> None:
    folder = version_folder(repository, 9)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model_path(repository, 1).read_bytes())


def without_registry(repository: Path) -> None:
    (repository / "registry.json").unlink()


def without_configuration(repository: Path) -> None:
    config_path(repository, "gpu").unlink()


MISHAPS = [
    (left_building, "was left by a command", [1, 2, 3]),
    (left_half_written, "was left by a command", [1, 2, 3]),
    (left_renamed, "version 4 was being published", [1, 2, 3]),
    (left_announced, "version 4 is publishing in the registry, but has no folder", [1, 2, 3]),
    (left_half_removed, "was left by a command", [2, 3]),
    (left_to_be_removed, "version 1 is unpublished in the registry, but its folder is there", [2, 3]),
    (removed_by_hand, "version 2 is published in the registry, but has no folder", [1, 3]),
    (brought_by_hand, "version 9 is not in the registry", [1, 2, 3, 9]),
    (without_registry, "version 1 is not in the registry", [1, 2, 3]),
    (without_configuration, "is missing", [1, 2, 3]),
]


@pytest.mark.parametrize(("mishap", "says", "left"), MISHAPS, ids=lambda value: getattr(value, "__name__", None))
def test_every_mishap_is_found_and_mended(
    repository: Path, mishap: Callable[[Path], None], says: str, left: list[int]
) -> None:
    assert examine(repository) == []
    mishap(repository)
    found = examine(repository)
    assert says in found[0].what
    assert all("blobzero doctor --mend" in finding.mend for finding in found)
    set_right(repository)
    assert examine(repository) == []
    assert versions(repository) == Registry(repository).published() == left
    assert publish(model_path(repository, left[0]), repository=repository).version > max(left)


def test_what_can_not_be_mended_is_said_with_what_to_do(repository: Path) -> None:
    path = model_path(repository, 1)
    path.write_bytes(path.read_bytes()[:-100])
    empty = version_folder(repository, 8)
    empty.mkdir()
    config_path(repository).write_text("name: 3")
    other = model_path(repository, 2)
    model = onnx.load(str(other))
    model.doc_string = "touched"
    onnx.save(model, str(other))
    set_right(repository)
    found = {finding.what.partition(":")[0]: finding.mend for finding in examine(repository)}
    assert len(found) == 4
    for words, mend in (
        ("config.pbtxt is invalid", "remove it"),
        ("contains no model", "blobzero unpublish 8"),
        ("expected an ONNX model", "blobzero unpublish 1"),
        ("was modified after publishing", "publish its source again"),
    ):
        assert any(words in what and mend in found[what] for what in found), (words, found)
    for version in (1, 8, 2):
        unpublish(repository, version)
    config_path(repository).unlink()
    ensure_config(repository)
    assert examine(repository) == []
    assert versions(repository) == [3]


def test_a_registry_that_can_not_be_read_stops_everything(repository: Path, files: list[Path]) -> None:
    (repository / "registry.json").write_text('{"versions": [{"version": 1, "stat')
    for attempt in (lambda: publish(files[0], repository=repository), lambda: unpublish(repository, 1)):
        with pytest.raises(RegistryError, match="move it away"):
            attempt()
    assert "move it away" in examine(repository)[0].mend
    assert versions(repository) == [1, 2, 3]
    (repository / "registry.json").rename(repository.parent / "torn.json")
    set_right(repository)
    assert Registry(repository).published() == [1, 2, 3]


def test_the_commands_say_what_there_is(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = f"--repository {repository}"
    for verb in (["rollback"], ["unpublish", "1"]):
        assert main([*verb, "--repository", str(repository)]) == 0
        said = capsys.readouterr().err
        assert (
            f"server   none was given; reload a running one with blobzero doctor {there} --mend --url HOST:PORT" in said
        )
        assert f"next     blobzero {'serve' if verb == ['rollback'] else 'models'} {there}" in said
    assert main(["models", "--repository", str(repository), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["current"] == 4
    assert [(row["version"], row["same_as"], row["current"]) for row in listed["versions"]] == [
        (2, None, False),
        (3, None, False),
        (4, 2, True),
    ]
    assert main(["models", "--repository", str(repository), "--all"]) == 0
    table = capsys.readouterr().out
    assert "current" in table
    assert "unpublished" in table
    assert main(["doctor", "--repository", str(repository)]) == 0
    assert "no problems found" in capsys.readouterr().out
    left_building(repository)
    assert main(["doctor", "--repository", str(repository), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert ".incoming" in findings[0]["what"]
    assert main(["doctor", "--repository", str(repository), "--mend"]) == 0
    mended, verdict = capsys.readouterr().out.splitlines()
    assert mended == f"repaired: {findings[0]['what']}"
    assert verdict == f"{repository}: no problems found"
    assert main(["doctor", "--repository", str(repository), "--mend", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"repository": str(repository), "findings": [], "mended": []}


def test_a_mistyped_repository_does_not_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["models"], ["doctor"], ["doctor", "--mend"], ["rollback"], ["unpublish", "1"]):
        assert main([*verb, "--repository", str(tmp_path / "nowhere")]) == 1
        assert "expected a model repository" in capsys.readouterr().err
    assert main(["publish", "missing.safetensors", "--repository", str(tmp_path / "nowhere")]) == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_fits_no_contract_is_left_to_people(repository: Path) -> None:
    folder = version_folder(repository, 5)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidModel):
        ensure_model(repository)
    set_right(repository)
    assert (folder / "model.onnx").read_bytes() == b"no model"
