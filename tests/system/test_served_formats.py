# SPDX-License-Identifier: Apache-2.0
"""Every configuration given to a real Triton: those for a CPU answer like PyTorch, those for a GPU ask for one."""

import json
import os
import pickle
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from clients.precision import cpu_flags
from export.graph import export_onnx, metadata_of
from export.parity import Answers, compare
from export.positions import sample_rows
from export.precisions import PRECISIONS, SERVED
from export.publishing.config import config_path, ensure_config
from export.variants import run_torch
from mcts_ext.contract import (
    INPUT_NAME,
    MODEL_NAME,
    OBSERVATION_BYTES,
    POLICY_NAME,
    PRECISION_KEY,
    VALUE_NAME,
    VERSION_KEY,
)
from serving.backends.pytorch.model import METADATA_FILE, TorchNetwork
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ModelNotServable, ServerStartFailed
from tests.support.raw_client import key_headers
from tests.system.test_kills import stubs_below
from training.checkpoint import describe
from training.network import BlobNet, create_network

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def network() -> BlobNet:
    network = create_network("small", seed=1)
    with torch.no_grad():
        for head in (network.bids, network.plays):
            head.weight.mul_(30)  # as far from uniform as a trained policy
    return network


def save_torchscript(network: BlobNet, path: Path, metadata: dict[str, str]) -> None:
    with warnings.catch_warnings():  # TorchScript says on every call that it is old
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network, (torch.zeros(2, OBSERVATION_BYTES, dtype=torch.uint8),))
        torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: json.dumps(metadata)})


def write_version(repository: Path, network: BlobNet, version: int, **properties: str) -> Path:
    """Write a version in both formats beside the generated configurations."""
    ensure_config(repository)
    folder = repository / MODEL_NAME / str(version)
    folder.mkdir()
    metadata = {**metadata_of(describe(network)), **properties}
    export_onnx(network, folder / "model.onnx", metadata=metadata)
    save_torchscript(network, folder / "model.pt", metadata)
    return folder


def ask(server: EmbeddedTriton, rows: NDArray[np.uint8], version: str = "") -> tuple[str, Answers]:
    with triton.InferenceServerClient(server.url) as client:
        tensor = triton.InferInput(INPUT_NAME, list(rows.shape), "UINT8")
        tensor.set_data_from_numpy(rows)
        result = client.infer(MODEL_NAME, [tensor], model_version=version)
    answers = Answers(result.as_numpy(POLICY_NAME), result.as_numpy(VALUE_NAME))
    return result.get_response().model_version, answers


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("cpu", "OpenVINO .*, float32 file, matrix products in (f32|bf16)"),
        ("onnxruntime", "ONNX Runtime .*, float32 file, products in f32"),
        ("pytorch", "PyTorch .*, float32 file"),
    ],
)
def test_a_configuration_for_the_cpu_answers_like_pytorch(
    name: str, log: str, tmp_path: Path, network: BlobNet
) -> None:
    write_version(tmp_path, network, 1)
    rows = sample_rows(300, seed=8)
    config = ServerConfig(repository=tmp_path, config_name=name, log_file=tmp_path / "triton.log")
    with EmbeddedTriton(config) as server:
        expected = run_torch(network, rows)
        tolerance = SERVED if "amx_bf16" in cpu_flags() and name == "cpu" else PRECISIONS["float32"].tolerance
        for n in (300, 7, 1):
            _, got = ask(server, rows[:n])
            compare(Answers(expected.policy[:n], expected.value[:n]), got).require(tolerance, what=name)
    assert len(re.findall(f"version 1: {log}", (tmp_path / "triton.log").read_text())) == 2  # once an instance


@pytest.mark.parametrize("name", ["gpu", "gpu-fp32"])
def test_a_configuration_for_the_gpu_is_understood_and_wants_one(name: str, tmp_path: Path, network: BlobNet) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    write_version(tmp_path, network, 1)
    with pytest.raises(ServerStartFailed, match="has kind KIND_GPU but no GPUs are available"):
        EmbeddedTriton(ServerConfig(repository=tmp_path, config_name=name, log_file=tmp_path / "triton.log")).start()
    # What the test above rests on: an unknown key is refused earlier, in other words.
    path = config_path(tmp_path, name)
    path.write_text(path.read_text().replace("execution_accelerators", "execution_accelerator"))
    with pytest.raises(ServerStartFailed, match="failed to read text proto"):
        EmbeddedTriton(ServerConfig(repository=tmp_path, config_name=name, log_file=tmp_path / "second.log")).start()


