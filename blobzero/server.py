# SPDX-License-Identifier: Apache-2.0
"""The server of a verb: the one named by `--url`, or a watched Triton started for the time being."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from blobzero.arguments import Range
from clients.connect import EvaluatorConfig, Kind
from clients.local import latest_model_file
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import InvalidConfig

if TYPE_CHECKING:  # the server is an optional dependency
    from serving.embedded import EmbeddedTriton

Say = Callable[[str], None]
"""Called with one line at a time."""


@contextmanager
def named_or_own(
    url: str | None, repository: Path, *, say: Say, model: str = MODEL_NAME, log_file: Path | None = None
) -> Iterator[tuple[str, "EmbeddedTriton | None"]]:
    """Yield the HOST:PORT of the server, and the server itself if it was started here, on `repository`."""
    if url is not None:
        yield url, None
        return
    from serving.embedded import own_server

    with own_server(repository, say=say, model=model, log_file=log_file) as triton:
        say(f"Triton answers at {triton.url}, metrics at {triton.metrics_url}")
        yield triton.url, triton


@dataclass(frozen=True, kw_only=True)
class ServerFlags:
    """Flags of the verbs that play with a network."""

    url: str | None = None
    """HOST:PORT of a Triton server's gRPC endpoint; by default one is started."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here, and of versions that are evaluated without a server."""
    model: str = MODEL_NAME
    """Name of the model."""
    server_timeout: Annotated[float, Range(0, 86_400)] = 60.0
    """Seconds to retry while the server is unavailable."""

    def check_evaluator(self, kind: Kind, *names: str) -> None:
        """Raise InvalidConfig if one of these flags is given with an evaluator that asks no server."""
        for name in names:
            if kind != "triton" and getattr(self, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise InvalidConfig(f"expected {flag} only with --evaluator triton, got --evaluator {kind}")

    def server(
        self, say: Say, *, log_file: Path | None = None
    ) -> AbstractContextManager[tuple[str, "EmbeddedTriton | None"]]:
        """Return the context of the server, as `named_or_own`."""
        return named_or_own(self.url, self.repository, say=say, model=self.model, log_file=log_file)

    @contextmanager
    def evaluator_config(
        self, kind: Kind, say: Say, *, model_version: int | None = None, log_file: Path | None = None
    ) -> Iterator[tuple[EvaluatorConfig, "EmbeddedTriton | None"]]:
        """Yield how to reach the network, and the server if it was started here."""
        version = "" if model_version is None else str(model_version)
        config = EvaluatorConfig(kind, model=self.model, model_version=version, server_timeout_s=self.server_timeout)
        if kind == "triton":
            with self.server(say, log_file=log_file) as (url, triton):
                yield replace(config, url=url), triton
        elif kind == "local":
            yield replace(config, model_path=str(latest_model_file(self.repository, self.model))), None
        else:
            yield config, None
