# SPDX-License-Identifier: Apache-2.0
"""Folder of a self-play run: its layout, and the check that a run may resume in it."""

import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from clients.files import read_json, reason, write_json
from clients.selfplay.records import finished_rounds
from mcts_ext.config import SearchConfig, check_seed
from mcts_ext.errors import BlobError, InvalidConfig


class RunFolderError(BlobError):
    """The folder cannot be written, or holds another run."""


def fresh_folder(kind: str) -> Path:
    """Return a unique new folder name under data/; names sort by time."""
    return Path("data") / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


class RunFolder:
    """Layout: `shards/`, `logs/`, `run.json` (configuration), `summary.json` and `throughput.png`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shards = path / "shards"
        self.logs = path / "logs"
        self.config = path / "run.json"
        self.summary = path / "summary.json"
        self.picture = path / "throughput.png"
        self._is_new = not self.config.exists()

    def open(self, played: Mapping[str, Any]) -> None:
        """Create the folder, or check that it holds the same run, as described by `played`."""
        wanted = json.loads(json.dumps(played))
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            existing = self._read() if self.config.exists() else wanted
            for key, value in wanted.items():
                if value != existing.get(key):
                    raise RunFolderError(
                        f"expected the same run in {self.path}, got another {key} ({existing.get(key)}, now {value}); "
                        "choose another --out"
                    )
            write_json(self.config, wanted)
        except OSError as error:
            raise RunFolderError(
                f"expected a folder to write at {self.path}, got {reason(error)}; choose another --out"
            ) from error

    def withdraw(self) -> None:
        """Remove what `open` created for a run that did not start, unless a log is not empty."""
        with contextlib.suppress(OSError):
            logs = list(self.logs.iterdir())
            if not self._is_new or any(self.shards.iterdir()) or any(log.stat().st_size for log in logs):
                return
            for path in (*logs, self.config):
                path.unlink()
            self.logs.rmdir()
            self.shards.rmdir()

    def seed(self) -> int:
        """Return the seed of the run in this folder, or a random one if there is none."""
        if not self.config.exists():
            return secrets.randbits(31)
        try:
            return check_seed(self._read().get("seed"), what=f"the seed in {self.config}")
        except InvalidConfig as error:
            raise RunFolderError(f"{error}; choose another --out") from error

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self.config)
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"expected a run's configuration in {self.config}, got {reason(error)}; choose another --out"
            ) from error

    def finished_rounds(self, *, on_event: Callable[[str], None] = lambda _: None) -> set[int]:
        """Return the round numbers in the shards; `on_event` reports each file that is not a shard."""
        return finished_rounds(self.shards, on_event=on_event)

    def title(self, workers: int, search: SearchConfig) -> str:
        """Return the title of the run's charts."""
        setting = f"{search.determinizations} x {search.simulations}"
        return f"{self.path.name}: {setting}, {workers} worker{'s' if workers != 1 else ''}"
