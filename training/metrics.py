# SPDX-License-Identifier: Apache-2.0
"""The curve of a training run: lines of JSON for programs, TensorBoard scalars for people.

A resumed run takes away what lies beyond the step it goes on from, so that the curve has neither jump nor repetition.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from clients.files import read_small
from clients.jsontext import json_object
from training.files import write_whole
from training.header import integer


def read_metrics(path: Path, *, until: int | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to a step; a line cut short by a kill, which can only be the last, is left out."""
    lines: list[dict[str, Any]] = []
    for line in read_small(path).splitlines() if path.exists() else ():
        try:
            found = json_object(line)
            integer(found, "step")
        except (KeyError, ValueError):
            break
        lines.append(found)
    return [line for line in lines if until is None or line["step"] <= until]


class Metrics:
    """Writes `metrics.jsonl` and `tensorboard/` in a folder, from the line after `step` on."""

    def __init__(self, folder: Path, *, step: int) -> None:
        path = folder / "metrics.jsonl"
        kept = read_metrics(path, until=step)
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line; its numbers become scalars by the same names."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name != "step":
                self._board.add_scalar(name, value, line["step"])

    def sync(self) -> None:
        """Wait until the lines are on disk; before a state that counts on them is written."""
        os.fsync(self._file.fileno())
        self._board.flush()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
        self._board.close()
