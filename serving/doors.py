# SPDX-License-Identifier: Apache-2.0
"""Where a server listens, and the key without which nobody changes what it serves."""

from dataclasses import dataclass
from pathlib import Path

from clients.address import is_loopback, join_url
from clients.keys import KeyUnreadable, draw_key, drawn_key_file, leave_key, read_key
from serving.config import ServerConfig
from serving.guardian import remove_key
from serving.ports import choose_ports, resolve


@dataclass(frozen=True)
class Doors:
    """The endpoints of one server, on ports that were free when they were chosen, and its key."""

    endpoints: dict[str, tuple[str, int]]
    """Address and port of `grpc` and `metrics`, and of `http` where it is on."""
    key: str
    key_file: Path
    is_drawn: bool
    """Whether the key is of this start alone, and its file to be written and removed."""

    @staticmethod
    def choose(config: ServerConfig) -> "Doors":
        """Those that are asked for, the rest free ones.

        Raises:
            InvalidConfig: no address of this machine, no key in the file, or no file where others reach the server.
            PortTaken: a port asked for is in use.
        """
        address = resolve(config.host)
        if config.key_file is None and not is_loopback(address):
            raise KeyUnreadable(
                f"expected a --key-file with a host that others reach, got {config.host} and none: they could have "
                "the server run their code; give one, or listen on 127.0.0.1"
            )
        asked = {"grpc": config.grpc_port, "metrics": config.metrics_port}
        if config.http_port is not None:
            asked["http"] = config.http_port
        hosts = dict.fromkeys(asked, address) | {"metrics": resolve(config.metrics_host)}
        ports = choose_ports(address, asked, hosts=hosts)
        endpoints = {name: (hosts[name], ports[name]) for name in asked}
        if config.key_file is not None:
            return Doors(endpoints, read_key(config.key_file), config.key_file, is_drawn=False)
        return Doors(endpoints, draw_key(), drawn_key_file(*endpoints["grpc"]), is_drawn=True)

    @property
    def url(self) -> str:
        """HOST:PORT of gRPC."""
        return join_url(*self.endpoints["grpc"])

    @property
    def http_url(self) -> str | None:
        return f"http://{join_url(*self.endpoints['http'])}" if "http" in self.endpoints else None

    @property
    def metrics_url(self) -> str:
        return f"http://{join_url(*self.endpoints['metrics'])}/metrics"

    def leave_key(self) -> None:
        """Write a drawn key where our clients look for it.

        Raises:
            KeyUnreadable: there is no place that only we can read.
        """
        if self.is_drawn:
            leave_key(self.key, self.key_file)

    def remove_key(self) -> None:
        """Remove a drawn key."""
        if self.is_drawn:
            remove_key(self.key_file, self.key.encode())

    def open_to_others(self) -> str | None:
        """What who does not sit at this machine may do, in a line; None where that is nothing."""
        said = []
        host, _ = self.endpoints["grpc"]
        if not is_loopback(host):
            said.append(
                f"whoever reaches {host} may ask for evaluations, health, metadata and statistics; "
                "models, shared memory, trace and logging want the key"
            )
        host, _ = self.endpoints["metrics"]
        if not is_loopback(host):
            said.append(f"whoever reaches {host} may read the metrics")
        return "; ".join(said) or None
