# SPDX-License-Identifier: Apache-2.0
"""The model repository on disk, as Triton reads it.

```
<repository>/blobnet/config.pbtxt            generated from the contract, committed
<repository>/blobnet/configs/<name>.pbtxt    the same model served in another way (serve --config-name)
<repository>/blobnet/<version>/model.onnx    immutable: Triton may answer from a cache of what it loaded
```

A version folder is written aside, synced and renamed, so neither Triton nor another process sees half of one.
"""

import errno
import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from export.errors import RepositoryError
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, N_ACTIONS, N_SEATS, OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME
from training.files import sync, write_whole

MODEL_FILE: Final = "model.onnx"
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
# Generated from mcts_ext/contract.py by export/repository.py; a test compares the two. Serves with {how}.
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
            raise _unwritable(repository, error) from error


def versions(repository: Path, *, model: str = MODEL_NAME) -> list[int]:
    """The versions there are, oldest first; none where there is no repository."""
    try:
        names = [path.name for path in (repository / model).iterdir() if (path / MODEL_FILE).is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RepositoryError(f"expected a model repository, got {error}; name another folder") from error
    return sorted(int(name) for name in names if name.isdecimal())


def model_path(repository: Path, version: int, *, model: str = MODEL_NAME) -> Path:
    """The file of one version."""
    return repository / model / str(version) / MODEL_FILE


def publish_version(repository: Path, onnx_file: Path, *, version: int | None = None) -> int:
    """Copy `onnx_file` in as a new version: by default the one after the latest.

    Raises:
        RepositoryError: the version exists, or the folder cannot be written; nothing new is under a version's name.
    """
    folder = repository / MODEL_NAME
    aside = folder / f".incoming.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        shutil.copyfile(onnx_file, aside / MODEL_FILE)
        sync(aside / MODEL_FILE)
        sync(aside)
        return _rename_in(repository, aside, version)
    except OSError as error:
        raise _unwritable(repository, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def withdraw_version(repository: Path, version: int) -> None:
    """Take a version out again, in one step for whoever looks."""
    folder = repository / MODEL_NAME
    aside = folder / f".withdrawn.{version}.{os.getpid()}"
    try:
        (folder / str(version)).rename(aside)
        sync(folder)
    except OSError as error:
        raise _unwritable(repository, error) from error
    shutil.rmtree(aside, ignore_errors=True)


def _rename_in(repository: Path, aside: Path, version: int | None) -> int:
    """Give the folder its version's name; by default the first free one, whoever else publishes meanwhile."""
    first_free = max(versions(repository), default=0) + 1
    for wanted in itertools.count(first_free) if version is None else [version]:
        try:
            aside.rename(aside.with_name(str(wanted)))  # fails where a folder with files has that name
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            sync(aside.parent)
            return wanted
    raise RepositoryError(
        f"expected a free version, got {version}, which {repository} has; versions are never overwritten"
    )


def _unwritable(repository: Path, error: OSError) -> RepositoryError:
    return RepositoryError(
        f"expected a writable model repository with room, got {error} in {repository}; free space or name another"
    )
