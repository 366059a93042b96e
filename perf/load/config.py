# SPDX-License-Identifier: Apache-2.0
"""What `blobzero loadtest` is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mcts_ext.contract import MODEL_NAME


@dataclass(frozen=True, kw_only=True)
class LoadTestConfig:
    """Put load on a Triton server, in a closed or an open loop, and report rates, latencies and where the time goes."""

    url: str | None = None
    """HOST:PORT of the server's gRPC endpoint; without it one is started here."""
    metrics_url: str = ""
    """HOST:PORT of its metrics; the port after gRPC's unless given."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here."""
    model: str = MODEL_NAME
    """Any model that the server serves."""
    model_version: str = ""
    """A fixed version; the current one unless given."""
    key_file: Path | None = None
    """Key of the control API: shared memory needs it where the server asks for one."""
    transport: tuple[Literal["grpc", "shm"], ...] = ("grpc",)
    """How requests travel; several are measured in turns."""
    concurrency: str = "1:64:x2"
    """Requests in flight, each followed by the next: 8, 1,4,16, 1:64:x2 or 10:50:10."""
    rate: str | None = None
    """Instead: requests a second, arriving at random whether answered or not (100:500:100)."""
    slo: str | None = None
    """Instead: find the highest rate that keeps a promise, for example p99=20ms."""
    require: float | None = None
    """Requests/s that must be reached, with the promise if there is one; else the exit status is 1."""
    precision: float = 0.05
    """Of the rate that keeps the promise, as a share."""
    rows: int | Literal["selfplay"] = "selfplay"
    """Rows in a request; `selfplay` draws them from what self-play sends."""
    data: str = "auto"
    """`positions` of a search, `random`, or the folder of a run whose records are sent; `auto`: positions where the
    model takes them."""
    shape: tuple[str, ...] = ()
    """NAME:DIMENSIONS of an input with a dimension of any size, for example tokens:128."""
    processes: int | Literal["auto"] = "auto"
    """Client processes; `auto` is one for two cores."""
    ramp: float = 0.5
    """Seconds in which the load grows."""
    warmup: float = 1.0
    """Seconds after that which do not count."""
    window: float = 2.0
    """Seconds of a window; windows are repeated until the last three agree."""
    stability: float = 0.1
    """They agree when throughput and mean latency lie within this share of their mean."""
    max_windows: int = 10
    duration: float | None = None
    """Instead of windows: so many seconds."""
    requests: int | None = None
    """Instead of windows: until so many requests were answered."""
    timeout: float = 20.0
    """Seconds after which a request has failed."""
    seed: int = 0
    """Of rows, sizes and arrivals."""
    out: Path | None = None
    """Folder for JSON, CSV, a page and pictures; nothing is written without it."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""