def test_a_third_version_takes_the_place_of_the_first_and_leaves_the_second_alone(
    tmp_path: Path, network: BlobNet
) -> None:
    networks = {1: network, 2: create_network("small", seed=2), 3: create_network("small", seed=3)}
    rows = sample_rows(50, seed=3)

    def stubs() -> set[int]:
        return stubs_below(psutil.Process(server.pid))

    def check(version: str, answered: int) -> None:
        got, answers = ask(server, rows, version)
        assert got == str(answered)
        compare(run_torch(networks[answered], rows), answers).require(SERVED, what=f"version {answered}")

    for version in (1, 2):
        write_version(tmp_path, networks[version], version)
    with EmbeddedTriton(ServerConfig(repository=tmp_path, log_file=tmp_path / "triton.log")) as server:
        before = stubs()
        assert len(before) == 4  # two of each version
        check("", 2)
        check("1", 1)
        write_version(tmp_path, networks[3], 3)
        with triton.InferenceServerClient(server.url) as client:
            client.load_model(MODEL_NAME, headers=key_headers(server))
        check("", 3)
        check("2", 2)
        with pytest.raises(InferenceServerException, match="version 1 is not at ready state"):
            ask(server, rows, "1")
        log = (tmp_path / "triton.log").read_text()
        assert log.count(f"{MODEL_NAME} version 2: OpenVINO") == 2  # once an instance, at the start
        deadline = time.monotonic() + 20
        while len(stubs()) > 4 and time.monotonic() < deadline:  # those of the first take their time to end
            time.sleep(0.1)
        assert (len(stubs()), len(stubs() & before)) == (4, 2)


@pytest.mark.parametrize("name", ["cpu", "onnxruntime", "pytorch"])
def test_a_file_of_another_observation_version_is_refused(name: str, tmp_path: Path, network: BlobNet) -> None:
    write_version(tmp_path, network, 1, **{VERSION_KEY: "99"})
    config = ServerConfig(repository=tmp_path, config_name=name, log_file=tmp_path / "triton.log")
    with pytest.raises(ServerStartFailed, match=r"expected observation_version 2 as in config\.pbtxt, got 99"):
        EmbeddedTriton(config).start()


def test_a_bfloat16_file_is_computed_in_bfloat16_or_refused(tmp_path: Path, network: BlobNet) -> None:
    write_version(tmp_path, network, 1, **{PRECISION_KEY: "bfloat16"})
    config = ServerConfig(repository=tmp_path, config_name="cpu", log_file=tmp_path / "triton.log")
    if "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags():
        rows = sample_rows(64, seed=8)
        with EmbeddedTriton(config) as server:
            compare(run_torch(network, rows), ask(server, rows)[1]).require(SERVED, what="bfloat16")
        line = "bfloat16 file, matrix products in bf16, 1 threads; what is not quantized in bf16 (the file requires it)"
        assert line in (tmp_path / "triton.log").read_text()
    else:
        with pytest.raises(ServerStartFailed, match="expected a processor with avx512_bf16 or amx_bf16"):
            EmbeddedTriton(config).start()


# -- TorchScript ------------------------------------------------------------------------------------------------------


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("save", [lambda x, path: path.write_bytes(pickle.dumps(x)), torch.save])
def test_a_pickle_is_refused_and_not_run(
    save: Callable[[object, Path], None], tmp_path: Path, network: BlobNet
) -> None:
    folder, trace = write_version(tmp_path, network, 1), tmp_path / "it ran"
    save(Payload(trace), folder / "model.pt")
    loaded = pickle.loads(pickle.dumps(Payload(trace)))
    assert loaded is None
    trace.rmdir()  # it would run
    config = ServerConfig(repository=tmp_path, config_name="pytorch", log_file=tmp_path / "triton.log")
    with pytest.raises(ServerStartFailed, match=r"cannot serve .*1/model\.pt: PytorchStreamReader failed"):
        EmbeddedTriton(config).start()
    assert not trace.exists()


def test_a_version_without_torchscript_is_named(tmp_path: Path, network: BlobNet) -> None:
    (write_version(tmp_path, network, 1) / "model.pt").unlink()
    with pytest.raises(ModelNotServable, match=r"expected .*<version>/model\.pt, got no version"):
        EmbeddedTriton(ServerConfig(repository=tmp_path, config_name="pytorch")).start()


def test_without_torch_the_backend_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"expected the package torch .*, got none; .*'blobzero\[train\]'"):
        TorchNetwork(tmp_path / "model.pt", config={}, n_threads=1)
