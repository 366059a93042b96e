# SPDX-License-Identifier: Apache-2.0
"""Configuration of a server."""

from dataclasses import dataclass
from pathlib import Path

from mcts_ext.contract import MODEL_NAME


@dataclass(frozen=True)
class ServerConfig:
    """What to serve and where to listen."""

    repository: Path
    """Model repository, with `<model>/config.pbtxt` and `<model>/<version>/model.onnx` (or `model.pt`)."""

    model: str = MODEL_NAME
    """Name of the model to load at startup; others can be loaded through the control API."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only, any other requires a key file."""

    http_port: int | None = None
    """Port of the HTTP endpoint; off by default because no command needs it."""

    grpc_port: int | None = None
    """Port of the gRPC endpoint; a free port by default."""

    metrics_host: str = "127.0.0.1"
    """Address of the Prometheus metrics."""

    metrics_port: int | None = None
    """Port of the Prometheus metrics; a free port by default."""

    log_file: Path | None = None
    """File to which the server's log is appended; by default a temporary one, removed unless its path was shown."""

    config_name: str | None = None
    """Use `configs/NAME.pbtxt` instead of `config.pbtxt`."""

    key_file: Path | None = None
    """File with the key of the control API; by default one is generated, which your commands on this machine find."""

    start_timeout_s: float = 60.0
    """Maximum time from the start of the server to its first response."""
