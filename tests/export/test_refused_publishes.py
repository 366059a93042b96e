# SPDX-License-Identifier: Apache-2.0
"""What must not be published: refused in one line, and nothing has changed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from blobzero.cli import main
from export.errors import ParityFailed, PublishFailed
from export.publishing.candidate import ExportOptions
from export.publishing.doctor import examine
from export.publishing.publish import publish
from export.publishing.registry import Registry
from export.publishing.repository import versions
from export.variants import build
from training.checkpoint import save_checkpoint
from training.network import BlobNet, create_network


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def pickled(folder: Path, file: Path, name: str) -> Path:
    path = folder / name
    torch.save({"weights": Payload(folder / "executed")}, path)
    return path


def truncated(folder: Path, file: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(file.read_bytes()[:-1000])
    return path


def changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, file: Path) -> Path:
        model = onnx.load(str(file))
        change(model)
        path = folder / "model.onnx"
        onnx.save(model, str(path))
        return path

    return make


def nan_weights(model: onnx.ModelProto) -> None:
    weights = next(c for c in model.graph.initializer if c.data_type == onnx.TensorProto.FLOAT and len(c.dims) == 2)
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weights.dims), np.nan, np.float32), weights.name))


def narrow(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 95


def one_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def three_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["B", 66]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["policy"], ["more"]))


def renamed(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "logits"
    model.graph.node.append(onnx.helper.make_node("Identity", ["policy"], ["logits"]))


def other_contract(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "observation_version").value = "99"


def nan_checkpoint(folder: Path, file: Path) -> Path:
    network = create_network("small", seed=1)
    with torch.no_grad():
        network.value.bias.fill_(torch.nan)
    save_checkpoint(folder / "nan.safetensors", network, step=1)
    return folder / "nan.safetensors"


def other_checkpoint(folder: Path, file: Path) -> Path:
    path = folder / "other.safetensors"
    save_checkpoint(path, create_network("small", seed=1), step=1)
    path.write_bytes(path.read_bytes().replace(b'observation_version\\": 2', b'observation_version\\": 7'))
    return path


REFUSED = [
    (truncated, "expected an ONNX model"),
    (changed(nan_weights), "expected finite weights"),
    (changed(narrow), "expected tensor observation [B, 96]"),
    (changed(one_output), "expected tensor value"),
    (changed(three_outputs), "expected tensors observation, policy, value, got observation, policy, value, more"),
    (changed(renamed), "expected tensor policy"),
    (changed(other_contract), "expected observation version 2, got 99"),
    (nan_checkpoint, "expected finite weights"),
    (other_checkpoint, "expected observation version 2, got 7"),
    (lambda folder, file: pickled(folder, file, "model.pt"), "expected a TorchScript model"),
    (lambda folder, file: pickled(folder, file, "checkpoint.pth"), "expected a readable checkpoint"),
    (lambda folder, file: folder / "missing.safetensors", "expected a readable checkpoint"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_a_wrong_network_is_refused_in_one_line_and_changes_nothing(
    make: Callable[[Path, Path], Path],
    says: str,
    repository: Path,
    files: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make(tmp_path, files[0])
    assert main(["publish", str(source), "--repository", str(repository)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("blobzero: ")
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert versions(repository) == Registry(repository).published() == [1, 2, 3]
    assert examine(repository) == []
    assert not (tmp_path / "executed").exists()


def test_a_network_that_fails_parity_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(network: BlobNet, *arguments: object, **more: object) -> None:
        build(create_network("small", seed=8), *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("export.variants.build", other)
    with pytest.raises(ParityFailed, match="the onnx float32 file"):
        publish(create_network("small", seed=1), repository=tmp_path, options=ExportOptions("float32"))
    assert versions(tmp_path) == []


def test_a_server_that_is_not_there_is_noticed_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(PublishFailed, match=r"expected a Triton server at 127\.0\.0\.1:1.* nothing was changed"):
        publish(create_network("small", seed=1), repository=tmp_path / "models", url="127.0.0.1:1")
    assert not (tmp_path / "models").exists()


SMALL_DISK = """
mount -t tmpfs -o size={size} none {folder} || exit 77
cp -r {models} {folder}/models
{python} -m blobzero.cli publish {source} --repository {folder}/models
echo status $?
ls -A {folder}/models {folder}/models/blobnet
{python} -m blobzero.cli doctor --repository {folder}/models
"""


@pytest.mark.parametrize("spare_kb", [40, 700])
def test_a_full_disk_changes_nothing(repository: Path, tmp_path: Path, files: list[Path], spare_kb: int) -> None:
    """In a mount namespace of its own, on a disk with room for what is there and little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    save_checkpoint(tmp_path / "a.safetensors", create_network("small", seed=1), step=1)
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in repository.rglob("*"))
    script = SMALL_DISK.format(
        size=f"{used // 1024 + spare_kb}k",
        folder=folder,
        models=repository,
        python=sys.executable,
        source=tmp_path / "a.safetensors",
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", script], capture_output=True, text=True, check=False
    )
    assert "status 1" in done.stdout, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("blobzero: ")]
    assert len(said) == 1
    assert "free space" in said[0]
    assert "Traceback" not in done.stderr
    assert "no problems found" in done.stdout
    assert {"1", "2", "3"} <= set(done.stdout.split())
    assert "4" not in done.stdout.split()
