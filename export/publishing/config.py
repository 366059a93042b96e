# SPDX-License-Identifier: Apache-2.0
"""Triton's model configuration `config.pbtxt` and its variants, generated from the contract.

```
<repository>/blobnet/config.pbtxt            generated, committed
<repository>/blobnet/configs/<name>.pbtxt    alternative configurations of the model (serve --config-name)
```

docs/design/serving.md ("Configurations") cites the source of each key.
"""

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from clients.files import write_whole
from export.errors import RepositoryError, writing
from mcts_ext.contract import (
    INPUT_NAME,
    MODEL_NAME,
    N_ACTIONS,
    N_SEATS,
    OBSERVATION_BYTES,
    OBSERVATION_VERSION,
    POLICY_NAME,
    VALUE_NAME,
)

MAX_BATCH_SIZE: Final = 1024

_TEMPLATE: Final = """\
# Generated from mcts_ext/contract.py by export/publishing/config.py; a test compares the two.
# Serves with $how
name: "$model"
backend: "$backend"
max_batch_size: $max_batch_size
input [ { name: "$input" data_type: TYPE_UINT8 dims: [ $n_bytes ] } ]
output [
  { name: "$policy" data_type: TYPE_FP32 dims: [ $n_actions ] },
  { name: "$value" data_type: TYPE_FP32 dims: [ $n_seats ] }
]
# Meaning of the bytes of an observation; clients and model files of another version are rejected.
parameters { key: "observation_version" value: { string_value: "$observation_version" } }
# Two versions are served at once, so that a match can pin one while other clients follow the latest, and a swap never
# removes the version that clients use. Loading a new version does not reload the previous one.
version_policy { latest { num_versions: 2 } }
# Requests that arrive while a batch is computed form the next batch; no request waits for a batch to fill.
dynamic_batching { }
"""

_ON_CPU: Final = """\
# max_batch_size: with 64, 256, 512, 1,024 and 2,048 rows, two threads in int8 computed 75k, 90k, 96k, 95k and 100k
# rows/s. While one instance receives a batch or returns results, the other computes. In self-play on two cores, two
# instances with one thread each reached 72k evaluations/s, one instance with two threads 66k, since the threads of one
# batch wait for each other.
instance_group [ { count: 2 kind: KIND_CPU } ]
# Threads per instance; 0 divides the server's cores among the instances.
parameters { key: "threads" value: { string_value: "0" } }
"""

_OPENVINO: Final = """\
# NVIDIA's backend looks for model.xml by default. It only answers full batches (issue 7363 of Triton's server), so use
# onnxruntime.pbtxt in NVIDIA's container; our backend accepts batches of any size.
default_model_filename: "model.onnx"
# Precision of the operations that the file leaves in floating point: all of a float32 file, few of an int8 file. auto:
# bfloat16 if the processor has AMX or the file is bfloat16, otherwise float32. On a processor without AMX, one thread
# computed 12.3k rows/s in bfloat16, 19.1k in float32, and 50k with an int8 file (preset reference, 512 rows).
parameters { key: "precision" value: { string_value: "auto" } }
"""

_TORCHSCRIPT: Final = """\
# The file is model.pt, the default name. Its `forward` takes `$input` and returns ($policy, $value): outputs of
# TorchScript have no names, so they are matched in the order in which they are declared above.
# Makes NVIDIA's backend omit the bookkeeping for gradients; our backend always does.
parameters { key: "INFERENCE_MODE" value: { string_value: "true" } }
"""

_ON_GPU: Final = """\
# On each GPU, one instance computes while the other copies its rows or results.
instance_group [ { count: 2 kind: KIND_GPU } ]
# An instance is ready once it has computed the smallest and the largest batch, which loads kernels and takes memory.
model_warmup [
  { name: "one row" batch_size: 1
    inputs { key: "$input" value: { data_type: TYPE_UINT8 dims: [ $n_bytes ] zero_data: true } } },
  { name: "largest batch" batch_size: $max_batch_size
    inputs { key: "$input" value: { data_type: TYPE_UINT8 dims: [ $n_bytes ] zero_data: true } } }
]
"""

