# SPDX-License-Identifier: Apache-2.0
"""Settings of a load test: the server, the requests, their number and the length of the measurement.

```
LoadError        the load test cannot be done
└── NoAnswers    every request of a point failed
```
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clients.address import join_url, split_url
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig

TransportName = Literal["grpc", "shm"]
"""gRPC, or system shared memory for the tensors and gRPC for the rest."""


class LoadError(BlobError):
    """The load test cannot be done."""


class NoAnswers(LoadError):
    """Every request of a point failed."""


@dataclass(frozen=True)
class Target:
    """A model on a server."""

    url: str
    """HOST:PORT of the gRPC endpoint."""
    model: str = MODEL_NAME
    version: str = ""
    """Model version; empty for the server's latest."""
    metrics: str = ""
    """HOST:PORT of the metrics endpoint; empty for the port after that of gRPC, as in Triton's defaults."""
    key_file: Path | None = None
    """Key of the control API, for a server that restricts shared memory."""

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
    """The requests, and the processes that send them."""

    rows: int | Literal["selfplay"] = "selfplay"
    """Rows per request; `selfplay` draws them from the sizes of self-play's requests."""
    data: str = "positions"
    """`positions` from a search, or the folder of a run whose recorded positions are sent."""
    processes: int | Literal["auto"] = "auto"
    """Number of client processes; `auto` is one per two cores."""
    timeout: float = 20.0
    """Seconds after which a request has failed."""
    seed: int = 0
    """Seed of rows, sizes and arrivals."""

    @property
    def n_processes(self) -> int:
        return self.processes if self.processes != "auto" else max(1, len(os.sched_getaffinity(0)) // 2)

    def __post_init__(self) -> None:
        if not 1 <= self.n_processes <= 1024:
            raise InvalidConfig(f"expected 1 to 1024 client processes, got {self.processes}")
        if self.rows != "selfplay" and self.rows < 1:
            raise InvalidConfig(f"expected at least one row per request, got {self.rows}")
        if self.timeout <= 0:
            raise InvalidConfig(f"expected a timeout above 0 s, got {self.timeout:g}")


@dataclass(frozen=True)
class Load:
    """Requests in flight (closed loop), or requests per second with random arrivals (open loop)."""

    concurrency: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise InvalidConfig("expected either a concurrency or a rate; name one")
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidConfig(f"expected a concurrency of at least 1, got {self.concurrency}")
        if self.rate is not None and not 0 < self.rate <= 1e6:
            raise InvalidConfig(f"expected a rate in 0..1000000 requests/s, got {self.rate:g}")

    @property
    def is_open(self) -> bool:
        return self.rate is not None

    def __str__(self) -> str:
        return f"{self.rate:g} requests/s" if self.is_open else f"{self.concurrency} in flight"


@dataclass(frozen=True)
class Patience:
    """Length of a measurement: windows until the last three agree, or a fixed time."""

    ramp: float = 0.5
    """Seconds in which the load grows to its full height."""
    warmup: float = 1.0
    """Seconds after the ramp that do not count."""
    window: float = 2.0
    """Seconds per window; windows are repeated until the last three agree."""
    stability: float = 0.1
    """Windows agree if their throughput and mean latency lie within this fraction of the mean."""
    max_windows: int = 10
    """Largest number of windows."""
    duration: float | None = None
    """Measure for this many seconds instead of in windows."""

    def __post_init__(self) -> None:
        if self.window <= 0 or self.max_windows < 1 or not 0 < self.stability < 1:
            raise InvalidConfig(
                f"expected windows longer than 0 s, at least one, and a stability in 0..1, got {self.window:g} s, "
                f"{self.max_windows} and {self.stability:g}"
            )
        if self.ramp < 0 or self.warmup < 0:
            raise InvalidConfig(f"expected a ramp and a warm-up of 0 s or more, got {self.ramp:g} and {self.warmup:g}")
        if self.duration is not None and self.duration <= 0:
            raise InvalidConfig(f"expected a duration above 0 s, got {self.duration:g}")
