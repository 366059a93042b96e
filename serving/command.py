# SPDX-License-Identifier: Apache-2.0
"""Command line of the embedded Triton."""

from pathlib import Path

from clients.keys import HTTP_HEADER, RESTRICTED
from serving.config import ServerConfig
from serving.doors import Doors


def server_command(config: ServerConfig, doors: Doors, folder: Path, server: Path, *, grace_s: float) -> list[str]:
    """Return the server binary with its options.

    Args:
        config: configuration of the server.
        doors: endpoints and key. Triton 2.51 accepts the key only as an argument, so other users of the machine can
            read it while the server runs, unless /proc is mounted with `hidepid`.
        folder: the server's private folder (folders.py); its name is the prefix of the server's shared memory.
        server: path of the server binary.
        grace_s: timeout of a graceful shutdown.
    """
    command = [
        str(server),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={folder.name}",
        "--model-control-mode=explicit",
        f"--load-model={config.model}",
        "--disable-auto-complete-config",  # our configuration is complete; auto-completion would start every stub twice
        f"--allow-http={'true' if 'http' in doors.endpoints else 'false'}",
        f"--grpc-restricted-protocol={RESTRICTED}:{HTTP_HEADER}={doors.key}",
        f"--http-restricted-api={RESTRICTED}:{HTTP_HEADER}={doors.key}",
        f"--exit-timeout-secs={int(grace_s)}",
    ]
    for name, (host, port) in doors.endpoints.items():
        if ":" in host:  # Triton's gRPC and HTTP endpoints expect different notations of IPv6
            host = f"[{host}]" if name == "grpc" else f"ipv6:{host}"
        command += [f"--{name}-address={host}", f"--{name}-port={port}"]
    if config.config_name is not None:
        command.append(f"--model-config-name={config.config_name}")
    return command
