# SPDX-License-Identifier: Apache-2.0
"""The variants of a network: near PyTorch in every engine that serves them, and other files are refused."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.errors import ExportError, InvalidModel, ParityFailed
from export.graph import annotate, metadata_of, read_metadata
from export.parity import Answers, compare
from export.positions import sample_rows
from export.precisions import FILE_NAMES, PRECISIONS, VARIANTS, Variant
from export.torchscript import METADATA_FILE
from export.variants import build, evaluate, run_torch, variant_of
from mcts_ext.contract import OBSERVATION_BYTES, OBSERVATION_VERSION
from tests.support.models import rename_output, state_property
from training.checkpoint import describe
from training.network import BlobNet, create_network

SERVED = [(variant, engine) for variant in VARIANTS for engine in variant.engines]
ONNX, TORCHSCRIPT = Variant("onnx", "float32"), Variant("torchscript", "float32")


@pytest.fixture(scope="module")
def network() -> BlobNet:
    """With biases and a decided policy, as training leaves them."""
    network = create_network("small", seed=5)
    with torch.no_grad():
        for head in (network.bids, network.plays):
            head.weight.mul_(10)
        for module in network.modules():
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                module.bias.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return network


@pytest.fixture(scope="module")
def rows() -> NDArray[np.uint8]:
    return sample_rows(513, seed=2)


@pytest.fixture(scope="module")
def files(network: BlobNet, tmp_path_factory: pytest.TempPathFactory) -> dict[Variant, Path]:
    folder = tmp_path_factory.mktemp("variants")
    paths = {variant: folder / variant.precision / variant.file_name for variant in VARIANTS}
    for variant, path in paths.items():
        calibration = sample_rows(256, seed=1)
        build(network, variant, path, metadata=metadata_of(describe(network, step=3)), calibration=calibration)
    return paths


@pytest.fixture
def copies(files: dict[Variant, Path], tmp_path: Path) -> dict[Variant, Path]:
    """The float32 file of each format, to be spoiled."""
    found = {variant: tmp_path / variant.file_name for variant in (ONNX, TORCHSCRIPT)}
    for variant, path in found.items():
        path.write_bytes(files[variant].read_bytes())
    return found


@pytest.mark.parametrize(("variant", "engine"), SERVED, ids=str)
def test_every_engine_answers_near_pytorch(
    variant: Variant, engine: str, files: dict[Variant, Path], network: BlobNet, rows: NDArray[np.uint8]
) -> None:
    batches = np.split(rows, [1, 8])
    parts = [evaluate(files[variant], batch, engine=engine) for batch in batches]
    got = Answers(np.concatenate([part.policy for part in parts]), np.concatenate([part.value for part in parts]))
    assert got.policy.dtype == got.value.dtype == np.float32
    report = compare(run_torch(network, rows), got)
    report.require(variant.spec.tolerance, what=f"{variant} in {engine}")
    if variant.precision != "float32":  # or it was not that precision that ran
        assert report.max_logit_difference > 1e-4
        with pytest.raises(ParityFailed):
            report.require(PRECISIONS["float32"].tolerance, what=f"{variant} in {engine}")


def test_halves_rank_as_their_bits_do(files: dict[Variant, Path], network: BlobNet, rows: NDArray[np.uint8]) -> None:
    """Float16 has three bits more than bfloat16: eight times as near, about; both formats alike."""
    expected = run_torch(network, rows)

    def off(variant: Variant) -> float:
        return compare(expected, evaluate(files[variant], rows, engine=variant.engines[0])).mean_value_difference

    for form in FILE_NAMES:
        assert off(Variant(form, "bfloat16")) > 4 * off(Variant(form, "float16"))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_file_says_what_it_is(variant: Variant, files: dict[Variant, Path], network: BlobNet) -> None:
    metadata = read_metadata(files[variant])
    assert (metadata["format"], metadata["precision"]) == (variant.format, variant.precision)
    assert metadata["weights_sha256"] == describe(network).weights_sha256
    assert (metadata["observation_version"], metadata["step"]) == (str(OBSERVATION_VERSION), "3")
    assert variant_of(files[variant]) == variant


def test_half_types_halve_the_file(files: dict[Variant, Path]) -> None:
    size = {variant: path.stat().st_size for variant, path in files.items()}
    for variant in (Variant("onnx", "float16"), Variant("torchscript", "float16"), Variant("torchscript", "bfloat16")):
        assert size[variant] < 0.65 * size[Variant(variant.format, "float32")]


def test_whole_numbers_stay_exact_in_float16(files: dict[Variant, Path], network: BlobNet) -> None:
    """Game totals up to 65,535 and bytes up to 255 enter sums and comparisons before anything is rounded."""
    rows = np.random.default_rng(3).integers(0, 256, (512, OBSERVATION_BYTES), dtype=np.uint8)
    *features, orders, patterns = network.decoder(torch.from_numpy(rows))
    session = onnx.load(str(files[Variant("onnx", "float16")]))
    rounded = [
        node for node in session.graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16
    ]
    before = {rounded[i].input[0] for i in range(2)}
    for name in before:
        session.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    names = sorted(before)
    found = onnxruntime.InferenceSession(session.SerializeToString()).run(names, {"observation": rows})
    widths = {part.shape[-1]: part for part in found}
    for part in features:
        np.testing.assert_array_equal(widths[part.shape[-1]], part.numpy())
    assert orders.dtype == patterns.dtype == torch.int32


def test_onnx_runtime_has_no_bfloat16_products(files: dict[Variant, Path], rows: NDArray[np.uint8]) -> None:
    """Once it has, `onnx bfloat16` can be served by it, and this test says so."""
    kind = TensorProto.BFLOAT16
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info(name, kind, [4, 4]) for name in "ab"],
        [helper.make_tensor_value_info("c", kind, [4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(ExportError, match="expected openvino for onnx bfloat16, got onnxruntime"):
        evaluate(files[Variant("onnx", "bfloat16")], rows, engine="onnxruntime")


@pytest.mark.parametrize("variant", [ONNX, TORCHSCRIPT], ids=str)
def test_properties_can_be_added(variant: Variant, copies: dict[Variant, Path], rows: NDArray[np.uint8]) -> None:
    path = copies[variant]
    engine, before = variant.engines[0], read_metadata(path)
    answers = evaluate(path, rows, engine=engine)
    added = {"parity": '{"pytorch": 1}', "step": "4"}
    annotate(path, added)
    assert read_metadata(path) == {**before, **added}
    assert compare(answers, evaluate(path, rows, engine=engine)).max_logit_difference == 0
    assert [found.name for found in path.parent.iterdir() if found.name.startswith(".")] == []


@pytest.mark.parametrize("variant", [ONNX, TORCHSCRIPT], ids=str)
def test_damaged_files_are_refused_in_one_line(variant: Variant, copies: dict[Variant, Path]) -> None:
    path = copies[variant]
    whole = path.read_bytes()
    for content in (b"", b"garbage", whole[:5000], whole[: len(whole) // 2], whole[:-1000]):
        path.write_bytes(content)
        with pytest.raises(InvalidModel) as caught:
            read_metadata(path)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(InvalidModel):
        read_metadata(path)


class _Payload:
    """What a pickle could do."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("name", ["model.pt", "model.onnx"])
