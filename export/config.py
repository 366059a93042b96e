# SPDX-License-Identifier: Apache-2.0
"""What Triton is told about the model: `config.pbtxt` and its variants, generated from the contract.

```
<repository>/blobnet/config.pbtxt            generated, committed
<repository>/blobnet/configs/<name>.pbtxt    the same model served in another way (serve --config-name)
```
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from export.errors import RepositoryError, unwritable
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, N_ACTIONS, N_SEATS, OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME
from training.files import write_whole

MAX_BATCH_SIZE: Final = 1024

_PRECISION: Final = """
# Of what the file leaves in floating point: all of a float32 file, little of an int8 one. auto: bfloat16 where the
# processor multiplies matrices in it (AMX), float32 elsewhere. On a processor without AMX one thread gave 12.3k rows/s
# in bfloat16, 19.1k in float32, and 50k with an int8 file (preset reference, 512 rows).
parameters { key: "precision" value: { string_value: "auto" } }
"""

_VARIANTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "config": ("openvino", "OpenVINO on the CPU", _PRECISION),
    "onnxruntime": ("onnxruntime", "ONNX Runtime on the CPU, in float32", ""),
}

_TEMPLATE: Final = """\
# Generated from mcts_ext/contract.py by export/config.py; a test compares the two. Serves with {how}.
name: "{model}"
backend: "{backend}"
# Rows/s of two threads in int8 at 64, 256, 512, 1,024 and 2,048 rows: 75k, 90k, 96k, 95k and 100k.
max_batch_size: {max_batch_size}
input [ {{ name: "{input}" data_type: TYPE_UINT8 dims: [ {n_bytes} ] }} ]
output [
  {{ name: "{policy}" data_type: TYPE_FP32 dims: [ {n_actions} ] }},
  {{ name: "{value}" data_type: TYPE_FP32 dims: [ {n_seats} ] }}
]
# The newest version serves; an explicit load switches without losing a request.
version_policy {{ latest {{ num_versions: 1 }} }}
# Requests that wait while a batch runs go together into the next one; nobody waits for company.
dynamic_batching {{ }}
# While one instance takes its batch in and hands its answers out the other computes. On two cores, one thread each
# gave 72k evaluations/s in self-play where one instance with two threads gave 66k: threads of one batch wait for
# each other.
instance_group [ {{ count: 2 kind: KIND_CPU }} ]
{parameters}# 0: the cores the server may use, shared among the instances.
parameters {{ key: "threads" value: {{ string_value: "0" }} }}
"""


def config_names() -> list[str]:
    """The configurations there are; "config" is the default one, `config.pbtxt`."""
    return list(_VARIANTS)


def render_config(name: str = "config") -> str:
    """The text of one `.pbtxt` of the model."""
    if name not in _VARIANTS:
        raise RepositoryError(f"expected a configuration of {config_names()}, got {name!r}")
    backend, how, parameters = _VARIANTS[name]
    return _TEMPLATE.format(
        how=how,
        backend=backend,
        model=MODEL_NAME,
        max_batch_size=MAX_BATCH_SIZE,
        input=INPUT_NAME,
        n_bytes=OBSERVATION_BYTES,
        policy=POLICY_NAME,
        n_actions=N_ACTIONS,
        value=VALUE_NAME,
        n_seats=N_SEATS,
        parameters=parameters.lstrip("\n"),
    )


def config_path(repository: Path, name: str = "config") -> Path:
    """Where Triton looks for a configuration."""
    folder = repository / MODEL_NAME
    return folder / "config.pbtxt" if name == "config" else folder / "configs" / f"{name}.pbtxt"


def ensure_config(repository: Path) -> None:
    """Write the configurations that are missing; those that are there stay, for they may be tuned by hand.

    Raises:
        RepositoryError: the folder cannot be written.
    """
    for name in config_names():
        path = config_path(repository, name)
        try:
            if not path.is_file():
                write_whole(path, render_config(name).encode())
        except OSError as error:
            raise unwritable(repository, error) from error
