# SPDX-License-Identifier: Apache-2.0
"""What a load test is asked for: which server, what the requests are, how many of them, how long.

```
LoadError        a load test that cannot be done
└── NoAnswers    every request of a point failed
```
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clients.address import join_url, split_url
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig

TransportName = Literal["grpc", "shm"]
"""gRPC, or system shared memory for the tensors and gRPC for the rest."""


class LoadError(BlobError):
    """A load test that cannot be done."""


class NoAnswers(LoadError):
    """Every request of a point failed."""


@dataclass(frozen=True)
class Target:
    """A server and a model."""

    url: str
    """HOST:PORT of the gRPC endpoint."""
    model: str = MODEL_NAME
    version: str = ""
    """A fixed version; empty for the one that the server thinks current."""
    metrics: str = ""
    """HOST:PORT of the metrics; empty: the port after gRPC's, as Triton's defaults stand."""
    key_file: Path | None = None
    """Key of the control API, where the server restricts shared memory."""

    def __post_init__(self) -> None:
        split_url(self.url)
        if self.metrics:
            split_url(self.metrics, what="a server's metrics")

    @property
    def metrics_url(self) -> str:
        host, port = split_url(self.url)
        return self.metrics or join_url(host, port + 1)


@dataclass(frozen=True)
class Traffic:
    """What the requests are, and who sends them."""

    transport: TransportName = "grpc"
    rows: int | Literal["selfplay"] = "selfplay"
    """Rows in every request, or drawn from the sizes that self-play sends (`rows.py`)."""
    data: str = "auto"
    """`positions`: what a search asks about; `random`: numbers that suit each tensor's type; else a folder with shards.
    `auto`: positions for a model of our contract, random for any other."""
    shapes: tuple[str, ...] = ()
    """NAME:3,224,224 for every input with a dimension of any size."""
    processes: int = 1
    timeout_s: float = 20.0
    """Deadline of one request."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.processes <= 1024:
            raise InvalidConfig(f"expected 1 to 1024 client processes, got {self.processes}")
        if self.rows != "selfplay" and self.rows < 1:
            raise InvalidConfig(f"expected at least one row in a request, got {self.rows}")
        if self.timeout_s <= 0:
            raise InvalidConfig(f"expected a timeout above 0 s, got {self.timeout_s:g}")


@dataclass(frozen=True)
class Load:
    """How much: requests in flight (closed loop), or requests a second, arriving at random (open loop)."""

    concurrency: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise InvalidConfig("expected either a concurrency or a rate; name one")
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidConfig(f"expected a concurrency of at least 1, got {self.concurrency}")
        if self.rate is not None and not 0 < self.rate <= 1e6:
            raise InvalidConfig(f"expected a rate in 0..1000000 requests a second, got {self.rate:g}")

    @property
    def is_open(self) -> bool:
        return self.rate is not None

    def __str__(self) -> str:
        return f"{self.rate:g} requests/s" if self.is_open else f"{self.concurrency} in flight"


@dataclass(frozen=True)
class Patience:
    """How long: windows until the last three agree, or one of a fixed length or count."""

    ramp_s: float = 0.5
    """The load grows to its full height in this time."""
    warmup_s: float = 1.0
    """Then this long is left out."""
    window_s: float = 2.0
    stability: float = 0.1
    """The last three windows lie within this share of their mean, in throughput and in mean latency."""
    max_windows: int = 10
    duration_s: float | None = None
    """Instead of windows: one of this length."""
    requests: int | None = None
    """Instead of windows: one that ends after so many answers."""

    @property
    def is_fixed(self) -> bool:
        return self.duration_s is not None or self.requests is not None

    def __post_init__(self) -> None:
        if self.window_s <= 0 or self.max_windows < 1 or not 0 < self.stability < 1:
            raise InvalidConfig(
                f"expected windows of more than 0 s, at least one, and a stability in 0..1; got {self.window_s:g} s, "
                f"{self.max_windows} and {self.stability:g}"
            )
        if self.ramp_s < 0 or self.warmup_s < 0:
            raise InvalidConfig(f"expected ramp and warm-up of 0 s or more, got {self.ramp_s:g} and {self.warmup_s:g}")
        if self.duration_s is not None and self.requests is not None:
            raise InvalidConfig("expected a fixed duration or a fixed count, got both; name one")
        if (self.duration_s or 1) <= 0 or (self.requests or 1) < 1:
            raise InvalidConfig("expected a duration above 0 s and a count of at least 1")