def test_pickles_are_refused_and_never_executed(name: str, copies: dict[Variant, Path], tmp_path: Path) -> None:
    path, witness = tmp_path / name, tmp_path / "executed"
    payload = _Payload(witness)
    torch.save({"weights": payload}, tmp_path / "new")
    torch.save({"weights": payload}, tmp_path / "old", _use_new_zipfile_serialization=False)
    inside = tmp_path / "inside"  # of a TorchScript file, in place of its own data
    with zipfile.ZipFile(copies[TORCHSCRIPT]) as source, zipfile.ZipFile(inside, "w") as target:
        for entry in source.namelist():
            is_data = entry.endswith(("data.pkl", "constants.pkl"))
            target.writestr(entry, pickle.dumps(payload) if is_data else source.read(entry))
    for content in (pickle.dumps(payload), *((tmp_path / kind).read_bytes() for kind in ("new", "old", "inside"))):
        path.write_bytes(content)
        with pytest.raises(InvalidModel):
            read_metadata(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(payload))
    assert witness.exists()  # or the payload did nothing anyway


def spoil_onnx(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))


def test_onnx_files_of_another_contract_are_refused(copies: dict[Variant, Path], files: dict[Variant, Path]) -> None:
    path = copies[ONNX]

    def refused(says: str) -> None:
        with pytest.raises(InvalidModel, match=says):
            read_metadata(path)
        path.write_bytes(files[ONNX].read_bytes())

    rename_output(path, "policy", "logits")
    refused("expected tensor policy")
    spoil_onnx(path, lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT8))
    refused("expected tensor observation .* UINT8")
    spoil_onnx(path, lambda model: model.graph.output.append(model.graph.output[0].__class__(name="third")))
    refused("expected")
    state_property(path, "observation_version", "99")
    refused("expected observation version 2, got 99")

    def poison(model: onnx.ModelProto) -> None:
        weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
        numbers = onnx.numpy_helper.to_array(weights).copy()
        numbers[0, 0] = np.inf
        weights.CopyFrom(onnx.numpy_helper.from_array(numbers, weights.name))

    spoil_onnx(path, poison)
    refused("expected finite weights")
    read_metadata(path)


