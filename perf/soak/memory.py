# SPDX-License-Identifier: Apache-2.0
"""What a soak test must not find in its processes: memory that grows."""

import math
from array import array
from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import psutil

WARM_UP_S: Final = 30.0
"""Of a process: what it takes in its first seconds is not growth."""
JUDGED_S: Final = 60.0
"""Of a stretch after that, so that its last third can be held against its first."""
GROWTH: Final = 0.05
"""Growth that is let pass."""
N_MARKS: Final = 2
"""A server that loads one more version than it serves takes 3 to 5 MiB, twice, and no more after that
(docs/experiments/server-memory.md)."""


@dataclass
class Life:
    """The memory of one process from its start, or from when it was first seen, to its end.

    A process takes more memory, once, when more is asked of it than ever before. Where that is known (`Scales.mark`) it
    warms up anew, and growth is judged before and after, each stretch for itself.
    """

    role: str
    at: MutableSequence[float] = field(default_factory=lambda: array("d"))
    """Seconds since the soak began."""
    bytes: MutableSequence[int] = field(default_factory=lambda: array("q"))
    """Resident, shared memory included."""
    marks: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float | None:
        """The worst stretch's; None where none is long enough."""
        edges = [-math.inf, *self.marks, math.inf]
        found = [self._growth(since, until) for since, until in pairwise(edges)]
        return max((growth for growth in found if growth is not None), default=None)

    @property
    def growth_in_all(self) -> float | None:
        """From the first stretch to the last, what came at a mark included."""
        return self._growth(-math.inf, math.inf)

    def to_json(self) -> dict[str, Any]:
        return {"role": self.role, "at": list(self.at), "bytes": list(self.bytes), "marks": self.marks}

    def _growth(self, since: float, until: float) -> float | None:
        """The share by which the last third is above the first, as medians, after warm-up; None if too short."""
        at = np.asarray(self.at)
        inside = np.flatnonzero((at >= since) & (at < until))
        if not len(inside) or at[inside[-1]] - at[inside[0]] < WARM_UP_S + JUDGED_S:
            return None
        settled = np.asarray(self.bytes)[inside][at[inside] >= at[inside[0]] + WARM_UP_S]
        first, _, last = (float(np.median(third)) for third in np.array_split(settled, 3))
        return last / first - 1


class Scales:
    """Weighs processes, each life of one for itself."""

    def __init__(self) -> None:
        self._lives: dict[tuple[int, float], Life] = {}
        self._alive: list[Life] = []

    def weigh(self, at: float, pids: Mapping[int, str]) -> None:
        """Note the memory of processes, given with their roles; those that have just ended are left out."""
        self._alive = []
        for pid, role in pids.items():
            try:
                process = psutil.Process(pid)
                key, resident = (pid, process.create_time()), process.memory_info().rss
            except psutil.Error:
                continue
            if resident:  # a process that waits to be reaped has none
                life = self._lives.setdefault(key, Life(role))
                life.at.append(at)
                life.bytes.append(resident)
                self._alive.append(life)

    def mark(self, role: str, at: float) -> None:
        """More is asked of the living processes of a role than before; from the third time on they know it."""
        for life in self._alive:
            if life.role == role and len(life.marks) < N_MARKS:
                life.marks.append(at)

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())


@dataclass(frozen=True)
class Memory:
    """The verdict on one role."""

    role: str
    lives: int
    judged: int
    """Lives long enough to tell."""
    worst: float | None
    """The largest growth of them within a stretch."""
    worst_in_all: float | None
    """The largest from their first stretch to their last."""
    largest_bytes: int

    @property
    def fault(self) -> str | None:
        """What is wrong, in words."""
        if self.worst is None or self.worst <= GROWTH:
            return None
        return f"memory of a {self.role} grew by {100 * self.worst:.1f}%"


def judge_memory(lives: Iterable[Life]) -> list[Memory]:
    """One verdict a role, in the order in which roles were first seen."""
    by_role: dict[str, list[Life]] = {}
    for life in lives:
        by_role.setdefault(life.role, []).append(life)
    return [
        Memory(
            role,
            lives=len(found),
            judged=sum(life.growth is not None for life in found),
            worst=max((g for life in found if (g := life.growth) is not None), default=None),
            worst_in_all=max((g for life in found if (g := life.growth_in_all) is not None), default=None),
            largest_bytes=max(max(life.bytes) for life in found),
        )
        for role, found in by_role.items()
    ]
