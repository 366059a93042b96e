# SPDX-License-Identifier: Apache-2.0
"""`blobzero serve`: a real Triton on this machine, watched until it is told to stop."""

from dataclasses import dataclass
from pathlib import Path

from mcts_ext.contract import MODEL_NAME


@dataclass(frozen=True)
class ServeConfig:
    """Serve a model repository from NVIDIA's Triton, without a container, until Ctrl-C."""

    repository: Path = Path("model_repo")
    """Folder with the model's `config.pbtxt` and version folders."""
    model: str = MODEL_NAME
    """Name of the model to load."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine alone, another wants a key file."""
    http_port: int | None = None
    """There is no HTTP endpoint unless given."""
    grpc_port: int | None = None
    """A free one unless given."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics."""
    metrics_port: int | None = None
    """A free one unless given."""
    log_file: Path | None = None
    """Where the server writes its log; a temporary file unless given."""
    config_name: str | None = None
    """Take `configs/NAME.pbtxt` instead of `config.pbtxt`."""
    key_file: Path | None = None
    """A file with the key without which nobody loads models; publish and doctor take the same file. Without it one is
    drawn for this start, and found by your own commands on this machine. Other users of the machine can read either in
    the server's arguments unless /proc is mounted with hidepid."""


def serve(config: ServeConfig) -> int:
    """Serve until told to stop; the exit status."""
    from serving.config import ServerConfig
    from serving.embedded import serve as serve_embedded

    return serve_embedded(
        ServerConfig(
            repository=config.repository,
            model=config.model,
            host=config.host,
            http_port=config.http_port,
            grpc_port=config.grpc_port,
            metrics_host=config.metrics_host,
            metrics_port=config.metrics_port,
            log_file=config.log_file,
            config_name=config.config_name,
            key_file=config.key_file,
        )
    )
