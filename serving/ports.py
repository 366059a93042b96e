# SPDX-License-Identifier: Apache-2.0
"""Addresses and ports to listen on: validation of configured ones, choice of free ones."""

import random
import socket
from collections.abc import Collection, Mapping

from clients.address import join_url
from mcts_ext.errors import InvalidConfig
from serving.errors import PortTaken

# Below Linux's range of ephemeral ports (32768 and up): otherwise a client's connection could occasionally take the
# port of a restarting server.
CANDIDATES = range(20_000, 32_000)
N_TRIES = 200


def resolve(host: str) -> str:
    """Resolve a host to the numeric address to listen on, so that checks and server use the same; prefers IPv4.

    Raises:
        InvalidConfig: if it cannot be resolved.
    """
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidConfig(
            f"expected an address or name of this machine to listen on, got {host!r}: {error}; "
            "use for example 127.0.0.1, or ::1 for IPv6"
        ) from error
    return str(min(addresses, key=lambda address: address[0] != socket.AF_INET)[4][0])


def why_not(host: str, port: int) -> str | None:
    """Return why it is not possible to listen on `port` now, or None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def choose_ports(
    host: str, requested: Mapping[str, int | None], *, hosts: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Choose a port for every name: the requested one, or a free one. `hosts` overrides `host` by name.

    Raises:
        PortTaken: if a requested port is in use, or requested twice.
    """
    at = dict.fromkeys(requested, host) | dict(hosts or {})
    chosen: dict[str, int] = {}
    for name, port in requested.items():
        if port is None:
            continue
        if not 0 < port < 65_536:
            raise PortTaken(f"expected a {name} port between 1 and 65535, got {port}; choose another")
        if port in chosen.values():
            raise PortTaken(f"expected different ports, got {port} twice; choose another for {name}")
        if reason := why_not(at[name], port):
            raise PortTaken(
                f"expected a free {name} port, got {join_url(at[name], port)}: {reason}; "
                f"stop the process that uses it, choose another, or omit it for a free port"
            )
        chosen[name] = port
    for name, port in requested.items():
        if port is None:
            chosen[name] = _free_port(at[name], excluded=chosen.values())
    return chosen


def _free_port(host: str, *, excluded: Collection[int]) -> int:
    reason: str | None = None
    for port in random.sample(CANDIDATES, N_TRIES):
        if port not in excluded and (reason := why_not(host, port)) is None:
            return port
    raise PortTaken(
        f"expected a free port on {host}, got {reason} for {N_TRIES} of them; use an address of this machine"
    )
