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
    """Name of the model to load at the start; others can be loaded through the control API."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine alone, another wants a key file."""

    http_port: int | None = None
    """There is no HTTP endpoint unless given, for nothing of ours needs it."""

    grpc_port: int | None = None
    """A free one unless given."""

    metrics_host: str = "127.0.0.1"
    """Address of the Prometheus metrics."""

    metrics_port: int | None = None
    """A free one unless given."""

    log_file: Path | None = None
    """Where the server's log is appended; unless given a temporary file, which goes with the server unless somebody was
    pointed to it."""

    config_name: str | None = None
    """Take `configs/NAME.pbtxt` instead of `config.pbtxt`."""

    key_file: Path | None = None
    """A file with the key without which nobody loads models; publish and doctor take the same file. Without it one is
    drawn for this start, and found by your own commands on this machine. Other users of the machine can read either in
    the server's arguments unless /proc is mounted with hidepid."""

    start_timeout_s: float = 60.0
    """How long the server may take from its start to its first answer."""
