# SPDX-License-Identifier: Apache-2.0
"""What `blobzero tune` is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Try configurations of a server, against the default one measured in between."""

    objective: Literal["rounds", "rows"] = "rounds"
    """Rounds of self-play a minute, or rows a second that a load generator gets answered."""
    limit: str | None = None
    """With `rows`, a promise that must be kept, for example p99=50ms."""
    trials: int = 30
    """Settings to try; a study in --out goes on from those it has."""
    seconds: float = 6.0
    """Of one measurement, after its warm-up."""
    pairs: int = 8
    """Of measurements, default and best in turns, that the verdict rests on."""
    repository: Path = Path("model_repo")
    """Model repository; `configs/tuned-<host>.pbtxt` is written there when the default was beaten."""
    config_name: str = "config"
    """The default: `config.pbtxt`, or the one of this name under configs/ that the server is started with (gpu)."""
    url: str | None = None
    """HOST:PORT of a server on this repository, whose configuration is changed meanwhile; by default one is started."""
    key_file: Path | None = None
    """Key of its control API, where it asks for one."""
    seed: int = 0
    """Of the search, the rows and the rounds."""
    out: Path = Path("data/tune")
    """Folder of the study, tune.json and tune.png."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""

    @property
    def unit(self) -> str:
        return "rounds/min" if self.objective == "rounds" else "rows/s"