class _Graph(torch.nn.Module):
    """A graph as a TorchScript file may hold it: of so many rows, columns and outputs, and of some type."""

    def __init__(
        self, *, rows: int | None = None, width: int = 66, n_outputs: int = 2, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.rows, self.width, self.n_outputs, self.dtype = rows, width, n_outputs, dtype

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = observation.to(self.dtype)
        if self.rows is not None:
            x = x.reshape(self.rows, OBSERVATION_BYTES)
        return (x[:, : self.width], x[:, :8], x[:, :1])[: self.n_outputs]


class _Renamed(_Graph):
    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(rows)


def write_graph(path: Path, module: torch.nn.Module, properties: str = '{"observation_version": "2"}') -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module, torch.zeros(2, OBSERVATION_BYTES, dtype=torch.uint8))
        torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: properties})


def test_torchscript_files_of_another_contract_are_refused(network: BlobNet, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_graph(path, _Graph())
    assert read_metadata(path) == {"observation_version": "2"}
    infinite = create_network("small", seed=5)
    with torch.no_grad():
        infinite.value.bias[0] = torch.nan
    for module, says in (
        (_Graph(width=65), r"float32 \[2, 65\]"),
        (_Graph(n_outputs=3), "expected outputs"),
        (_Graph(n_outputs=1), "expected outputs"),
        (_Graph(dtype=torch.float16), "got .*float16"),
        (_Graph(rows=2), "expected a graph for observation"),
        (_Renamed(), "expected the argument observation, got .*rows"),
        (infinite, "expected finite weights"),
    ):
        write_graph(path, module)
        with pytest.raises(InvalidModel, match=says):
            read_metadata(path)
    for properties, says in (("", "metadata.json"), ("[1]", "metadata.json"), ("{}", "expected observation version 2")):
        write_graph(path, _Graph(), properties)
        with pytest.raises(InvalidModel, match=says):
            read_metadata(path)


def test_what_a_precision_cannot_hold_is_not_written(tmp_path: Path, rows: NDArray[np.uint8]) -> None:
    network = create_network("small", seed=5)
    with torch.no_grad():
        network.value.weight[0, 0] = 1e6
    for form, name in FILE_NAMES.items():
        (tmp_path / name).write_bytes(b"what was there")
        with pytest.raises(InvalidModel, match="expected finite weights"):
            build(network, Variant(form, "float16"), tmp_path / name, metadata={}, calibration=rows)
        assert (tmp_path / name).read_bytes() == b"what was there"
    with pytest.raises(ExportError, match="got torchscript int8; choose another"):
        build(network, Variant("torchscript", "int8"), tmp_path / "model.pt", metadata={}, calibration=rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILE_NAMES.values())
