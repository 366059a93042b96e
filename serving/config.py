# SPDX-License-Identifier: Apache-2.0
"""What is asked of a server."""

from dataclasses import dataclass
from pathlib import Path

from mcts_ext.contract import MODEL_NAME


@dataclass(frozen=True)
class ServerConfig:
    """What to serve and where to listen."""

    repository: Path
    """The model repository: holds `<model>/config.pbtxt` and `<model>/<version>/model.onnx` (or `model.pt`)."""

    model: str = MODEL_NAME
    """The model loaded at the start; others can be loaded through the control API."""

    host: str = "127.0.0.1"
    """The address to listen on; one that others reach wants a `key_file`."""

    http_port: int | None = None
    """Port of the HTTP endpoint; none: there is no such endpoint, for nothing of ours needs it."""

    grpc_port: int | None = None
    """Port of the gRPC endpoint; none: a free one."""

    metrics_host: str = "127.0.0.1"
    """The address of the Prometheus metrics."""

    metrics_port: int | None = None
    """Port of the Prometheus metrics; none: a free one."""

    log_file: Path | None = None
    """Where the server's log is appended; none: a temporary file, which goes with the server unless somebody was
    pointed to it."""

    config_name: str | None = None
    """Serve with `<model>/configs/<config_name>.pbtxt` instead of `config.pbtxt`."""

    key_file: Path | None = None
    """Holds the key that the control API asks for; none: one is drawn for this start, and gone with the server."""

    start_timeout_s: float = 60.0
    """How long the server may take from its start to its first answer."""
