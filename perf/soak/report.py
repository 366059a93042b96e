# SPDX-License-Identifier: Apache-2.0
"""What a soak test leaves: a table of its faults, the verdict, soak.json and a timeline."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from clients.files import write_json, write_whole
from clients.provenance import machine
from perf.soak.memory import GROWTH, Memory, judge_memory
from perf.soak.rounds import Rounds
from perf.soak.soak import Soak
from ui.console import decoration, new_table
from ui.figures import legend_above, new_figure, png, thousands
from ui.next_step import command_line


@dataclass(frozen=True)
class SoakResult:
    """All that came of a soak test."""

    soak: Soak
    rounds: Rounds
    left_out: Mapping[str, str]
    """Kinds of fault that could not be inflicted here, and why."""
    interrupted: bool

    @property
    def memory(self) -> list[Memory]:
        return judge_memory(self.soak.scales.lives)

    @property
    def faults_found(self) -> list[str]:
        """Every reason for a bad verdict."""
        soak = self.soak
        return [
            *([] if soak.broken_off is None else [soak.broken_off]),
            *(f"{one.kind} at {one.began:.0f} s: {one.failure}" for one in soak.reports if one.failure),
            *(f"after {one.kind} at {one.began:.0f} s: {text}" for one in soak.reports for text in one.accounts),
            *(f"{n} times a {role} ended that was not made to; see soak.json" for role, n in soak.unasked.items() if n),
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
            "unasked": dict(self.soak.unasked),
            "faults": [asdict(one) for one in self.soak.reports],
            "kinds": sorted({one.kind for one in self.soak.reports}),
            "left_out": dict(self.left_out),
            "rounds": asdict(self.rounds),
            "rounds_per_min": self.rounds_per_min,
            "memory": [asdict(one) for one in self.memory],
            "lives": [one.to_json() for one in self.soak.scales.lives],
            "events": [{"at": round(at, 1), "text": text} for at, text in self.soak.events],
            "machine": machine(),
            "config": json.loads(json.dumps(asdict(self.soak.config), default=str)),
        }

    @property
    def rounds_per_min(self) -> float:
        last = self.soak.moments[-1] if self.soak.moments else None
        return 60 * last.rounds / last.at if last and last.at else 0.0


def report(console: Console, result: SoakResult) -> None:
    """Write soak.json and, where matplotlib is, timeline.png; tell people, or programs."""
    config = result.soak.config
    out = config.out
    write_json(out / "soak.json", result.to_json())
    _tell(console, result)
    if config.json:
        print(json.dumps(result.to_json()))
    console.print(f"written  {out / 'soak.json'}", soft_wrap=True)
    with decoration("picture", console.print):
        write_whole(out / "timeline.png", _timeline(result))
        console.print(f"written  {out / 'timeline.png'}", soft_wrap=True)
    longer = replace(config, minutes=3 * config.minutes, faults=3 * config.faults, out=Path(f"{out}-long"))
    console.print(
        f"next     {out / 'logs'} hold what everybody said; longer: {command_line('soak', longer)}",
        markup=False,
        soft_wrap=True,
    )


def _tell(console: Console, result: SoakResult) -> None:
    table = new_table(
        "faults", "at", "kind", "what", "lasted", "before", "lowest", "recovered after", "accounts",
        left=("kind", "what"),
    )  # fmt: skip
    for one in result.soak.reports:
        recovered = "-" if one.recovered_s is None else f"{one.recovered_s:.1f} s"
        table.add_row(
            f"{one.began:.0f} s", one.kind, one.what, f"{one.ended - one.began:.1f} s", f"{one.rate_before:,.0f}/s",
            f"{one.rate_lowest:,.0f}/s", recovered, "wrong" if one.accounts else "in order",
            style="" if one.is_good else "red",
        )  # fmt: skip
    console.print(table)
    table = new_table(
        "memory", "process", "lives", "judged", "largest", "growth", "first to last stretch", left=("process",)
    )
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
        f"faults   {len(result.soak.reports)} of {len({one.kind for one in result.soak.reports})} kinds",
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
    figure, (top, bottom) = new_figure("seconds of play", "evaluations / s", "memory, MiB", height=6)
    figure.set_size_inches(12, 6.5)
    at = np.array([one.at for one in result.soak.moments])
    done = np.array([one.evaluations for one in result.soak.moments], float)
    if len(at) > 8:  # over four seconds: workers report about once in one
        top.plot((at[8:] + at[:-8]) / 2, (done[8:] - done[:-8]) / (at[8:] - at[:-8]), color="tab:blue", linewidth=1)
    top.set_ylim(bottom=0)
    thousands(top.yaxis)
    color_of = {kind: f"C{i + 1}" for i, kind in enumerate(dict.fromkeys(one.kind for one in result.soak.reports))}
    for one in result.soak.reports:
        end = max(one.ended + (one.recovered_s or 0.0), one.began + at[-1] / 400)
        color = color_of[one.kind]
        top.axvspan(one.began, end, color=color, alpha=0.25, linewidth=0, label=one.kind)
        bottom.axvspan(one.began, end, color=color, alpha=0.25, linewidth=0)
    legend_above(top)
    styles = {"soak": "tab:gray", "worker": "tab:blue", "server": "tab:green", "backend": "tab:orange"}
    for life in result.soak.scales.lives:
        bottom.plot(life.at, np.array(life.bytes) / 2**20, color=styles[life.role], label=life.role, linewidth=1.2)
    bottom.set_ylim(bottom=0)
    legend_above(bottom)
    return png(figure)
