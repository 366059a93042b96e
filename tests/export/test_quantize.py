# SPDX-License-Identifier: Apache-2.0
"""Int8: what is rounded, that answers stay near PyTorch's, and that `auto` never publishes what does not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import export.publishing.candidate
from clients.local import Engine, LocalEvaluator
from export.errors import ParityFailed
from export.graph import export_onnx, metadata_of, read_metadata
from export.parity import Answers, compare
from export.positions import sample_rows
from export.precisions import PRECISIONS
from export.publishing.candidate import ExportOptions
from export.publishing.publish import publish
from export.publishing.repository import versions
from export.quantize import quantize
from export.variants import evaluate as run_file
from export.variants import run_torch
from serving.backends.openvino.model import padded
from tests.support.evaluators import evaluate
from training.checkpoint import describe
from training.network import BlobNet, create_network

WITH_VNNI = frozenset({"sse", "avx512_vnni"})
WITHOUT = frozenset({"sse", "avx512f", "avx512_bf16"})


def run_onnx(path: Path, rows: NDArray[np.uint8]) -> Answers:
    return run_file(path, rows, engine="onnxruntime")


@pytest.fixture(scope="module")
def network() -> BlobNet:
    """With biases, as training leaves them."""
    network = create_network("small", seed=5)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                module.bias.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return network


@pytest.fixture(scope="module")
def int8_file(network: BlobNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    export_onnx(network, folder / "float32.onnx", metadata=metadata_of(describe(network)))
    quantize(folder / "float32.onnx", folder / "model.onnx", rows=sample_rows(256, seed=1))
    return folder / "model.onnx"


def unfit_for_int8() -> BlobNet:
    """The same function as before, but one activation is so large that the others round to nothing."""
    network = create_network("small", seed=6)
    with torch.no_grad():
        for block in network.blocks:
            block.expand.weight[0] *= 1e4  # type: ignore[union-attr, operator, index]
            block.contract.weight[:, 0] *= 1e-4  # type: ignore[union-attr, operator, index]
            block.contract.weight[:, 1:] *= 4  # type: ignore[union-attr, operator, index]
        for head in (network.bids, network.plays):
            head.weight *= 10
    return network


def test_every_product_is_int8_and_the_file_says_so(int8_file: Path, network: BlobNet) -> None:
    graph = onnx.load(str(int8_file)).graph
    weights = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims]
    large = [list(tensor.dims) for tensor in weights if len(tensor.dims) == 2]
    # Of the blocks, the context, to and from suits; the orders and the heads stay float32.
    n_products = 2 * network.config.n_blocks + 5
    assert len(large) == n_products
    metadata = read_metadata(int8_file)
    assert metadata["precision"] == "int8"
    assert metadata["weights_sha256"] == describe(network).weights_sha256


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engines_answer_near_pytorch_and_row_by_row(int8_file: Path, network: BlobNet, engine: Engine) -> None:
    rows = sample_rows(512, seed=2)
    evaluator = LocalEvaluator(int8_file, engine=engine)
    together = evaluate(evaluator, rows)
    report = compare(run_torch(network, rows), Answers(together.logits, together.values))
    report.require(PRECISIONS["int8"].tolerance, what=engine)
    assert report.max_logit_difference > 1e-4  # or it was not int8 that ran
    for i in (0, 100, 511):
        alone = evaluate(evaluator, rows[i : i + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=1e-3)
        np.testing.assert_allclose(alone.values[0], together.values[i], atol=1e-4)


def test_both_files_of_a_network_are_the_same_function(int8_file: Path) -> None:
    rows = sample_rows(256, seed=3)
    compare(
        run_onnx(int8_file.with_name("float32.onnx"), rows),
        run_onnx(int8_file, rows),
    ).require(PRECISIONS["int8"].tolerance, what="int8")


def test_auto_takes_int8_where_the_processor_has_it(
    network: BlobNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.publishing.candidate, "cpu_flags", lambda: WITH_VNNI)
    fast = publish(network, repository=tmp_path)
    assert list(fast.candidate.parity) == ["onnx int8"]
    assert read_metadata(fast.path / "model.onnx")["precision"] == "int8"
    monkeypatch.setattr(export.publishing.candidate, "cpu_flags", lambda: WITHOUT)
    slow = publish(network, repository=tmp_path)
    assert list(slow.candidate.parity) == ["onnx float32"]
    assert read_metadata(slow.path / "model.onnx")["precision"] == "float32"
    assert "not faster" in slow.candidate.why


def test_auto_falls_back_where_int8_answers_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.publishing.candidate, "cpu_flags", lambda: WITH_VNNI)
    report = publish(unfit_for_int8(), repository=tmp_path)
    assert "expected the onnx int8 file in openvino within" in report.candidate.why
    assert read_metadata(report.path / "model.onnx")["precision"] == "float32"
    with pytest.raises(ParityFailed, match="the onnx int8 file"):
        publish(unfit_for_int8(), repository=tmp_path, options=ExportOptions(precision="int8"))
    assert versions(tmp_path) == [1]


def test_batches_take_few_shapes_and_little_padding() -> None:
    fresh = [padded(n, 0) for n in range(1, 1025)]
    assert all(n <= size <= max(n * 9 / 8, n + 15) for n, size in enumerate(fresh, 1))
    assert len(set(fresh)) == 32
    assert padded(600, 640) == 640 == padded(560, 640)
    assert padded(559, 640) == 576
    assert padded(641, 640) == 704
