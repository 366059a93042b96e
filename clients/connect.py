# SPDX-License-Identifier: Apache-2.0
"""Open the evaluator that a configuration names."""

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
    """Who answers."""

    kind: Kind = "triton"
    """`triton`: a server over gRPC; `local`: the model in this process; `uniform`, `hash`: no network at all."""
    url: str = ""
    """HOST:PORT of the server's gRPC endpoint, for `triton`."""
    model: str = MODEL_NAME
    model_version: str = ""
    """A fixed version of the model, for `triton`; empty for the latest."""
    model_path: str = ""
    """The ONNX file, for `local`."""
    server_timeout_s: float = 60.0
    """How long to wait for a server that is away before giving up."""


def connect(
    config: EvaluatorConfig, *, on_event: Callable[[str], None], counts: RequestCounts | None = None
) -> Evaluator:
    """Open it and check that it fits the contract; the caller closes it. Its requests to a server go into `counts`.

    Raises:
        EvaluatorError: unreachable, unknown model, or a model of another shape.
    """
    # Each import here only for whom needs it: gRPC takes a third of a second, OpenVINO more.
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

        return LocalEvaluator(config.model_path, on_event=on_event)
    if config.kind == "uniform":
        return UniformEvaluator()
    if config.kind == "hash":
        return HashEvaluator()
    raise InvalidConfig(f"expected evaluator triton, local, uniform or hash, got {config.kind}")
