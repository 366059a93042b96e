# SPDX-License-Identifier: Apache-2.0
"""Parsing of HOST:PORT with IPv4 addresses, names and IPv6 addresses (in brackets: `[::1]:8001`)."""

import ipaddress
import re
from typing import Final

from mcts_ext.errors import InvalidConfig

LOOPBACK: Final = "127.0.0.1"


def split_url(url: str, *, what: str = "a server's gRPC endpoint") -> tuple[str, int]:
    """Return the host, without brackets, and the port of HOST:PORT; `what` describes it in the error.

    `localhost` becomes 127.0.0.1: it can resolve to two addresses, and a key must be sent to our server only.

    Raises:
        InvalidConfig: if it is malformed. An IPv6 address needs brackets: `::1:8001` is an address itself.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[^\[\]/]+)\]|(?P<name>[^\[\]/:@\s]+)):(?P<port>[0-9]{1,5})", url)
    host = match and (match["name"] or match["v6"])
    if not match or not host or (match["v6"] and not _is_ipv6(host)) or not 0 < int(match["port"]) < 65536:
        raise InvalidConfig(
            f"expected HOST:PORT of {what}, got {url!r}; use for example 127.0.0.1:8001, or [::1]:8001 for IPv6"
        )
    return LOOPBACK if host.lower() == "localhost" else host, int(match["port"])


def join_url(host: str, port: int) -> str:
    """Return HOST:PORT, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine. Names other than `localhost` are not resolved: DNS can change."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
