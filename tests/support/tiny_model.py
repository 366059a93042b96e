# SPDX-License-Identifier: Apache-2.0
"""A model repository made on the spot, around a tiny network.

The network is one matrix per output, so a test can say in NumPy what the server must answer.
"""

import os
from pathlib import Path

import numpy as np
import onnx
import psutil
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mcts_ext import contract

MODEL = contract.MODEL_NAME
CONFIG = """
name: "{model}"
backend: "{backend}"
max_batch_size: 1024
input [ {{ name: "{input}" data_type: TYPE_UINT8 dims: [ {n_bytes} ] }} ]
output [ {{ name: "policy" data_type: TYPE_FP32 dims: [ 66 ] }}, {{ name: "value" data_type: TYPE_FP32 dims: [ 8 ] }} ]
dynamic_batching {{ {batching} }}
instance_group [ {{ count: {n_instances} kind: KIND_CPU }} ]
parameters {{ key: "precision" value {{ string_value: "{precision}" }} }}
parameters {{ key: "threads" value {{ string_value: "1" }} }}
"""


def tiny_weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """One matrix `[F, width]` per output."""
    rng = np.random.default_rng(seed)
    widths = {contract.POLICY_NAME: contract.N_ACTIONS, contract.VALUE_NAME: contract.N_SEATS}
    return {n: rng.standard_normal((contract.OBSERVATION_BYTES, w)).astype(np.float32) / 100 for n, w in widths.items()}


def write_version(model_folder: Path, *, version: int, seed: int, scale: float = 1.0) -> Path:
    """Write `<version>/model.onnx`; `scale` NaN spoils its weights."""
    weights = {name: matrix * np.float32(scale) for name, matrix in tiny_weights(seed).items()}
    nodes = [helper.make_node("Cast", [contract.INPUT_NAME], ["x"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("MatMul", ["x", f"w_{name}"], [name]) for name in weights]
    rows = helper.make_tensor_value_info(contract.INPUT_NAME, TensorProto.UINT8, ["batch", contract.OBSERVATION_BYTES])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", matrix.shape[1]])
        for name, matrix in weights.items()
    ]
    initializers = [numpy_helper.from_array(matrix, f"w_{name}") for name, matrix in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [rows], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = model_folder / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, str(path))
    return path


def write_repository(
    root: Path,
    *,
    backend: str = "openvino",
    precision: str = "f32",
    n_instances: int = 1,
    batching: str = "",
    seed: int = 1,
    scale: float = 1.0,
) -> Path:
    """Write a repository with version 1 of the tiny network; returns `root`."""
    folder = root / contract.MODEL_NAME
    write_version(folder, version=1, seed=seed, scale=scale)
    text = CONFIG.format(
        model=contract.MODEL_NAME,
        input=contract.INPUT_NAME,
        backend=backend,
        precision=precision,
        n_instances=n_instances,
        batching=batching,
        n_bytes=contract.OBSERVATION_BYTES,
    )
    (folder / "config.pbtxt").write_text(text)
    return root


def random_rows(n_rows: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 200, (n_rows, contract.OBSERVATION_BYTES), np.uint8)


def request_input(rows: NDArray[np.uint8]) -> triton.InferInput:
    source = triton.InferInput(contract.INPUT_NAME, list(rows.shape), "UINT8")
    source.set_data_from_numpy(rows)
    return source


def assert_answers_match(answer: triton.InferResult, rows: NDArray[np.uint8], seed: int) -> None:
    for name, matrix in tiny_weights(seed).items():
        np.testing.assert_allclose(answer.as_numpy(name), rows.astype(np.float32) @ matrix, rtol=1e-4, atol=1e-4)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def traces_of(pids: list[int], folder_name: str) -> list[str]:
    """What is left of a server: processes, shared memory, its temporary folder."""
    left = [f"process {pid}" for pid in pids if is_running(pid)]
    left += [str(p) for p in Path("/dev/shm").glob(f"{folder_name}*")]
    return left + [str(p) for p in Path(os.environ.get("TMPDIR", "/tmp")).glob(folder_name)]
