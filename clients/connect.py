# SPDX-License-Identifier: Apache-2.0
"""Factory of evaluators from their configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from clients.evaluator import Evaluator, HashEvaluator, UniformEvaluator
from clients.triton.counts import RequestCounts
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import InvalidConfig

Kind = Literal["triton", "local", "uniform", "hash"]


@dataclass(frozen=True)
class EvaluatorConfig:
    """Configuration of an evaluator."""

    kind: Kind = "triton"
    """`triton`: a server over gRPC; `local`: the model in this process; `uniform`, `hash`: no network."""
    url: str = ""
    """HOST:PORT of the server's gRPC endpoint, for `triton`."""
    model: str = MODEL_NAME
    model_version: str = ""
    """Version of the model, for `triton`; empty for the latest."""
    model_path: str = ""
    """ONNX file, for `local`."""
    threads: int = 1
    """Compute threads, for `local`."""
    server_timeout_s: float = 60.0
    """How long to retry while the server is unavailable."""


def connect(
    config: EvaluatorConfig, *, on_event: Callable[[str], None], counts: RequestCounts | None = None
) -> Evaluator:
    """Open an evaluator and check the model against the contract; the caller closes it. `counts` counts its requests.

    Raises:
        EvaluatorError: if the server is unreachable, or the model is unknown or does not match the contract.
    """
    # Imported on demand: gRPC takes a third of a second, OpenVINO more.
    if config.kind == "triton":
        from clients.triton.evaluator import TritonEvaluator

        return TritonEvaluator(
            config.url,
            model=config.model,
            model_version=config.model_version,
            server_timeout_s=config.server_timeout_s,
            on_event=on_event,
            counts=counts,
        )
    if config.kind == "local":
        from clients.local import LocalEvaluator

        return LocalEvaluator(config.model_path, threads=config.threads, on_event=on_event)
    if config.kind == "uniform":
        return UniformEvaluator()
    if config.kind == "hash":
        return HashEvaluator()
    raise InvalidConfig(f"expected evaluator triton, local, uniform or hash, got {config.kind}")
