# SPDX-License-Identifier: Apache-2.0
"""From what a person calls a player to one that plays.

| name | who |
| --- | --- |
| `random`, `heuristic` | bots (clients/bots.py) |
| `search-uniform` | our search without a network: every action alike, every seat half its points |
| `latest`, `version:N` | a version of the model: by the server, or here where that does not serve it |
| a path | an exported `.onnx`, or a checkpoint, computed in this process |
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from clients.bots import Bot, HeuristicBot, RandomBot
from clients.evaluator import Evaluator, UniformEvaluator
from clients.match import Player
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import InvalidConfig

BOTS: Final[Mapping[str, Callable[[], Bot]]] = {"random": RandomBot, "heuristic": HeuristicBot}


def open_player(name: str, *, url: str | None, repository: Path, stack: ExitStack) -> Player:
    """The player of that name; what it needs is closed with `stack`.

    Raises:
        InvalidConfig: no player has that name. BlobError: a subclass says why its network does not answer.
    """
    if name in BOTS:
        return Player(name, bot=BOTS[name]())
    return Player(name, evaluator=stack.enter_context(_open_evaluator(name, url, repository, stack)))


def _open_evaluator(name: str, url: str | None, repository: Path, stack: ExitStack) -> Evaluator:
    if name == "search-uniform":
        return UniformEvaluator()
    kind, _, version = name.partition(":")
    if name == "latest" or (kind == "version" and version.isdecimal()):
        return _version(version, url, repository)
    from clients.local import LocalEvaluator

    path = Path(name)
    if path.suffix == ".onnx":
        return LocalEvaluator(path)
    if path.suffix == ".safetensors":
        return LocalEvaluator(_export(path, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-")))))
    known = ", ".join([*BOTS, "search-uniform", "latest", "version:N", "a path of an .onnx or .safetensors file"])
    raise InvalidConfig(f"expected a player of {known}, got {name!r}")


def _version(version: str, url: str | None, repository: Path) -> Evaluator:
    """A version of the model: through the server where it serves it."""
    from clients.local import LocalEvaluator, latest_model_file

    if url is not None:
        from clients.errors import ModelNotFound
        from clients.triton import TritonEvaluator

        try:
            return TritonEvaluator(url, model_version=version, server_timeout_s=0.0 if version else 60.0)
        except ModelNotFound:
            if not version:
                raise
    if not version:
        return LocalEvaluator(latest_model_file(repository, MODEL_NAME))
    return LocalEvaluator(repository / MODEL_NAME / version / "model.onnx")


def _export(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint's network as a file, in float32."""
    from export.graph import export_onnx, metadata_of  # PyTorch takes seconds to import
    from training.checkpoint import load_checkpoint

    network, info = load_checkpoint(checkpoint)
    path = folder / "model.onnx"
    export_onnx(network, path, metadata=metadata_of(info))
    return path
