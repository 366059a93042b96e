# SPDX-License-Identifier: Apache-2.0
"""A server of a verb's own, for as long as the verb takes, where none is named by --url."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mcts_ext.contract import MODEL_NAME
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.watch import Watch


@contextmanager
def own_server(
    repository: Path,
    *,
    say: Callable[[str], None],
    model: str = MODEL_NAME,
    config_name: str | None = None,
    key_file: Path | None = None,
    log_file: Path | None = None,
    is_watched: bool = True,
) -> Iterator[EmbeddedTriton]:
    """Start a Triton on `repository`, watch and cure it, and end it.

    Args:
        repository, model, config_name, key_file, log_file: as in `ServerConfig`.
        say: told, a line each, what the server and its watch do.
        is_watched: whether it is cured; not where its failure is what is to be seen.

    Raises:
        ServingError: it does not start.
    """
    config = ServerConfig(
        repository, model=model, config_name=config_name, key_file=key_file, log_file=log_file
    )  # fmt: skip
    triton = EmbeddedTriton(config)
    say(f"starting Triton on {repository}" + (f" (log {log_file})" if log_file else ""))
    with triton, Watch(triton, on_event=say) if is_watched else nullcontext():
        yield triton
