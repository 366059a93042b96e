# SPDX-License-Identifier: Apache-2.0
"""Settings of `blobzero tune`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Try settings of server and clients, and compare the best with the default."""

    objective: Literal["rounds", "rows"] = "rounds"
    """Maximize rounds of self-play per minute, or rows per second of a load generator."""
    limit: str | None = None
    """With `rows`, a latency objective to meet, for example p99=50ms."""
    trials: int = 30
    """Number of settings to try; a study in --out continues from the trials it holds."""
    seconds: float = 6.0
    """Length of one measurement after its warm-up."""
    pairs: int = 8
    """Number of interleaved pairs, default and best, on which the verdict rests."""
    repository: Path = Path("model_repo")
    """Model repository; `configs/tuned-<host>.pbtxt` is written there if the default was beaten."""
    config_name: str = "config"
    """The default: `config.pbtxt`, or the file of this name under configs/ with which the server is started (gpu)."""
    url: str | None = None
    """HOST:PORT of a server of this repository, reconfigured meanwhile and restored; by default one is started."""
    key_file: Path | None = None
    """Key of its control API, if it requires one."""
    seed: int = 0
    """Seed of the search, the rows and the rounds."""
    out: Path = Path("data/tune")
    """Folder of the study, tune.json and tune.png."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""

    @property
    def unit(self) -> str:
        return "rounds/min" if self.objective == "rounds" else "rows/s"
