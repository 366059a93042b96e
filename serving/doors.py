# SPDX-License-Identifier: Apache-2.0
"""Endpoints of a server and the key of its control API."""

from dataclasses import dataclass
from pathlib import Path

from clients.address import is_loopback, join_url
from clients.keys import KeyUnreadable, draw_key, drawn_key_file, leave_key, read_key
from serving.config import ServerConfig
from serving.guardian import remove_key
from serving.ports import choose_ports, resolve


@dataclass(frozen=True)
class Doors:
    """Endpoints of one server, on ports that were free when chosen, and its key."""

    endpoints: dict[str, tuple[str, int]]
    """Address and port of `grpc` and `metrics`, and of `http` if enabled."""
    key: str
    key_file: Path
    is_drawn: bool
    """Whether the key was generated for this start, so that its file must be written and removed."""

    @staticmethod
    def choose(config: ServerConfig) -> "Doors":
        """Choose the configured endpoints, and free ports for the others.

        Raises:
            InvalidConfig: if an address is not of this machine, or the key is missing.
            PortTaken: if a configured port is in use.
        """
        address = resolve(config.host)
        if config.key_file is None and not is_loopback(address):
            raise KeyUnreadable(
                f"expected a --key-file with a host reachable from other machines, got {config.host} and none: anyone "
                "could run code in the server; pass a key file, or listen on 127.0.0.1"
            )
        requested = {"grpc": config.grpc_port, "metrics": config.metrics_port}
        if config.http_port is not None:
            requested["http"] = config.http_port
        hosts = dict.fromkeys(requested, address) | {"metrics": resolve(config.metrics_host)}
        ports = choose_ports(address, requested, hosts=hosts)
        endpoints = {name: (hosts[name], ports[name]) for name in requested}
        if config.key_file is not None:
            return Doors(endpoints, read_key(config.key_file), config.key_file, is_drawn=False)
        return Doors(endpoints, draw_key(), drawn_key_file(*endpoints["grpc"]), is_drawn=True)

    @property
    def url(self) -> str:
        """HOST:PORT of the gRPC endpoint."""
        return join_url(*self.endpoints["grpc"])

    @property
    def http_url(self) -> str | None:
        return f"http://{join_url(*self.endpoints['http'])}" if "http" in self.endpoints else None

    @property
    def metrics_url(self) -> str:
        return f"http://{join_url(*self.endpoints['metrics'])}/metrics"

    def leave_key(self) -> None:
        """Write a generated key to the file where our clients look for it.

        Raises:
            KeyUnreadable: if there is no private folder for it.
        """
        if self.is_drawn:
            leave_key(self.key, self.key_file)

    def remove_key(self) -> None:
        """Remove a generated key."""
        if self.is_drawn:
            remove_key(self.key_file, self.key.encode())

    def open_to_others(self) -> str | None:
        """Return in one line what other machines can do; None if nothing."""
        rights = []
        host, _ = self.endpoints["grpc"]
        if not is_loopback(host):
            rights.append(
                f"anyone who can reach {host} has access to inference, health, metadata and statistics; "
                "models, shared memory, trace and logging require the key"
            )
        host, _ = self.endpoints["metrics"]
        if not is_loopback(host):
            rights.append(f"anyone who can reach {host} can read the metrics")
        return "; ".join(rights) or None
