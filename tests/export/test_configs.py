# SPDX-License-Identifier: Apache-2.0
"""The generated configurations of Triton, as its own protobuf reads them."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from clients.triton.served_model import check_served_model
from export.publishing.config import MAX_BATCH_SIZE, config_names, config_path, ensure_config, render_config
from mcts_ext.contract import MODEL_NAME

PROJECT = Path(__file__).resolve().parents[2]
CPU, GPU = model_config_pb2.ModelInstanceGroup.KIND_CPU, model_config_pb2.ModelInstanceGroup.KIND_GPU
EXPECTED = {
    "config": ("openvino", CPU),
    "cpu": ("openvino", CPU),
    "onnxruntime": ("onnxruntime", CPU),
    "pytorch": ("pytorch", CPU),
    "gpu": ("onnxruntime", GPU),
    "gpu-fp32": ("onnxruntime", GPU),
}


def parse(name: str) -> Any:
    return text_format.Parse(render_config(name), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("name", config_names())
def test_the_committed_configuration_is_the_generated_one(name: str) -> None:
    assert config_path(PROJECT / "model_repo", name).read_text() == render_config(name)


def test_no_other_configuration_is_committed() -> None:
    folder = PROJECT / "model_repo" / MODEL_NAME / "configs"
    assert {path.stem for path in folder.iterdir()} | {"config"} == set(config_names()) == set(EXPECTED)


@pytest.mark.parametrize("name", config_names())
def test_triton_reads_the_configuration(name: str) -> None:
    config = parse(name)
    assert config.name == MODEL_NAME
    assert (config.backend, config.instance_group[0].kind) == EXPECTED[name]
    # Tensors and the observation's version, as a client checks them before it asks.
    assert check_served_model(config, model=name, url="here") == MAX_BATCH_SIZE
    assert config.parameters["observation_version"].string_value
    assert config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 2
    assert [(group.count, len(config.instance_group)) for group in config.instance_group] == [(2, 1)]


def test_cpu_is_the_default_by_name() -> None:
    default, cpu = (render_config(name).splitlines() for name in ("config", "cpu"))
    assert [line for line, other in zip(default, cpu, strict=True) if line != other] == [default[1]]


def test_nvidias_openvino_backend_finds_the_file() -> None:
    assert parse("config").default_model_filename == "model.onnx"  # it would look for model.xml


def test_the_gpu_configuration_covers_every_batch_and_keeps_no_engine() -> None:
    config = parse("gpu")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "trt_profile_min_shapes": "observation:1x96",
        "trt_profile_opt_shapes": "observation:1024x96",
        "trt_profile_max_shapes": "observation:1024x96",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/tmp",
    }
    warmup = [(step.batch_size, list(step.inputs["observation"].dims)) for step in config.model_warmup]
    assert warmup == [(1, [96]), (MAX_BATCH_SIZE, [96])]


@pytest.mark.parametrize("name", config_names())
def test_no_configuration_asks_an_engine_for_a_precision(name: str) -> None:
    """TensorRT 11 has no such flag: what is asked of it so is float32 without a word. The file's own types count."""
    accelerators = parse(name).optimization.execution_accelerators.gpu_execution_accelerator
    assert all("precision_mode" not in one.parameters for one in accelerators)


def test_the_gpu_configuration_in_float32_rounds_nothing() -> None:
    (accelerator,) = parse("gpu-fp32").optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})


@pytest.mark.parametrize("name", config_names())
def test_a_gpu_configuration_says_that_it_was_not_run(name: str) -> None:
    assert ("Could not be run where it was written" in render_config(name)) == name.startswith("gpu")


def test_a_configuration_tuned_by_hand_stays(tmp_path: Path) -> None:
    ensure_config(tmp_path)
    config_path(tmp_path).write_text("tuned")
    ensure_config(tmp_path)
    assert config_path(tmp_path).read_text() == "tuned"
