# SPDX-License-Identifier: Apache-2.0
"""Ports to listen on: check those asked for, choose those left open."""

import random
import socket
from collections.abc import Collection

from serving.errors import PortTaken

# Below Linux's range of ephemeral ports (32768 and up): while a server restarts, its waiting clients' own connections
# would otherwise be given its port now and then.
CANDIDATES = range(20_000, 32_000)
N_TRIES = 200


def why_not(host: str, port: int) -> str | None:
    """Why `port` can't be listened on now; None if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger closed are no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def choose_ports(host: str, asked: dict[str, int | None]) -> dict[str, int]:
    """Give every name a port: the one asked for, or a free one.

    Raises:
        PortTaken: a port asked for is in use, or two names ask for the same.
    """
    chosen: dict[str, int] = {}
    for name, port in asked.items():
        if port is None:
            continue
        if not 0 < port < 65_536:
            raise PortTaken(f"expected a {name} port between 1 and 65535, got {port}; choose another")
        if port in chosen.values():
            raise PortTaken(f"expected different ports, got {port} twice; choose another for {name}")
        if reason := why_not(host, port):
            raise PortTaken(
                f"expected a free {name} port, got {host}:{port}: {reason}; "
                f"stop what holds it, choose another, or give none for a free one"
            )
        chosen[name] = port
    for name, port in asked.items():
        if port is None:
            chosen[name] = _free_port(host, besides=chosen.values())
    return chosen


def _free_port(host: str, *, besides: Collection[int]) -> int:
    reason: str | None = None
    for port in random.sample(CANDIDATES, N_TRIES):
        if port not in besides and (reason := why_not(host, port)) is None:
            return port
    raise PortTaken(
        f"expected a free port on {host}, got {reason} for {N_TRIES} of them; is {host} an address of ours?"
    )
