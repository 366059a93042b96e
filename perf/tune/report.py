# SPDX-License-Identifier: Apache-2.0
"""Report of a tuning: a table of the best settings, the verdict, tune.json and a picture."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from clients.files import write_json, write_whole
from clients.provenance import machine
from perf.tune.config import TuneConfig
from perf.tune.space import Space, client_flags
from perf.tune.study import Verdict, finished
from ui.console import decoration, new_table
from ui.figures import new_figure, png
from ui.next_step import command_line, quoted

SHOWN: Final = 6


@dataclass(frozen=True)
class TuneResult:
    """Results of a tuning."""

    config: TuneConfig
    space: Space
    study: optuna.Study
    verdict: Verdict | None
    """None after an interruption, or if only the default could be measured."""
    written: Path | None
    interrupted: bool

    @property
    def scored(self) -> list[FrozenTrial]:
        return self.study.get_trials(states=[TrialState.COMPLETE])

    def to_json(self) -> dict[str, Any]:
        return {
            "objective": self.config.objective,
            "limit": self.config.limit,
            "default": self.space.default,
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "written": None if self.written is None else str(self.written),
            "interrupted": self.interrupted,
            "trials": [
                {"number": one.number, "state": one.state.name, "setting": one.params, "score": one.value}
                | one.user_attrs
                for one in finished(self.study)
            ],
            "machine": machine(),
            "config": json.loads(json.dumps(asdict(self.config), default=str)),
        }  # fmt: skip


def report(console: Console, result: TuneResult, *, is_broken_off: bool) -> None:
    """Write tune.json and, if matplotlib is installed, tune.png; print the result for people and for scripts."""
    config, trials = result.config, finished(result.study)
    written = [config.out / "tune.json"]
    found = result.to_json()
    write_json(written[0], found)
    with decoration("picture", console.print):
        write_whole(config.out / "tune.png", _picture(result))
        written.append(config.out / "tune.png")
    console.print(_table(result))
    lines = [f"refused  {one.params}: {one.user_attrs['reason']}" for one in trials if "reason" in one.user_attrs]
    lines += [f"written  {path}" for path in written]
    if is_broken_off and result.verdict is None:
        lines.append(f"next     {command_line('tune', config)}   continues after the {len(trials)} trials so far")
    else:
        lines += _verdict(result)
    for line in lines:
        console.print(line, soft_wrap=True)
    if config.json:
        print(json.dumps(found))


def _table(result: TuneResult) -> Table:
    names = list(result.space.default)
    title = f"best of {len(finished(result.study))} trials"
    table = new_table(title, "trial", *names, result.config.unit, "of the default")
    for one in sorted(result.scored, key=lambda one: -(one.value or 0.0))[:SHOWN]:
        values = (str(one.params[name]) for name in names)
        score = math.exp(one.value or 0.0)
        table.add_row(f"{one.number + 1}", *values, f"{one.user_attrs['rate']:,.0f}", f"{score:.3f}")
    rates = [one.user_attrs["default"] for one in result.scored]
    median = f"{np.median(rates):,.0f}" if rates else "-"
    table.add_row("default", *map(str, result.space.default.values()), median, "1", style="bold")
    return table


def _verdict(result: TuneResult) -> list[str]:
    config, verdict = result.config, result.verdict
    longer = f"next     {command_line('tune', replace(config, trials=2 * config.trials))}   a longer search"
    if verdict is None:
        return ["verdict  could not beat the default: no other setting could be measured", longer]
    default_keeps, keeps = verdict.keep_limit
    if not verdict.is_win:
        why = "" if keeps else f"; {config.limit} was not met"
        return [f"verdict  could not beat the default: {verdict.describe(config.unit)}{why}", longer]
    why = "" if default_keeps else f", which does not meet {config.limit}"
    lines = [f"verdict  beats the default{why}: {verdict.describe(config.unit)}"]
    if result.written is not None:
        serve = f"blobzero serve --repository {quoted(config.repository)} --config-name {result.written.stem}"
        lines += [f"written  {result.written}", f"next     {serve}   with {client_flags(verdict.setting)}"]
    return lines


def _picture(result: TuneResult) -> bytes:
    """Draw every trial's score in order, and the best so far."""
    figure, (axes,) = new_figure("trial", "rate, as a fraction of the default's")
    at = [one.number + 1 for one in result.scored]
    scores = [math.exp(one.value or 0.0) for one in result.scored]
    axes.plot(at, scores, "o", label="a trial")
    if at:
        axes.step(at, np.maximum.accumulate(scores), where="post", label="best so far")
    axes.axhline(1.0, color="grey", linewidth=0.8, label="the default")
    refused = [one.number + 1 for one in finished(result.study) if "reason" in one.user_attrs]
    if refused:
        axes.plot(refused, [0.0] * len(refused), "x", color="tab:red", label="refused")
    if result.verdict is not None:
        found = result.verdict.ratio
        axes.axhspan(found.low, found.high, color="tab:green", alpha=0.25, label="best against default, 95%")
    axes.legend(fontsize="small")
    return png(figure)
