# SPDX-License-Identifier: Apache-2.0
"""Validation of a model repository for errors that Triton reports late or not at all."""

import re
import shlex
from pathlib import Path

from clients.files import read_small, reason
from mcts_ext.versions import is_left_out, is_mistaken, version_number
from serving.errors import ModelNotServable
from serving.install import BACKENDS

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
"""Valid model names: the name becomes part of the shell command that starts a stub."""


def check_repository(repository: Path, *, model: str, config_name: str | None = None) -> None:
    """Check that the model, the named configuration and a version exist.

    Raises:
        ModelNotServable: if one is missing or unreadable, or the model's name is not safe in a shell.
    """
    if not NAME.fullmatch(model):
        raise ModelNotServable(
            f"expected a model name of letters, digits and _ . + -, got {model!r}; rename its folder"
        )
    try:
        _check_files(repository / model, config_name)
    except OSError as error:
        raise ModelNotServable(f"expected a model repository at {repository}, got {reason(error)}") from error


def _check_files(folder: Path, config_name: str | None) -> None:
    path = folder / "config.pbtxt"
    if not path.is_file():
        raise ModelNotServable(f"expected {path}, got no file; publish a network first ({_publish(folder)})")
    if config_name is not None:
        path = folder / "configs" / f"{config_name}.pbtxt"
        if not path.is_file():  # Triton would silently fall back to config.pbtxt
            known = sorted(p.stem for p in path.parent.glob("*.pbtxt"))
            raise ModelNotServable(f"expected {path}, got no file; choose one of {', '.join(known) or 'none'}")
    backend = re.search(r'^\s*backend\s*:\s*"(\w+)"', read_small(path).decode(errors="replace"), re.MULTILINE)
    file = BACKENDS.get(backend[1] if backend else "", "model.onnx")
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    if mistaken := [name for name in names if is_mistaken(name)]:
        raise ModelNotServable(
            f"expected version folders 0, 1, 2, ... in {folder}, got {mistaken[0]!r}, on which Triton fails; "
            "move it elsewhere"
        )
    if not any(version_number(name) is not None and (folder / name / file).is_file() for name in names):
        ignored = next((name for name in names if is_left_out(name)), None)
        got = "no version" if ignored is None else f"{ignored}, which Triton ignores for its leading zero"
        advice = f"publish one ({_publish(folder)})" if ignored is None else "rename it (blobzero doctor)"
        raise ModelNotServable(f"expected {folder}/<version>/{file}, got {got}; {advice}")


def _publish(folder: Path) -> str:
    return f"blobzero publish --repository {shlex.quote(str(folder.parent))}"
