# SPDX-License-Identifier: Apache-2.0
"""What a soak test leaves: a table of its faults, the verdict, soak.json and a timeline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from clients.files import reason, write_json, write_whole
from clients.provenance import machine
from mcts_ext.errors import BlobError
from perf.soak.config import SoakConfig
from perf.soak.memory import GROWTH, Life, Memory, judge_memory
from perf.soak.rounds import Rounds
from ui.console import decoration
from ui.figures import new_figure, png, thousands
from ui.next_step import command_line

PLAIN_WIDTH: Final = 140
COLORS: Final = ("tab:red", "tab:orange", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan", "tab:gray")


class UnwritableReport(BlobError):
    """The folder of a soak test cannot be written."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What all workers had done at a moment."""

    at: float
    """Seconds since play began."""
    rounds: int
    evaluations: int


@dataclass(frozen=True)
class FaultReport:
    """One fault and what became of it; times in seconds since play began, rates in evaluations/s."""

    kind: str
    what: str
    began: float
    ended: float
    rate_before: float
    rate_lowest: float
    recovered_s: float | None
    """From its end until play was back at its rate; none if it was not in time."""
    failure: str | None
    """Why it could not be inflicted as meant."""
    accounts: list[str]
    """What the accounts of rounds and memory found wrong after it that they had not found after the one before."""

    @property
    def is_good(self) -> bool:
        return self.failure is None and self.recovered_s is not None and not self.accounts

    def __str__(self) -> str:
        after = f"recovered {self.recovered_s:.1f} s after" if self.recovered_s is not None else "did not recover"
        return "; ".join([f"{self.kind}, {self.what}: {self.failure or after}", *self.accounts])


@dataclass(frozen=True)
class SoakResult:
    """All that came of a soak test."""

    config: SoakConfig
    faults: Sequence[FaultReport]
    left_out: dict[str, str]
    moments: Sequence[Moment]
    lives: Sequence[Life]
    rounds: Rounds
    broken_off: str | None
    """Why it ended early, if it did."""
    unasked: Mapping[str, int]
    """Deaths that no fault of ours caused, by role."""
    interrupted: bool
    events: Sequence[tuple[float, str]]

    @property
    def memory(self) -> list[Memory]:
        return judge_memory(self.lives)

    @property
    def faults_found(self) -> list[str]:
        """Every reason for a bad verdict."""
        return [
            *([] if self.broken_off is None else [self.broken_off]),
            *(f"{one.kind} at {one.began:.0f} s: {one.failure}" for one in self.faults if one.failure),
            *(f"after {one.kind} at {one.began:.0f} s: {text}" for one in self.faults for text in one.accounts),
            *(f"{n} times a {role} ended that was not made to; see soak.json" for role, n in self.unasked.items() if n),
            *([] if self.rounds.expected else ["no round was played to its end"]),
            *self.rounds.faults,
            *(one.fault for one in self.memory if one.fault),
        ]

    @property
    def is_good(self) -> bool:
        return not self.faults_found

    def to_json(self) -> dict[str, Any]:
        return {
            "good": self.is_good,
            "interrupted": self.interrupted,
            "found": self.faults_found,
            "unasked": dict(self.unasked),
            "faults": [asdict(one) for one in self.faults],
            "kinds": sorted({one.kind for one in self.faults}),
            "left_out": self.left_out,
            "rounds": asdict(self.rounds),
            "rounds_per_min": self.rounds_per_min,
            "memory": [asdict(one) for one in self.memory],
            "lives": [one.to_json() for one in self.lives],
            "events": [{"at": round(at, 1), "text": text} for at, text in self.events],
            "machine": machine(),
            "config": json.loads(json.dumps(asdict(self.config), default=str)),
        }

    @property
    def rounds_per_min(self) -> float:
        last = self.moments[-1] if self.moments else None
        return 60 * last.rounds / last.at if last and last.at else 0.0


def report(console: Console, result: SoakResult) -> None:
    """Write soak.json and, where matplotlib is, timeline.png; tell people, or programs."""
    out = result.config.out
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    try:
        write_json(out / "soak.json", result.to_json())
    except OSError as error:
        raise UnwritableReport(f"expected to write {out}, got {reason(error)}; make room") from error
    _tell(console, result)
    if result.config.json:
        print(json.dumps(result.to_json()))
    console.print(f"written  {out / 'soak.json'}", soft_wrap=True)
    with decoration("picture", console.print):
        write_whole(out / "timeline.png", _timeline(result))
        console.print(f"written  {out / 'timeline.png'}", soft_wrap=True)
    config = result.config
    longer = replace(config, minutes=3 * config.minutes, faults=3 * config.faults, out=Path(f"{out}-long"))
    console.print(
        f"next     {out / 'logs'} hold what everybody said; longer: {command_line('soak', longer)}",
        markup=False,
        soft_wrap=True,
    )


