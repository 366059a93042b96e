# SPDX-License-Identifier: Apache-2.0
"""Evaluators that need no server: the seam's conformance, the stand-ins' numbers, models in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.errors import ModelMismatch, ModelNotFound, UnsoundAnswer
from clients.evaluator import Evaluator, HashEvaluator, UniformEvaluator, evaluate
from clients.local import (
    Engine,
    LocalEvaluator,
    latest_model_file,
)
from mcts_ext.contract import OBSERVATION_VERSION, POLICY_NAME, PRECISION_KEY, VALUE_NAME, VERSION_KEY
from mcts_ext.errors import InvalidConfig
from tests.support.conformance import EvaluatorConformance
from tests.support.models import rename_output, round_weights_to_float16, state_property, widen
from tests.support.tiny_model import random_rows, tiny_weights, write_version

ENGINES = ["openvino", "onnxruntime"]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return write_version(tmp_path / "blobnet", version=3, seed=1)


class TestStandIns(EvaluatorConformance):
    tolerance = 0

    @pytest.fixture(params=[UniformEvaluator, HashEvaluator])
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        return request.param()


class TestLocal(EvaluatorConformance):
    @pytest.fixture(params=ENGINES)
    def evaluator(self, request: pytest.FixtureRequest, model_file: Path) -> Evaluator:
        return LocalEvaluator(model_file, engine=request.param, precision="f32")


def test_uniform_knows_nothing() -> None:
    found = evaluate(UniformEvaluator(), random_rows(3, seed=1))
    assert not found.logits.any()
    assert (found.values == 0.5).all()


def test_hash_spreads_and_depends_on_every_byte() -> None:
    rows = random_rows(500, seed=2)
    found = evaluate(HashEvaluator(), rows)
    assert -2 <= found.logits.min() < -1.99 < 1.99 < found.logits.max() < 2
    assert 0 <= found.values.min() < 0.01 < 0.99 < found.values.max() < 1
    assert np.abs(np.corrcoef(np.hstack([found.logits, found.values]).T) - np.eye(74)).max() < 0.25
    for at in range(rows.shape[1]):
        other = rows[:1].copy()
        other[0, at] ^= 1
        assert (evaluate(HashEvaluator(), other).logits != found.logits[:1]).mean() > 0.9


def test_hash_stays_what_it_was() -> None:
    """Golden trees and seeds of past runs depend on these numbers."""
    found = evaluate(HashEvaluator(), np.arange(96, dtype=np.uint8)[None])
    np.testing.assert_array_equal(
        found.logits[0, :3], np.array([1.1898105144500732, 0.19112491607666016, 0.10987067222595215])
    )
    np.testing.assert_array_equal(
        found.values[0, :3], np.array([0.16291111707687378, 0.8038173317909241, 0.9096200466156006])
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_local_computes_the_network(model_file: Path, engine: Engine) -> None:
    rows = random_rows(300, seed=4)
    found = evaluate(LocalEvaluator(model_file, engine=engine, precision="f32"), rows)
    weights = tiny_weights(seed=1)
    np.testing.assert_allclose(found.logits, rows.astype(np.float32) @ weights[POLICY_NAME], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.values, rows.astype(np.float32) @ weights[VALUE_NAME], rtol=1e-4, atol=1e-4)
    assert found.model_version == 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: widen(path, 128), r"got observation uint8 \[B, 128\]"),
        (lambda path: rename_output(path, VALUE_NAME, "worth"), r"got .*worth float32 \[B, 8\]"),
        (
            lambda path: state_property(path, "observation_version", "99"),
            f"observation_version {OBSERVATION_VERSION} .*got 99",
        ),
    ],
    ids=["rows of 128 bytes", "another output", "another observation version"],
)
def test_local_refuses_another_contract(
    model_file: Path, engine: Engine, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(model_file)
    with pytest.raises(ModelMismatch, match=said):
        LocalEvaluator(model_file, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_local_accepts_its_own_observation_version(model_file: Path, engine: Engine) -> None:
    state_property(model_file, VERSION_KEY, str(OBSERVATION_VERSION))
    with LocalEvaluator(model_file, engine=engine) as evaluator:
        evaluate(evaluator, random_rows(1, seed=1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "garbage", "half"])
def test_local_refuses_a_broken_file(model_file: Path, engine: Engine, content: bytes | None) -> None:
    model_file.write_bytes(model_file.read_bytes()[:20000] if content is None else content)
    with pytest.raises(ModelMismatch, match=r"expected an ONNX model at .*; publish it again") as raised:
        LocalEvaluator(model_file, engine=engine)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_local_refuses_answers_that_are_not_finite(tmp_path: Path, engine: Engine) -> None:
    path = write_version(tmp_path, version=1, seed=1, scale=float("nan"))
    with pytest.raises(UnsoundAnswer, match="expected finite policy"):
        evaluate(LocalEvaluator(path, engine=engine, precision="f32"), random_rows(2, seed=1))


def test_local_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="blobzero publish"):
        LocalEvaluator(tmp_path / "model.onnx")
    with pytest.raises(ModelNotFound, match="got no version"):
        latest_model_file(tmp_path, "blobnet")


def test_latest_model_file_counts_rather_than_sorts(tmp_path: Path) -> None:
    for version in (9, 10, 2):
        write_version(tmp_path / "blobnet", version=version, seed=version)
    (tmp_path / "blobnet" / "11").mkdir()
    assert latest_model_file(tmp_path, "blobnet").parent.name == "10"


@pytest.mark.parametrize("engine", ENGINES)
def test_float16_weights_are_multiplied_in_float32(model_file: Path, engine: Engine) -> None:
    round_weights_to_float16(model_file)
    rows = random_rows(300, seed=4)
    found = evaluate(LocalEvaluator(model_file, engine=engine, precision="f32"), rows)
    expected = rows.astype(np.float32) @ tiny_weights(seed=1)[POLICY_NAME].astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-5, atol=1e-5)  # in float16 it would be 1.5e-2 off


def test_a_bfloat16_file_says_which_processor_it_needs(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_property(model_file, PRECISION_KEY, "bfloat16")
    monkeypatch.setattr("clients.local.cpu_flags", lambda: frozenset({"sse", "avx512f"}))
    with pytest.raises(InvalidConfig, match="expected a processor with avx512_bf16 or amx_bf16 for a bfloat16 file"):
        LocalEvaluator(model_file)
    said: list[str] = []
    LocalEvaluator(model_file, precision="f32", on_event=said.append)
    LocalEvaluator(model_file, engine="onnxruntime", on_event=said.append)
    assert all("bfloat16 file, matrix products in f32" in line for line in said)


def test_local_says_how_it_computes(model_file: Path) -> None:
    said: list[str] = []
    LocalEvaluator(model_file, on_event=said.append)
    assert len(said) == 1
    assert "OpenVINO" in said[0]
    assert "AMX" in said[0]
    with pytest.raises(InvalidConfig, match="bf16"):
        LocalEvaluator(model_file, engine="onnxruntime", precision="bf16")
