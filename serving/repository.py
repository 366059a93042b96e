# SPDX-License-Identifier: Apache-2.0
"""A model repository, checked for what Triton would complain about late, or not at all."""

import re
import shlex
from pathlib import Path

from clients.files import read_small, reason
from mcts_ext.versions import is_left_out, is_mistaken, version_number
from serving.errors import ModelNotFound
from serving.install import BACKENDS

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
"""A model's name stands in the command by which a shell starts a stub, so nothing else may be in it."""


def check_repository(repository: Path, *, model: str, config_name: str | None = None) -> None:
    """Check that there is a model, the configuration named, and a version of it.

    Raises:
        ModelNotFound: there is not, or it cannot be read, or the name is one that a shell would read as more.
    """
    if not NAME.fullmatch(model):
        raise ModelNotFound(f"expected a model's name of letters, digits and _ . + -, got {model!r}; rename its folder")
    try:
        _check_files(repository / model, config_name)
    except OSError as error:
        raise ModelNotFound(f"expected a model repository at {repository}, got {reason(error)}") from error


def _check_files(folder: Path, config_name: str | None) -> None:
    path = folder / "config.pbtxt"
    if not path.is_file():
        raise ModelNotFound(f"expected {path}, got nothing there; publish a network first ({_publish(folder)})")
    if config_name is not None:
        path = folder / "configs" / f"{config_name}.pbtxt"
        if not path.is_file():  # Triton would fall back to config.pbtxt in silence
            known = sorted(p.stem for p in path.parent.glob("*.pbtxt"))
            raise ModelNotFound(f"expected {path}, got nothing there; choose one of {', '.join(known) or 'none'}")
    backend = re.search(r'^\s*backend\s*:\s*"(\w+)"', read_small(path).decode(errors="replace"), re.MULTILINE)
    file = BACKENDS.get(backend[1] if backend else "", "model.onnx")
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    if mistaken := [name for name in names if is_mistaken(name)]:
        raise ModelNotFound(
            f"expected version folders 0, 1, 2, ... in {folder}, got {mistaken[0]!r}, over which Triton stumbles; "
            "move it elsewhere"
        )
    if not any(version_number(name) is not None and (folder / name / file).is_file() for name in names):
        left_out = next((name for name in names if is_left_out(name)), None)
        got = "no version" if left_out is None else f"{left_out}, which Triton leaves out for its leading zero"
        cure = f"publish one ({_publish(folder)})" if left_out is None else "rename it (blobzero doctor)"
        raise ModelNotFound(f"expected {folder}/<version>/{file}, got {got}; {cure}")


def _publish(folder: Path) -> str:
    return f"blobzero publish --repository {shlex.quote(str(folder.parent))}"
