# SPDX-License-Identifier: Apache-2.0
"""HOST:PORT in text, for IPv4 addresses, names and IPv6 addresses (in brackets: `[::1]:8001`)."""

import ipaddress
import re
from typing import Final

from mcts_ext.errors import InvalidConfig

LOOPBACK: Final = "127.0.0.1"


def split_url(url: str, *, what: str = "a server's gRPC endpoint") -> tuple[str, int]:
    """Host, without brackets, and port of HOST:PORT; `what` says in the error whose.

    `localhost` is 127.0.0.1: it names two addresses, a stranger may listen at the other, and a key goes to one alone.

    Raises:
        InvalidConfig: not that. An IPv6 address without brackets is not: `::1:8001` is an address, too.
    """
    found = re.fullmatch(r"(?:\[(?P<v6>[^\[\]/]+)\]|(?P<name>[^\[\]/:@\s]+)):(?P<port>[0-9]{1,5})", url)
    host = found and (found["name"] or found["v6"])
    if not found or not host or (found["v6"] and not _is_ipv6(host)) or not 0 < int(found["port"]) < 65536:
        raise InvalidConfig(
            f"expected HOST:PORT of {what}, got {url!r}; for example 127.0.0.1:8001, or [::1]:8001 in IPv6"
        )
    return LOOPBACK if host.lower() == "localhost" else host, int(found["port"])


def join_url(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant. Other names than `localhost` are not looked up: an answer can change."""
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
