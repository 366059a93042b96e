# SPDX-License-Identifier: Apache-2.0
"""The command line of an embedded Triton."""

from pathlib import Path
from typing import TYPE_CHECKING

from serving.key import restrictions

if TYPE_CHECKING:
    from serving.embedded import ServerConfig


def server_command(
    config: "ServerConfig", ports: dict[str, int], folder: Path, server: Path, *, grace_s: float
) -> list[str]:
    """The binary and its options.

    Args:
        config: what to serve.
        ports: by endpoint, `http`, `grpc` and `metrics`.
        folder: with the backends; its name marks the server's shared memory.
        server: the binary.
        grace_s: how long a polite end may take.
    """
    command = [
        str(server),
        f"--model-repository={config.repository.resolve()}",
        f"--backend-directory={folder}",
        f"--backend-config=python,shm-region-prefix-name={folder.name}",
        "--model-control-mode=explicit",
        f"--load-model={config.model}",
        "--disable-auto-complete-config",  # our configuration is complete; guessing would start every stub twice
        f"--http-address={config.host}",
        f"--grpc-address={config.host}",
        f"--metrics-address={config.host}",
        f"--http-port={ports['http']}",
        f"--grpc-port={ports['grpc']}",
        f"--metrics-port={ports['metrics']}",
        f"--exit-timeout-secs={int(grace_s)}",
    ]
    if config.config_name is not None:
        command.append(f"--model-config-name={config.config_name}")
    if config.key_file is not None:
        command += restrictions(config.key_file)
    return command
