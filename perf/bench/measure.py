# SPDX-License-Identifier: Apache-2.0
"""Repeated measurements and their results, with machine, commit, configuration and spread."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.table import Table

from clients.provenance import git, machine

MIN_REPEATS: Final = 5

Case = TypeVar("Case")
Found = TypeVar("Found")

Say = Callable[[str], None]
"""Prints a line of progress."""


@dataclass(frozen=True)
class Plan:
    """Effort, progress output and folder of a level."""

    quick: bool
    """At most 50 s; the figures are rougher, but all that scripts read is there."""
    say: Say = print
    out: Path = Path("data/bench")
    """Folder for a level's files besides its JSON."""
    repeats: int = MIN_REPEATS
    """Number of repeats of a case that is timed on one core."""
    seconds: float = 0.4
    """Length of such a repeat."""


FULL: Final = Plan(quick=False, repeats=11, seconds=1.0)


@dataclass(frozen=True)
class Figure:
    """Median and range of one quantity over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """Summarize the values of the repeats."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)} to {_short(self.high)})"


@dataclass(frozen=True)
class Result:
    """Result of a level."""

    level: str
    config: Mapping[str, Any]
    """Configuration: the game, sizes, seconds."""
    repeats: int
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Headline figures, by the names that scripts read."""
    points: Sequence[Mapping[str, Any]] = ()
    """Medians of each case, by the names that scripts read."""
    tables: Sequence[Table] = ()
    """Tables for people."""
    files: Sequence[Path] = ()
    """CSV and pictures written."""
    notes: Sequence[str] = ()
    """Explanations of the figures, and what was not measured."""

    def to_json(self) -> dict[str, Any]:
        """Return one object: medians by name, ranges under `spread`."""
        return {
            "level": self.level,
            "machine": machine(),
            "commit": commit(),
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "config": dict(self.config),
            "repeats": self.repeats,
            **{name: figure.median for name, figure in self.figures.items()},
            "spread": {name: [figure.low, figure.high] for name, figure in self.figures.items()},
            "points": list(self.points),
            "files": [str(path) for path in self.files],
            "notes": list(self.notes),
        }


def figure_table(title: str, figures: Mapping[str, Figure]) -> Table:
    """Return a table with a row per figure."""
    table = Table("figure", "median (range)", title=title)
    for name, figure in figures.items():
        table.add_row(name.replace("_", " "), str(figure))
    return table


def interleave(cases: Mapping[Case, Callable[[], Found]], *, repeats: int) -> dict[Case, list[Found]]:
    """Run all cases in turns, so that a machine that slows down slows all of them; return the results by case."""
    values: dict[Case, list[Found]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            values[name].append(run())
    return values


def rate(work: Callable[[], float], *, seconds: float) -> float:
    """Repeat `work` for at least `seconds` and return its units per second of this thread's CPU time.

    `work` returns the units done. Time that the machine gave to other processes does not count.
    """
    done = 0.0
    start = time.thread_time()
    while (spent := time.thread_time() - start) < seconds:
        done += work()
    return done / spent


def commit() -> str:
    """Return the commit of this code, with `+` if tracked files differ from it; "unknown" outside a checkout."""
    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _short(value: float) -> str:
    """Return three significant digits or, from 100, a whole number with separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
