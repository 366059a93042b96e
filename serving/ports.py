# SPDX-License-Identifier: Apache-2.0
"""Addresses and ports to listen on: check those asked for, choose those left open."""

import random
import socket
from collections.abc import Collection, Mapping

from clients.address import join_url
from mcts_ext.errors import InvalidConfig
from serving.errors import PortTaken

# Below Linux's range of ephemeral ports (32768 and up): while a server restarts, its waiting clients' own connections
# would otherwise be given its port now and then.
CANDIDATES = range(20_000, 32_000)
N_TRIES = 200


def resolve(host: str) -> str:
    """The address of a host to listen on, in digits: what is checked is then what is listened on. IPv4 comes first.

    Raises:
        InvalidConfig: it has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidConfig(
            f"expected an address of this machine, or its name, to listen on, got {host!r}: {error}; "
            "for example 127.0.0.1, or ::1 in IPv6"
        ) from error
    return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])


def why_not(host: str, port: int) -> str | None:
    """Why `port` can't be listened on now at an address; None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger closed don't hinder
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def choose_ports(
    host: str, asked: Mapping[str, int | None], *, hosts: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Give every name a port: the one asked for, or a free one, at `host`, or at the one that `hosts` has for the name.

    Raises:
        PortTaken: a port asked for is in use, or two names ask for the same.
    """
    at = dict.fromkeys(asked, host) | dict(hosts or {})
    chosen: dict[str, int] = {}
    for name, port in asked.items():
        if port is None:
            continue
        if not 0 < port < 65_536:
            raise PortTaken(f"expected a {name} port between 1 and 65535, got {port}; choose another")
        if port in chosen.values():
            raise PortTaken(f"expected different ports, got {port} twice; choose another for {name}")
        if reason := why_not(at[name], port):
            raise PortTaken(
                f"expected a free {name} port, got {join_url(at[name], port)}: {reason}; "
                f"stop what holds it, choose another, or give none for a free one"
            )
        chosen[name] = port
    for name, port in asked.items():
        if port is None:
            chosen[name] = _free_port(at[name], besides=chosen.values())
    return chosen


def _free_port(host: str, *, besides: Collection[int]) -> int:
    reason: str | None = None
    for port in random.sample(CANDIDATES, N_TRIES):
        if port not in besides and (reason := why_not(host, port)) is None:
            return port
    raise PortTaken(
        f"expected a free port on {host}, got {reason} for {N_TRIES} of them; is {host} an address of ours?"
    )
