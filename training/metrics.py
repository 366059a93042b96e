# SPDX-License-Identifier: Apache-2.0
"""The curve of a training run: lines of JSON for programs, TensorBoard scalars for people.

A resumed run takes away what lies beyond the step it goes on from, so that the curve has neither jump nor repetition.
"""

import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from clients.files import json_object, read_small, write_whole
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
    """Writes `metrics.jsonl` and `tensorboard/` in a folder, from the line after `step` on.

    Every method raises OSError where the disk refuses. TensorBoard's own writer, for one, learns of that in a thread,
    which prints a traceback.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        path, board = folder / "metrics.jsonl", folder / "tensorboard"
        kept = read_metrics(path, until=step)
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        board.mkdir(exist_ok=True)
        events = board / f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"  # read in this order
        with ExitStack() as files:
            self._file = files.enter_context(path.open("a"))
            self._events = files.enter_context(events.open("wb"))
            self._board = RecordWriter(self._events)
            self._tell(file_version="brain.Event:2")
            self._tell(step=step + 1, session_log=SessionLog(status=SessionLog.START))  # what is beyond goes
            self._files = files.pop_all()

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line; its numbers become scalars by the same names."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in line.items() if name != "step"]
        self._tell(step=line["step"], summary=Summary(value=values))

    def _tell(self, **event: Any) -> None:
        self._board.write(Event(wall_time=time.time(), **event).SerializeToString())
        self._events.flush()

    def sync(self) -> None:
        """Wait until the lines are on disk; before a state that counts on them is written."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
