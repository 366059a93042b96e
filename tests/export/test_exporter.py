# SPDX-License-Identifier: Apache-2.0
"""The exported graph and its agreement with PyTorch."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch

from export.errors import ExportError, InvalidModel, ParityFailed
from export.graph import export_onnx, metadata_of, read_metadata
from export.parity import Answers, compare, policy_kl
from export.positions import sample_rows
from export.precisions import PRECISIONS, SERVED
from export.variants import evaluate, run_torch
from mcts_ext.contract import OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME
from mcts_ext.decode import decode
from training.checkpoint import describe
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
        for head in (network.bids, network.plays):
            head.weight.mul_(30)  # as far from uniform as a trained policy
    export_onnx(network, path, metadata=metadata_of(describe(network)))
    rows = sample_rows(1025, seed=1)
    expected = run_torch(network, rows)
    compare(expected, evaluate(path, rows, engine="onnxruntime")).require(
        PRECISIONS["float32"].tolerance, what="ONNX Runtime"
    )
    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for n in (1, 7, 1025):
        answers = compiled(rows[:n])
        got = Answers(answers[POLICY_NAME], answers[VALUE_NAME])
        compare(Answers(expected.policy[:n], expected.value[:n]), got).require(
            PRECISIONS["float32"].tolerance, what="OpenVINO"
        )
    answers = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})(rows)
    compare(expected, Answers(answers[POLICY_NAME], answers[VALUE_NAME])).require(SERVED, what="OpenVINO in bfloat16")


def test_any_bytes_are_safe_in_the_engines(onnx_file: Path) -> None:
    garbage = np.random.default_rng(0).integers(0, 256, (1000, OBSERVATION_BYTES), dtype=np.uint8)
    assert all(np.isfinite(answer).all() for answer in evaluate(onnx_file, garbage, engine="onnxruntime"))
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
    with pytest.raises(InvalidModel, match="expected observation version 2, got 99"):
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
        compare(expected, nan).require(PRECISIONS["float32"].tolerance, what="a broken one")


def test_policy_kl_is_the_divergence() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    kl = policy_kl(np.log(p).astype(np.float32), (np.log(q) + 3).astype(np.float32))
    assert kl == pytest.approx([0.5 * np.log(2) - 0.25 * np.log(2)], rel=1e-5)


def test_a_full_disk_leaves_no_export(tmp_path: Path, network: BlobNet, full_disk: None) -> None:
    with pytest.raises(ExportError, match="free space"):
        export_onnx(network, tmp_path / "model.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []
