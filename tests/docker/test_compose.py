# SPDX-License-Identifier: Apache-2.0
"""The compose files, read without Docker: what the first network is, which image serves it, and what documents say."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from export.graph import read_metadata
from export.publishing.repository import model_path
from mcts_ext.contract import INPUT_NAME, OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME

ROOT = Path(__file__).parents[2]
FLOAT, FLOAT16, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8


class Loader(yaml.SafeLoader):
    """Takes what Compose adds to YAML: !override and !reset."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def services(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / name).read_text(), Loader)["services"]
    return found


def run_init(folder: Path, *overrides: str) -> None:
    """Run the command of the service `init`, as the files say it, on folders of ours."""
    service = services("compose.yaml")["init"]
    environment: dict[str, str] = {}
    for name in ("compose.yaml", *overrides):
        environment |= services(name).get("init", {}).get("environment", {})
    (script,) = service["command"]
    for volume in ("models", "keys"):
        (folder / volume).mkdir(exist_ok=True)
        script = re.sub(rf"(?<=[ >])/{volume}\b", str(folder / volume), script)
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "BLOBZERO_NETWORK": "small"}
    subprocess.run(
        [*service["entrypoint"], script.replace("$$", "$")],
        env=os.environ | own | environment,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=200,
    )


@pytest.mark.parametrize(("overrides", "precision"), [((), "float16"), (("compose.cpu.yaml",), "float32")])
def test_the_first_network_has_the_precision_that_is_served(
    tmp_path: Path, overrides: tuple[str, ...], precision: str
) -> None:
    """A GPU computes in the types of the file, so half precision has to be in the file; a CPU gains nothing by it."""
    run_init(tmp_path, *overrides)
    file = model_path(tmp_path / "models", 1)
    assert read_metadata(file)["precision"] == precision
    graph = onnx.load(str(file)).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [name for node in graph.node if node.op_type in ("MatMul", "Gemm") for name in node.input]
    weights = {types[name] for name in products if name in types}
    assert weights == {FLOAT16 if precision == "float16" else FLOAT}
    contract = [(INPUT_NAME, UINT8, OBSERVATION_BYTES), (POLICY_NAME, FLOAT, 66), (VALUE_NAME, FLOAT, 8)]
    assert [
        (tensor.name, tensor.type.tensor_type.elem_type, tensor.type.tensor_type.shape.dim[1].dim_value)
        for tensor in (*graph.input, *graph.output)
    ] == contract
    key = tmp_path / "keys" / "admin"
    assert (len(key.read_text().strip()), key.stat().st_mode & 0o777) == (64, 0o600)
    before = key.read_text(), file.stat()
    run_init(tmp_path, *overrides)
    assert (key.read_text(), model_path(tmp_path / "models", 1).stat()) == before


def test_the_default_image_is_a_patched_one_and_the_documents_name_it_and_its_driver() -> None:
    image = re.fullmatch(
        r"\$\{TRITON_IMAGE:-nvcr\.io/nvidia/tritonserver:\$\{TRITON_TAG:-(\d\d)\.(\d\d)\}-py3\}",
        services("compose.yaml")["triton"]["image"],
    )
    assert image is not None
    assert (int(image[1]), int(image[2])) >= (26, 10)  # faults published up to then: docs/operating.md
    tag = f"{image[1]}.{image[2]}"
    operating, readme, file = ((ROOT / name).read_text() for name in ("docs/operating.md", "README.md", "compose.yaml"))
    assert re.search(rf"^\| `TRITON_TAG` \| {re.escape(tag)} \|", operating, re.MULTILINE)
    drivers = {
        name: re.search(rf"{re.escape(tag)}\D.*driver (\d+) or newer", text)
        for name, text in (("operating", operating), ("readme", readme), ("compose", file))
    }
    assert {name: found and found[1] for name, found in drivers.items()} == dict.fromkeys(drivers, "580")
    texts = (operating, readme, file)
    assert {found for text in texts for found in re.findall(r"TRITON_TAG[=:-]+(\d+\.\d+)", text)} == {tag}


def test_every_image_of_others_is_held_to_a_release_and_can_be_to_a_digest() -> None:
    for name, service in services("compose.yaml").items():
        if not service["image"].startswith("blobzero-"):
            assert re.search(r"\$\{[A-Z]+_(TAG|IMAGE):-.*\d+\.\d+", service["image"]), name
            assert "latest" not in service["image"], name
    for file in ("client", "triton-cpu"):
        text = (ROOT / "docker" / f"{file}.Dockerfile").read_text()
        froms = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
        assert {image for image, _ in froms} - {name for _, name in froms} == {"${PYTHON}"}, file


def test_every_service_has_a_limit_of_processes() -> None:
    for name, service in services("compose.yaml").items():
        assert 0 < service.get("pids_limit", 0) <= 4096, name
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        assert limits.get("pids", service["pids_limit"] if not limits else None) == service["pids_limit"], name