_TENSORRT: Final = """\
# TensorRT builds its engine when the file is loaded, and computes in the file's types, so publish float16, not int8.
# precision_mode is not set: TensorRT 11 has no such flag, and silently uses float32 if FP16 is requested.
# CUDA graphs stay off: only NVIDIA's TensorRT backend reads `optimization { cuda { graphs } }`, and ONNX Runtime's
# `trt_cuda_graph_enable` replays one graph for all shapes, while dynamic batches have many shapes.
optimization { execution_accelerators { gpu_execution_accelerator [ {
  name: "tensorrt"
  # One engine for all batch sizes, tuned for full batches. Without these three lines the engine is rebuilt whenever a
  # batch is larger or smaller than all before. TensorRT must support the whole graph, including casts from uint8 to
  # int32 (10 does). If loading fails with "no associated shape profiles", delete them: the warm-up then sets the range.
  parameters { key: "trt_profile_min_shapes" value: "$input:1x$n_bytes" }
  parameters { key: "trt_profile_opt_shapes" value: "$input:${max_batch_size}x$n_bytes" }
  parameters { key: "trt_profile_max_shapes" value: "$input:${max_batch_size}x$n_bytes" }
  # No engine cache: its key does not include the weights, so a new version would be served with the weights of the
  # previous one (ONNX Runtime's issue 6455). The timing cache holds no weights, only measured times.
  parameters { key: "trt_timing_cache_enable" value: "1" }
  # Outside the model's folder, where a changed file would make Triton reload all versions.
  parameters { key: "trt_timing_cache_path" value: "/tmp" }
} ] } }
"""

_CUDA: Final = """\
# ONNX Runtime's CUDA provider without TF32 (the default), which rounds the factors of products to 10 bits. A float16
# file would be computed in float16 here too, so publish with --precision float32.
optimization { execution_accelerators { gpu_execution_accelerator [ {
  name: "cuda"
  parameters { key: "use_tf32" value: "0" }
} ] } }
"""


class _Configuration(NamedTuple):
    backend: str
    how: str  # end of the sentence "Serves with ..."
    sections: str  # after `_TEMPLATE`


_UNTRIED: Final = """
# Could not be run where it was written, without a GPU: the keys come from Triton's manuals, and speed and precision are
# unknown. Check them before use; blobzero publish --url does."""
_VARIANTS: Final[Mapping[str, _Configuration]] = {
    "config": _Configuration("openvino", "OpenVINO on the CPU.", _ON_CPU + _OPENVINO),
    "cpu": _Configuration("openvino", "OpenVINO on the CPU, as config.pbtxt does.", _ON_CPU + _OPENVINO),
    "onnxruntime": _Configuration("onnxruntime", "ONNX Runtime on the CPU.", _ON_CPU),
    "pytorch": _Configuration("pytorch", "PyTorch (TorchScript) on the CPU.", _ON_CPU + _TORCHSCRIPT),
    "gpu": _Configuration(
        "onnxruntime", "TensorRT through ONNX Runtime, in the file's types." + _UNTRIED, _ON_GPU + _TENSORRT
    ),
    "gpu-fp32": _Configuration(
        "onnxruntime", "ONNX Runtime on a GPU; float32 stays float32." + _UNTRIED, _ON_GPU + _CUDA
    ),
}


def config_names() -> list[str]:
    """Return the names of the configurations; "config" is the default, `config.pbtxt`."""
    return list(_VARIANTS)


def render_config(name: str = "config") -> str:
    """Return the text of one `.pbtxt` of the model."""
    if name not in _VARIANTS:
        raise RepositoryError(f"expected a configuration of {config_names()}, got {name!r}")
    variant = _VARIANTS[name]
    return Template(_TEMPLATE + variant.sections).substitute(
        variant._asdict(),
        model=MODEL_NAME,
        max_batch_size=MAX_BATCH_SIZE,
        input=INPUT_NAME,
        n_bytes=OBSERVATION_BYTES,
        policy=POLICY_NAME,
        n_actions=N_ACTIONS,
        value=VALUE_NAME,
        n_seats=N_SEATS,
        observation_version=OBSERVATION_VERSION,
    )


def config_path(repository: Path, name: str = "config") -> Path:
    """Return the path of a configuration."""
    folder = repository / MODEL_NAME
    return folder / "config.pbtxt" if name == "config" else folder / "configs" / f"{name}.pbtxt"


def ensure_config(repository: Path) -> None:
    """Write missing configurations; existing ones are kept because they may have been edited.

    Raises:
        RepositoryError: if the folder cannot be written.
    """
    with writing(repository):
        for name in config_names():
            path = config_path(repository, name)
            if not path.is_file():
                write_whole(path, render_config(name).encode())
