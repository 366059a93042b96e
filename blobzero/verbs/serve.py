# SPDX-License-Identifier: Apache-2.0
"""`blobzero serve`: a watched Triton server on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from serving.config import ServerConfig


@dataclass(frozen=True)
class ServeConfig(ServerConfig):
    """Serve a model repository with NVIDIA Triton, without a container, until Ctrl-C."""

    repository: Path = Path("model_repo")
    """Folder with the model's `config.pbtxt` and version folders."""
    start_timeout_s: Annotated[float, tyro.conf.Fixed, tyro.conf.Suppress] = 60.0
    """Not available as a flag."""


def serve(config: ServeConfig) -> int:
    """Serve until stopped; return the exit status."""
    from serving.embedded import serve as serve_embedded

    return serve_embedded(config)