def _tell(console: Console, result: SoakResult) -> None:
    table = Table(title="faults")
    for name in ("at", "kind", "what", "lasted", "before", "lowest", "recovered after", "accounts"):
        table.add_column(name, justify="left" if name in ("kind", "what") else "right", no_wrap=name != "what")
    for one in result.faults:
        recovered = "-" if one.recovered_s is None else f"{one.recovered_s:.1f} s"
        table.add_row(
            f"{one.began:.0f} s", one.kind, one.what, f"{one.ended - one.began:.1f} s", f"{one.rate_before:,.0f}/s",
            f"{one.rate_lowest:,.0f}/s", recovered, "wrong" if one.accounts else "in order",
            style="" if one.is_good else "red",
        )  # fmt: skip
    console.print(table)
    table = Table(title="memory")
    for name in ("process", "lives", "long enough to judge", "largest", "growth", "first to last stretch"):
        table.add_column(name, justify="left" if name == "process" else "right")
    for role in result.memory:
        growths = ("-" if one is None else f"{100 * one:+.1f}%" for one in (role.worst, role.worst_in_all))
        table.add_row(
            role.role, f"{role.lives}", f"{role.judged}", f"{role.largest_bytes / 2**20:,.0f} MiB", *growths,
            style="red" if role.fault else "",
        )  # fmt: skip
    console.print(table)
    rounds = result.rounds
    short = [one.role for one in result.memory if not one.judged]
    unjudged = f", not judged of too short lives: {', '.join(short)}" if short else ""
    say = [
        f"rounds   {rounds.expected:,}: {len(rounds.lost)} lost, {len(rounds.doubled)} doubled, "
        f"{rounds.unwritten} unwritten; {result.rounds_per_min:,.0f} a minute, faults included",
        f"faults   {len(result.faults)} of {len({one.kind for one in result.faults})} kinds",
        *(f"left out {kind}: {why}" for kind, why in result.left_out.items()),
        *(f"found    {text}" for text in result.faults_found),
        *(["note     interrupted before all faults"] if result.interrupted else []),
        "verdict  BAD"
        if not result.is_good
        else f"verdict  good: every round once, memory within {100 * GROWTH:g}%{unjudged}",
    ]
    for line in say:
        console.print(line, markup=False, soft_wrap=True)


def _timeline(result: SoakResult) -> bytes:
    """Evaluations/s and memory over time, every fault as a band."""
    import matplotlib

    figure, (top, bottom) = new_figure("seconds of play", "evaluations / s", "memory, MiB", height=6)
    figure.set_size_inches(12, 6.5)
    at = np.array([one.at for one in result.moments])
    done = np.array([one.evaluations for one in result.moments], float)
    if len(at) > 8:  # over four seconds: workers report about once in one
        top.plot((at[8:] + at[:-8]) / 2, (done[8:] - done[:-8]) / (at[8:] - at[:-8]), color="tab:blue", linewidth=1)
    top.set_ylim(bottom=0)
    thousands(top.yaxis)
    kinds = list(dict.fromkeys(one.kind for one in result.faults))
    for one in result.faults:
        color = COLORS[kinds.index(one.kind) % len(COLORS)]
        back = one.ended + (one.recovered_s or 0.0)
        for axes in (top, bottom):
            axes.axvspan(one.began, max(back, one.began + at[-1] / 400), color=color, alpha=0.25, linewidth=0)
    handles = [
        matplotlib.patches.Patch(color=COLORS[i % len(COLORS)], alpha=0.4, label=kind) for i, kind in enumerate(kinds)
    ]
    if handles:
        top.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(kinds), fontsize="small")
    styles = {"soak": "tab:gray", "worker": "tab:blue", "server": "tab:green", "backend": "tab:orange"}
    named = set[str]()
    for life in result.lives:
        label = life.role if life.role not in named else None
        named.add(life.role)
        bottom.plot(life.at, np.array(life.bytes) / 2**20, color=styles[life.role], label=label, linewidth=1.2)
    bottom.set_ylim(bottom=0)
    if named:
        bottom.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(named))
    return png(figure)
