# SPDX-License-Identifier: Apache-2.0
"""Export, parity, the model repository on disk, and publishing to a real server."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from tritonclient import grpc as triton

import export.publish
from export.config import ensure_config
from export.errors import ExportError, InvalidModel, ParityFailed, PublishFailed, RepositoryError
from export.graph import export_onnx, metadata_of, read_metadata
from export.parity import FLOAT32, SERVED, Answers, Tolerance, compare, policy_kl, run_onnx, run_torch
from export.positions import sample_rows
from export.publish import ensure_model, publish
from export.repository import (
    model_path,
    publish_version,
    versions,
    withdraw_version,
)
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME
from mcts_ext.decode import decode
from serving.embedded import EmbeddedTriton, ServerConfig
from training.checkpoint import CheckpointError, describe, save_checkpoint
from training.network import PRESETS, BlobNet, create_network


@pytest.fixture(scope="module")
def network() -> BlobNet:
    return create_network("small", seed=1)


@pytest.fixture(scope="module")
def onnx_file(network: BlobNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network, path, metadata=metadata_of(describe(network, step=3)))
    return path


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files can't grow past 10,000 bytes; writing more fails with an OSError, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_sample_rows_are_real_positions_and_seeded() -> None:
    rows = sample_rows(300, seed=4)
    assert np.array_equal(rows, sample_rows(300, seed=4))
    assert not np.array_equal(rows, sample_rows(300, seed=5))
    known = [decode(row.tobytes()) for row in rows]
    assert {table.n_players for table in known} == set(range(3, 9))
    assert {table.trump for table in known} == {0, 1, 2, 3, None}
    assert any(table.start_cards for table in known)
    assert any(not table.tricks for table in known)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_exported_graph_answers_what_pytorch_answers(preset: str, tmp_path: Path) -> None:
    network, path = create_network(preset, seed=2), tmp_path / "model.onnx"
    with torch.no_grad():
        network.policy.weight.mul_(30)  # as far from uniform as a trained policy
    export_onnx(network, path, metadata=metadata_of(describe(network)))
    rows = sample_rows(1025, seed=1)
    expected = run_torch(network, rows)
    compare(expected, run_onnx(path, rows)).require(FLOAT32, what="ONNX Runtime")
    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for n in (1, 7, 1025):
        answers = compiled(rows[:n])
        got = Answers(answers[POLICY_NAME], answers[VALUE_NAME])
        compare(Answers(expected.policy[:n], expected.value[:n]), got).require(FLOAT32, what="OpenVINO")
    answers = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})(rows)
    compare(expected, Answers(answers[POLICY_NAME], answers[VALUE_NAME])).require(SERVED, what="OpenVINO in bfloat16")


def test_any_bytes_are_safe_in_the_engines(onnx_file: Path) -> None:
    garbage = np.random.default_rng(0).integers(0, 256, (1000, OBSERVATION_BYTES), dtype=np.uint8)
    assert all(np.isfinite(answer).all() for answer in run_onnx(onnx_file, garbage))
    answers = ov.Core().compile_model(str(onnx_file), "CPU")(garbage)
    assert np.isfinite(answers[POLICY_NAME]).all()


def test_metadata_is_inside_the_file(network: BlobNet, onnx_file: Path) -> None:
    metadata = read_metadata(onnx_file)
    assert metadata["weights_sha256"] == describe(network).weights_sha256
    assert metadata["preset"] == "small"
    assert metadata["step"] == "3"
    assert metadata["n_parameters"] == str(network.n_parameters)
    assert metadata["git_commit"]


def test_other_models_are_refused(onnx_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "model.onnx"
    for content in (b"", b"garbage", onnx_file.read_bytes()[:5000]):
        bad.write_bytes(content)
        with pytest.raises(InvalidModel):
            read_metadata(bad)
    with pytest.raises(InvalidModel, match="expected an ONNX model"):
        read_metadata(tmp_path / "missing.onnx")
    model = onnx.load(str(onnx_file))
    onnx.helper.set_model_props(model, {"observation_version": "99"})
    onnx.save(model, str(bad))
    with pytest.raises(InvalidModel, match="expected observation version 1, got 99"):
        read_metadata(bad)
    model = onnx.load(str(onnx_file))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 95
    onnx.save(model, str(bad))
    with pytest.raises(InvalidModel):
        read_metadata(bad)


def test_parity_notices_other_weights(network: BlobNet, onnx_file: Path) -> None:
    rows = sample_rows(200, seed=1)
    expected = run_torch(network, rows)
    other = run_torch(create_network("small", seed=9), rows)
    report = compare(expected, other)
    assert report.mean_policy_kl > SERVED.kl
    assert report.same_top_action < 0.5
    with pytest.raises(ParityFailed, match=r"expected the other within 0\.01 of PyTorch in mean policy KL"):
        report.require(SERVED, what="the other")
    nan = Answers(expected.policy, np.full_like(expected.value, np.nan))
    with pytest.raises(ParityFailed, match="value"):
        compare(expected, nan).require(FLOAT32, what="a broken one")


def test_policy_kl_is_the_divergence() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    kl = policy_kl(np.log(p).astype(np.float32), (np.log(q) + 3).astype(np.float32))
    assert kl == pytest.approx([0.5 * np.log(2) - 0.25 * np.log(2)], rel=1e-5)


def test_versions_count_up_and_are_immutable(tmp_path: Path, onnx_file: Path) -> None:
    assert versions(tmp_path) == []
    assert [publish_version(tmp_path, onnx_file) for _ in range(2)] == [1, 2]
    assert publish_version(tmp_path, onnx_file, version=10) == 10
    assert publish_version(tmp_path, onnx_file) == 11
    with pytest.raises(RepositoryError, match="expected a free version, got 2"):
        publish_version(tmp_path, onnx_file, version=2)
    (tmp_path / MODEL_NAME / "12").mkdir()  # left behind by someone: no version yet
    (tmp_path / MODEL_NAME / "12" / "note.txt").touch()
    assert publish_version(tmp_path, onnx_file) == 13
    withdraw_version(tmp_path, 13)
    assert versions(tmp_path) == [1, 2, 10, 11]
    assert model_path(tmp_path, 11).read_bytes() == onnx_file.read_bytes()
    assert {path.name for path in (tmp_path / MODEL_NAME).iterdir()} == {"1", "2", "10", "11", "12"}


def test_a_full_disk_leaves_no_version(tmp_path: Path, onnx_file: Path, full_disk: None) -> None:
    with pytest.raises(RepositoryError, match="free space"):
        publish_version(tmp_path, onnx_file)
    assert list((tmp_path / MODEL_NAME).iterdir()) == []


def test_a_full_disk_leaves_no_export(tmp_path: Path, network: BlobNet, full_disk: None) -> None:
    with pytest.raises(ExportError, match="free space"):
        export_onnx(network, tmp_path / "model.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_repository_is_said(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (
        lambda: ensure_config(tmp_path / "file"),
        lambda: publish_version(tmp_path / "file", onnx_file),
        lambda: versions(tmp_path / "file"),
    ):
        with pytest.raises(RepositoryError):
            attempt()


def test_ensure_model_publishes_once(tmp_path: Path) -> None:
    assert ensure_model(tmp_path, preset="small", seed=5) == 1
    before = model_path(tmp_path, 1).stat()
    assert ensure_model(tmp_path, preset="small", seed=6) == 1
    assert model_path(tmp_path, 1).stat() == before
    metadata = read_metadata(model_path(tmp_path, 1))
    assert metadata["seed"] == "5"
    assert metadata["weights_sha256"] == describe(create_network("small", seed=5)).weights_sha256


def test_publish_reads_checkpoints(tmp_path: Path, network: BlobNet) -> None:
    save_checkpoint(tmp_path / "a.safetensors", network, step=40)
    report = publish(tmp_path / "a.safetensors", repository=tmp_path / "repository")
    assert (report.version, report.info.step, report.served) == (1, 40, None)
    assert report.exported.max_logit_difference <= 1e-4
    with pytest.raises(CheckpointError):
        publish(tmp_path / "missing.safetensors", repository=tmp_path / "repository")
    assert versions(tmp_path / "repository") == [1]


def test_a_network_that_fails_parity_is_not_published(tmp_path: Path) -> None:
    broken = create_network("small", seed=1)
    with torch.no_grad():
        broken.value.bias.fill_(torch.nan)
    with pytest.raises(ParityFailed):
        publish(broken, repository=tmp_path)
    assert versions(tmp_path) == []


def test_a_server_that_is_not_there_leaves_no_version(tmp_path: Path, network: BlobNet) -> None:
    with pytest.raises(PublishFailed, match=r"expected the server at 127\.0\.0\.1:1 .* withdrawn"):
        publish(network, repository=tmp_path, url="127.0.0.1:1")
    assert versions(tmp_path) == []


@pytest.mark.triton
def test_publishing_to_a_running_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, elsewhere = tmp_path / "served", tmp_path / "elsewhere"
    ensure_model(served, preset="small", seed=1)
    rows = sample_rows(64, seed=8)
    config = ServerConfig(repository=served, log_file=tmp_path / "triton.log")
    with EmbeddedTriton(config) as server, triton.InferenceServerClient(server.url) as client:

        def ask(version: str = "") -> tuple[str, np.ndarray]:
            tensor = triton.InferInput(INPUT_NAME, list(rows.shape), "UINT8")
            tensor.set_data_from_numpy(rows)
            result = client.infer(MODEL_NAME, [tensor], model_version=version)
            return result.get_response().model_version, result.as_numpy(POLICY_NAME)

        assert ask()[0] == "1"
        second = create_network("small", seed=2)
        report = publish(second, repository=served, url=server.url)
        assert report.version == 2
        assert report.served is not None
        assert report.served.mean_policy_kl < 1e-3
        version, policy = ask()
        assert version == "2"
        assert np.abs(policy - run_torch(second, rows).policy).max() < 0.05

        # A server of another repository finds no such version.
        ensure_model(elsewhere, preset="small", seed=3)
        publish(second, repository=elsewhere)
        with pytest.raises(PublishFailed, match="version 3"):
            publish(create_network("small", seed=4), repository=elsewhere, url=server.url)
        assert versions(elsewhere) == [1, 2]

        # Answers that differ too much: the new version goes, the old one serves on.
        monkeypatch.setattr(export.publish, "SERVED", Tolerance(logit=-1.0, kl=1.0, value=1.0, mean_value=1.0))
        with pytest.raises(ParityFailed):
            publish(create_network("small", seed=4), repository=served, url=server.url, precision="float32")
        assert versions(served) == [1, 2]
        version, again = ask()
        assert version == "2"
        assert np.array_equal(again, policy)
