# SPDX-License-Identifier: Apache-2.0
"""Repeating a measurement, and what stands beside every figure: machine, commit, configuration, spread."""

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
"""Takes one line of progress."""


@dataclass(frozen=True)
class Plan:
    """How much a level may spend, and whom it tells."""

    quick: bool
    """Stay under 50 s; figures are rougher, nothing is left out that a script reads."""
    say: Say = print
    out: Path = Path("data/bench")
    """Folder for what a level leaves besides its JSON."""


@dataclass(frozen=True)
class Figure:
    """One quantity, measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """Median and range of the repeats."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)} to {_short(self.high)})"


@dataclass(frozen=True)
class Result:
    """What a level found."""

    level: str
    config: Mapping[str, Any]
    """What was run: the game, sizes, seconds."""
    repeats: int
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """The headline, by the names that scripts read."""
    points: Sequence[Mapping[str, Any]] = ()
    """One entry a case, values that scripts read; medians over the repeats."""
    tables: Sequence[Table] = ()
    """For people."""
    files: Sequence[Path] = ()
    """Left behind: CSV, pictures."""
    notes: Sequence[str] = ()
    """What was not measured, and why."""

    def to_json(self) -> dict[str, Any]:
        """As one object: medians under their names, ranges under `spread`."""
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
    """Figures by their names."""
    table = Table("figure", "median (range)", title=title)
    for name, figure in figures.items():
        table.add_row(name.replace("_", " "), str(figure))
    return table


def interleave(cases: Mapping[Case, Callable[[], Found]], *, repeats: int) -> dict[Case, list[Found]]:
    """Run every case once, then all again: a machine that slows down slows all of them. What was found, by case."""
    values: dict[Case, list[Found]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            values[name].append(run())
    return values


def rate(work: Callable[[], float], *, seconds: float) -> float:
    """Units of work per second of processor time of this thread, repeated for at least so many seconds.

    `work` returns the units it did. Time that the machine gave to others does not count.
    """
    done = 0.0
    start = time.thread_time()
    while (spent := time.thread_time() - start) < seconds:
        done += work()
    return done / spent


def commit() -> str:
    """The commit of the code that runs, with `+` where files differ from it; "unknown" outside a checkout."""
    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _short(value: float) -> str:
    """Three significant digits or whole numbers, with separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
