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
# What the bytes of an observation mean: a client or a file of another version is refused.
parameters { key: "observation_version" value: { string_value: "$observation_version" } }
# Two versions answer at once, so a match can pin one (--model-version) while others follow the newest, and a swap never
# takes away the version that clients ask for. An explicit load starts the new one and leaves the one before alone.
version_policy { latest { num_versions: 2 } }
# Requests that wait while a batch runs go together into the next one; none waits for a batch to fill.
dynamic_batching { }
"""

_ON_CPU: Final = """\
# max_batch_size: rows/s of two threads in int8 at 64, 256, 512, 1,024 and 2,048 rows were 75k, 90k, 96k, 95k and 100k.
# While one instance takes its batch in and hands its answers out the other computes. On two cores, one thread each
# gave 72k evaluations/s in self-play where one instance with two threads gave 66k: threads of one batch wait for
# each other.
instance_group [ { count: 2 kind: KIND_CPU } ]
# 0: the cores the server may use, shared among the instances.
parameters { key: "threads" value: { string_value: "0" } }
"""

_OPENVINO: Final = """\
# NVIDIA's own backend looks for model.xml unless told. It answers full batches only (issue 7363 of Triton's server),
# so in NVIDIA's container serve onnxruntime.pbtxt; the backend here takes any batch.
default_model_filename: "model.onnx"
# Of what the file leaves in floating point: all of a float32 file, little of an int8 one. auto: bfloat16 where the
# processor multiplies matrices in it (AMX) or the file asks for it, float32 elsewhere. On a processor without AMX one
# thread gave 12.3k rows/s in bfloat16, 19.1k in float32, and 50k with an int8 file (preset reference, 512 rows).
parameters { key: "precision" value: { string_value: "auto" } }
"""

_TORCHSCRIPT: Final = """\
# The file is model.pt, the default name. Its `forward` takes `$input` and returns ($policy, $value): TorchScript
# has no names for outputs, so they are taken in the order in which they stand above.
# Of NVIDIA's backend: no bookkeeping for gradients. The one here has none either.
parameters { key: "INFERENCE_MODE" value: { string_value: "true" } }
"""

_ON_GPU: Final = """\
# On each GPU: while one instance copies rows in or answers out, the other computes.
instance_group [ { count: 2 kind: KIND_GPU } ]
# An instance serves once it has answered the smallest and the largest batch: kernels loaded, memory taken.
model_warmup [
  { name: "one row" batch_size: 1
    inputs { key: "$input" value: { data_type: TYPE_UINT8 dims: [ $n_bytes ] zero_data: true } } },
  { name: "largest batch" batch_size: $max_batch_size
    inputs { key: "$input" value: { data_type: TYPE_UINT8 dims: [ $n_bytes ] zero_data: true } } }
]
"""

_TENSORRT: Final = """\
# TensorRT builds its engine when the file is loaded, and computes in the types that the file holds: publish float16.
# No precision_mode: TensorRT 11 has no such flag, and what asks it for FP16 gets float32 without a word. Not int8.
# CUDA graphs stay off: `optimization { cuda { graphs } }` is read by NVIDIA's TensorRT backend alone, and ONNX
# Runtime's `trt_cuda_graph_enable` replays one graph whatever the shape, where dynamic batches have many shapes.
optimization { execution_accelerators { gpu_execution_accelerator [ {
  name: "tensorrt"
  # One engine for every batch, tuned for a full one; without these three an engine is built anew whenever a batch is
  # larger or smaller than all before. TensorRT must take the whole graph, casts of uint8 to int32 included (10 does).
  # If one refuses the load with "no associated shape profiles", delete them: the warm-up then sets the range.
  parameters { key: "trt_profile_min_shapes" value: "$input:1x$n_bytes" }
  parameters { key: "trt_profile_opt_shapes" value: "$input:${max_batch_size}x$n_bytes" }
  parameters { key: "trt_profile_max_shapes" value: "$input:${max_batch_size}x$n_bytes" }
  # No engine cache: its key leaves the weights out, so a new version would be answered with the weights of the one
  # before (ONNX Runtime's issue 6455). The timing cache holds no weights: what it has timed is not timed again.
  parameters { key: "trt_timing_cache_enable" value: "1" }
  # Not in the model's folder, where a changed file makes Triton load every version again.
  parameters { key: "trt_timing_cache_path" value: "/tmp" }
} ] } }
"""

_CUDA: Final = """\
# ONNX Runtime's CUDA provider without TF32, its default, which rounds the factors of products to 10 bits. What the
# file holds in float16 is computed in float16 here too: publish with --precision float32.
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
# Could not be run where it was written, for want of a GPU: its keys are those of Triton's manuals, its speed and the
# precision of its answers are unknown. Compare before use: blobzero publish --url does."""
_VARIANTS: Final[Mapping[str, _Configuration]] = {
    "config": _Configuration("openvino", "OpenVINO on the CPU.", _ON_CPU + _OPENVINO),
    "cpu": _Configuration("openvino", "OpenVINO on the CPU, as config.pbtxt does.", _ON_CPU + _OPENVINO),
    "onnxruntime": _Configuration("onnxruntime", "ONNX Runtime on the CPU.", _ON_CPU),
    "pytorch": _Configuration("pytorch", "PyTorch (TorchScript) on the CPU.", _ON_CPU + _TORCHSCRIPT),
    "gpu": _Configuration(
        "onnxruntime", "TensorRT by ONNX Runtime, in the file's types." + _UNTRIED, _ON_GPU + _TENSORRT
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
