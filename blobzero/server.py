# SPDX-License-Identifier: Apache-2.0
"""A server of a verb's own, for as long as the verb takes, where none is named by --url."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mcts_ext.contract import MODEL_NAME
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.watch import Watch


@contextmanager
def own_server(
    repository: Path, *, say: Callable[[str], None], model: str = MODEL_NAME, log_file: Path | None = None
) -> Iterator[EmbeddedTriton]:
    """Start a Triton on `repository`, watch and cure it, and end it.

    Args:
        repository: a model repository.
        say: told, a line each, what the server and its watch do.
        model: the one to serve.
        log_file: where the server's log goes; none: a temporary file, gone unless a message names it.

    Raises:
        ServingError: it does not start.
    """
    triton = EmbeddedTriton(ServerConfig(repository=repository, model=model, log_file=log_file))
    say(f"starting Triton on {repository}" + (f" (log {log_file})" if log_file else ""))
    with triton, Watch(triton, on_event=say):
        yield triton
