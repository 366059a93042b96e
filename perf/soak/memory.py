# SPDX-License-Identifier: Apache-2.0
"""Accounts of the memory of a soak test's processes, which must not grow."""

import math
from array import array
from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import psutil

WARM_UP_S: Final = 30.0
"""First part of a process's life, whose growth does not count."""
JUDGED_S: Final = 60.0
"""Length after the warm-up that a verdict needs, which compares the last third with the first."""
GROWTH: Final = 0.05
"""Accepted growth."""
N_MARKS: Final = 2
"""A server that loads one version more than it serves takes 3 to 5 MiB, twice, and no more after that
(docs/experiments/server-memory.md)."""


@dataclass
class Life:
    """The memory of one process over its life.

    A process may take more memory once, when it has more to do than ever before. If that is known (`mark`), it warms up
    anew, and the stretches before and after are judged separately.
    """

    role: str
    at: MutableSequence[float] = field(default_factory=lambda: array("d"))
    """Seconds since the soak began."""
    bytes: MutableSequence[int] = field(default_factory=lambda: array("q"))
    """Resident memory, including shared memory."""
    marks: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float | None:
        """Largest growth within a stretch; None if none is long enough."""
        edges = [-math.inf, *self.marks, math.inf]
        found = [self._growth(since, until) for since, until in pairwise(edges)]
        return max((growth for growth in found if growth is not None), default=None)

    @property
    def growth_in_all(self) -> float | None:
        """Growth from the first stretch to the last, including the steps at the marks."""
        return self._growth(-math.inf, math.inf)

    def to_json(self) -> dict[str, Any]:
        return {"role": self.role, "at": list(self.at), "bytes": list(self.bytes), "marks": self.marks}

    def _growth(self, since: float, until: float) -> float | None:
        """Return the growth from the median of the first third after warm-up to that of the last."""
        at = np.asarray(self.at)
        inside = np.flatnonzero((at >= since) & (at < until))
        if not len(inside) or at[inside[-1]] - at[inside[0]] < WARM_UP_S + JUDGED_S:
            return None
        settled = np.asarray(self.bytes)[inside][at[inside] >= at[inside[0]] + WARM_UP_S]
        first, _, last = (float(np.median(third)) for third in np.array_split(settled, 3))
        return last / first - 1


class MemoryLog:
    """Records the memory of processes, each life separately."""

    def __init__(self) -> None:
        self._lives: dict[tuple[int, float], Life] = {}
        self._alive: list[Life] = []

    def record(self, at: float, pids: Mapping[int, str]) -> None:
        """Record the memory of processes, given with their roles; those that have just ended are left out."""
        self._alive = []
        for pid, role in pids.items():
            try:
                process = psutil.Process(pid)
                key, resident = (pid, process.create_time()), process.memory_info().rss
            except psutil.Error:
                continue
            if resident:  # a zombie has none
                life = self._lives.setdefault(key, Life(role))
                life.at.append(at)
                life.bytes.append(resident)
                self._alive.append(life)

    def mark(self, role: str, at: float) -> None:
        """Note that the living processes of a role have more to do than before, at most `N_MARKS` times in a life."""
        for life in self._alive:
            if life.role == role and len(life.marks) < N_MARKS:
                life.marks.append(at)

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())


@dataclass(frozen=True)
class Memory:
    """Verdict on one role."""

    role: str
    lives: int
    judged: int
    """Number of lives long enough for a verdict."""
    worst: float | None
    """Largest growth within a stretch."""
    worst_in_all: float | None
    """Largest growth from first to last stretch."""
    largest_bytes: int

    @property
    def fault(self) -> str | None:
        """Description of a bad verdict."""
        if self.worst is None or self.worst <= GROWTH:
            return None
        return f"memory of a {self.role} grew by {100 * self.worst:.1f}%"


def judge_memory(lives: Iterable[Life]) -> list[Memory]:
    """Return a verdict per role, in order of first appearance."""
    by_role: dict[str, list[Life]] = {}
    for life in lives:
        by_role.setdefault(life.role, []).append(life)
    verdicts = []
    for role, found in by_role.items():
        growths = [growth for life in found if (growth := life.growth) is not None]
        in_all = [growth for life in found if (growth := life.growth_in_all) is not None]
        largest = max(max(life.bytes) for life in found)
        worst, worst_in_all = max(growths, default=None), max(in_all, default=None)
        verdicts.append(Memory(role, len(found), len(growths), worst, worst_in_all, largest))
    return verdicts
