# SPDX-License-Identifier: Apache-2.0
"""`blobzero bench`: measure one level of the system, or all of them."""

import importlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from clients.files import write_json
from clients.lock import sole_writer
from perf.bench.measure import FULL, Plan
from ui.console import plain_console

Level = Literal["engine", "search", "inference", "selfplay", "quality", "swap"]


@dataclass(frozen=True)
class BenchConfig:
    """Measure a level of the system: rules, search, inference, self-play, what batching costs in quality, or a swap."""

    level: Annotated[Level | Literal["all"], tyro.conf.Positional] = "all"
    """Level to measure."""
    quick: bool = False
    """At most 50 s per level; rougher figures."""
    out: Path = Path("data/bench")
    """Folder for each level's JSON, CSV and pictures."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output (a list for `all`), everything else on standard error."""


def bench(config: BenchConfig) -> int:
    """Measure, show and write the results; return the exit status."""
    console = plain_console(stderr=config.json)
    say = partial(console.print, soft_wrap=True)
    plan = replace(Plan(quick=True) if config.quick else FULL, out=config.out, say=say)
    found = []
    with sole_writer(config.out):
        for level in get_args(Level) if config.level == "all" else (config.level,):
            result = importlib.import_module(f"perf.bench.{level}").run(plan)
            found.append(result.to_json())
            path = config.out / f"{level}.json"
            write_json(path, found[-1])
            for table in result.tables:
                console.print(table)
            for note in result.notes:
                say(f"note     {note}")
            for written in (*result.files, path):
                say(f"written  {written}")
    if config.json:
        print(json.dumps(found if config.level == "all" else found[0]))
    return 0
