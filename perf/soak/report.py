# SPDX-License-Identifier: Apache-2.0
"""Report of a soak test: tables of its faults and memory, the verdict, soak.json and a timeline."""

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
from perf.soak.soak import POLL_S, WINDOW_S, Soak
from ui.console import decoration, new_table
from ui.figures import legend_above, new_figure, png, thousands
from ui.next_step import command_line

MIB = 2**20


@dataclass(frozen=True)
class SoakResult:
    """Results of a soak test."""

    soak: Soak
    rounds: Rounds
    left_out: Mapping[str, str]
    """Kinds of fault that are impossible here, and why."""
    interrupted: bool

    @property
    def memory(self) -> list[Memory]:
        return judge_memory(self.soak.memory.lives)

    @property
    def faults_found(self) -> list[str]:
        """Every reason for a bad verdict."""
        soak = self.soak
        return [
            *([] if soak.broken_off is None else [soak.broken_off]),
            *(f"{one.kind} at {one.began:.0f} s: {one.failure}" for one in soak.reports if one.failure),
            *(f"after {one.kind} at {one.began:.0f} s: {text}" for one in soak.reports for text in one.accounts),
            *(f"unexpected deaths of a {role}: {n}; see soak.json" for role, n in soak.unexpected_deaths.items() if n),
            *([] if self.rounds.expected else ["no round was played to its end"]),
            *self.rounds.faults,
            *(one.fault for one in self.memory if one.fault),
        ]

    @property
    def is_good(self) -> bool:
        return not self.faults_found

    @property
    def kinds(self) -> list[str]:
        return sorted({one.kind for one in self.soak.reports})

    @property
    def rounds_per_min(self) -> float:
        last = self.soak.moments[-1] if self.soak.moments else None
        return 60 * last.rounds / last.at if last and last.at else 0.0

    def to_json(self) -> dict[str, Any]:
        soak = self.soak
        return {
            "good": self.is_good,
            "interrupted": self.interrupted,
            "found": self.faults_found,
            "unasked": dict(soak.unexpected_deaths),
            "faults": [asdict(one) for one in soak.reports],
            "kinds": self.kinds,
            "left_out": dict(self.left_out),
            "rounds": asdict(self.rounds),
            "rounds_per_min": self.rounds_per_min,
            "memory": [asdict(one) for one in self.memory],
            "lives": [one.to_json() for one in soak.memory.lives],
            "events": [{"at": round(at, 1), "text": text} for at, text in soak.events],
            "machine": machine(),
            "config": json.loads(json.dumps(asdict(soak.config), default=str)),
        }


def report(console: Console, result: SoakResult) -> None:
    """Write soak.json and, if matplotlib is installed, timeline.png; print the result for people and for scripts."""
    config = result.soak.config
    out = config.out
    found = result.to_json()
    write_json(out / "soak.json", found)
    _show_tables(console, result)
    lines = _summary(result)
    if config.json:
        print(json.dumps(found))
    lines.append(f"written  {out / 'soak.json'}")
    with decoration("picture", console.print):
        write_whole(out / "timeline.png", _timeline(result))
        lines.append(f"written  {out / 'timeline.png'}")
    longer = replace(config, minutes=3 * config.minutes, faults=3 * config.faults, out=Path(f"{out}-long"))
    lines.append(f"next     see the logs in {out / 'logs'}, or run longer: {command_line('soak', longer)}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _show_tables(console: Console, result: SoakResult) -> None:
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
            role.role, f"{role.lives}", f"{role.judged}", f"{role.largest_bytes / MIB:,.0f} MiB", *growths,
            style="red" if role.fault else "",
        )  # fmt: skip
    console.print(table)


def _summary(result: SoakResult) -> list[str]:
    rounds = result.rounds
    too_short = ", ".join(one.role for one in result.memory if not one.judged)
    verdict = f"verdict  good: every round once, memory within {100 * GROWTH:g}%"
    if too_short:
        verdict += f"; not judged, because the processes did not live long enough: {too_short}"
    return [
        f"rounds   {rounds.expected:,}: {len(rounds.lost)} lost, {len(rounds.doubled)} doubled, "
        f"{rounds.unwritten} unwritten; {result.rounds_per_min:,.0f} per minute, faults included",
        f"faults   {len(result.soak.reports)} of {len(result.kinds)} kinds",
        *(f"left out {kind}: {why}" for kind, why in result.left_out.items()),
        *(f"found    {text}" for text in result.faults_found),
        *(["note     interrupted before all faults"] if result.interrupted else []),
        verdict if result.is_good else "verdict  BAD",
    ]


def _timeline(result: SoakResult) -> bytes:
    """Draw evaluations/s and memory over time, with every fault as a band."""
    figure, panels = new_figure("seconds of play", "evaluations / s", "memory, MiB", height=6)
    figure.set_size_inches(12, 6.5)
    top, bottom = panels
    at = np.array([one.at for one in result.soak.moments])
    done = np.array([one.evaluations for one in result.soak.moments], float)
    n = int(WINDOW_S / POLL_S)
    if len(at) > n:
        top.plot((at[n:] + at[:-n]) / 2, (done[n:] - done[:-n]) / (at[n:] - at[:-n]), color="tab:blue", linewidth=1)
    thousands(top.yaxis)
    for one in result.soak.reports:
        end = max(one.ended + (one.recovered_s or 0.0), one.began + at[-1] / 400)
        for panel in panels:
            color = f"C{result.kinds.index(one.kind) + 1}"
            label = one.kind if panel is top else None
            panel.axvspan(one.began, end, color=color, alpha=0.25, linewidth=0, label=label)
    styles = {"soak": "tab:gray", "worker": "tab:blue", "server": "tab:green", "backend": "tab:orange"}
    for life in result.soak.memory.lives:
        bottom.plot(life.at, np.array(life.bytes) / MIB, color=styles[life.role], label=life.role, linewidth=1.2)
    for panel in panels:
        panel.set_ylim(bottom=0)
        legend_above(panel)
    return png(figure)
