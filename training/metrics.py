# SPDX-License-Identifier: Apache-2.0
"""Metrics of a training run: lines of JSON for programs, TensorBoard scalars for people.

A resumed run removes the lines after its first step, so that the curve has no gaps or repetitions.
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
    """Return the lines of metrics.jsonl up to a step, without a truncated last line of a killed run."""
    lines: list[dict[str, Any]] = []
    for text in read_small(path).splitlines() if path.exists() else ():
        try:
            line = json_object(text)
            integer(line, "step")
        except (KeyError, ValueError):
            break
        lines.append(line)
    return [line for line in lines if until is None or line["step"] <= until]


class Metrics:
    """Writes `metrics.jsonl` and `tensorboard/` in a folder, continuing after `step`.

    Every method raises OSError if the disk fails; TensorBoard's own writer would only print a traceback in its thread.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        path, board = folder / "metrics.jsonl", folder / "tensorboard"
        kept = read_metrics(path, until=step)
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        board.mkdir(exist_ok=True)
        events = (
            board / f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
        )  # files are read in this order
        with ExitStack() as files:
            self._file = files.enter_context(path.open("a"))
            self._events = files.enter_context(events.open("wb"))
            self._board = RecordWriter(self._events)
            self._write_event(file_version="brain.Event:2")
            self._write_event(step=step + 1, session_log=SessionLog(status=SessionLog.START))  # drop later steps
            self._files = files.pop_all()

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line; its numbers become scalars with the same names."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in line.items() if name != "step"]
        self._write_event(step=line["step"], summary=Summary(value=values))

    def _write_event(self, **event: Any) -> None:
        self._board.write(Event(wall_time=time.time(), **event).SerializeToString())
        self._events.flush()

    def sync(self) -> None:
        """Sync the lines to disk; must precede writing a state that relies on them."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
