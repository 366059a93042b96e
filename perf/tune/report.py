# SPDX-License-Identifier: Apache-2.0
"""What a tuning leaves: a table of the best settings, the verdict, tune.json and a picture of what mattered."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from clients.files import reason, write_json, write_whole
from mcts_ext.errors import BlobError
from perf.tune.config import TuneConfig
from perf.tune.space import Space, client_flags
from perf.tune.study import Verdict, finished
from ui.console import decoration
from ui.figures import png
from ui.next_step import command_line, quoted

SHOWN: Final = 6
LEAST_TRIALS: Final = 8
"""Before it is said what mattered."""
PLAIN_WIDTH: Final = 140


class UnwritableReport(BlobError):
    """The folder of a study cannot be written."""


@dataclass(frozen=True)
class TuneResult:
    """All that came of a tuning."""

    config: TuneConfig
    space: Space
    study: optuna.Study
    verdict: Verdict | None
    """None where the study was interrupted, or nothing but the default could be measured."""
    written: Path | None
    interrupted: bool
    """Whether by Ctrl-C."""
    machine: Mapping[str, Any]

    @property
    def trials(self) -> list[FrozenTrial]:
        return finished(self.study)

    @property
    def importances(self) -> dict[str, float]:
        """How much of what tells good trials from others lies in each name (PED-ANOVA, Watanabe et al. 2023)."""
        scored = [one for one in self.trials if one.state == TrialState.COMPLETE]
        if len(scored) < LEAST_TRIALS or len({one.value for one in scored}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is called experimental, and warns of names that never varied
            return optuna.importance.get_param_importances(
                self.study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "objective": self.config.objective,
            "limit": self.config.limit,
            "default": self.space.default,
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "written": None if self.written is None else str(self.written),
            "interrupted": self.interrupted,
            "importances": self.importances,
            "trials": [
                {"number": one.number, "state": one.state.name, "setting": one.params, "score": one.value}
                | one.user_attrs
                for one in self.trials
            ],
            "machine": dict(self.machine),
            "config": json.loads(json.dumps(asdict(self.config), default=str)),
        }  # fmt: skip


def report(console: Console, result: TuneResult, *, is_broken_off: bool) -> None:
    """Write tune.json and, where matplotlib is, tune.png; tell people, or programs."""
    out = result.config.out
    written = [out / "tune.json"]
    try:
        write_json(out / "tune.json", result.to_json())
    except OSError as error:
        raise UnwritableReport(f"expected to write {out}, got {reason(error)}; make room") from error
    with decoration("picture", console.print):
        write_whole(out / "tune.png", _picture(result))
        written.append(out / "tune.png")
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    _tell(console, result, written, is_broken_off=is_broken_off)
    if result.config.json:
        print(json.dumps(result.to_json()))


def _tell(console: Console, result: TuneResult, written: list[Path], *, is_broken_off: bool) -> None:
    unit = "rounds/min" if result.config.objective == "rounds" else "rows/s"
    names = list(result.space.default)
    table = Table(title=f"best of {len(result.trials)} trials", title_justify="left")
    for name in ("trial", *names, unit, "of the default"):
        table.add_column(name, justify="right", no_wrap=True)
    scored = [one for one in result.trials if one.state == TrialState.COMPLETE]
    for one in sorted(scored, key=lambda one: -(one.value or 0.0))[:SHOWN]:
        table.add_row(
            f"{one.number + 1}", *(str(one.params[name]) for name in names), f"{one.user_attrs['rate']:,.0f}",
            f"{math.exp(one.value or 0.0):.3f}",
        )  # fmt: skip
    middle = [one.user_attrs["default"] for one in scored]
    table.add_row(
        "default", *(str(value) for value in result.space.default.values()),
        f"{np.median(middle):,.0f}" if middle else "-", "1", style="bold",
    )  # fmt: skip
    console.print(table)
    say = [f"refused  {one.params}: {one.user_attrs['reason']}" for one in result.trials if "reason" in one.user_attrs]
    if result.importances:
        mattered = ", ".join(f"{name} {100 * share:.0f}%" for name, share in result.importances.items())
        say.append(f"mattered {mattered}")
    say += [f"written  {path}" for path in written]
    say += _verdict(result, unit, is_broken_off=is_broken_off)
    for line in say:
        console.print(line, markup=False, soft_wrap=True)


def _verdict(result: TuneResult, unit: str, *, is_broken_off: bool) -> list[str]:
    config, verdict = result.config, result.verdict
    if is_broken_off and verdict is None:
        return [f"next     {command_line('tune', config)}   goes on with the {len(result.trials)} trials there are"]
    longer = f"next     {command_line('tune', replace(config, trials=2 * config.trials))}   a longer search"
    if verdict is None:
        return ["verdict  could not beat the default: no other setting could be measured", longer]
    ratio, (default, best) = verdict.ratio, verdict.medians
    measured = (
        f"ratio {ratio.mean:.3f}, 95% interval {ratio.low:.3f} to {ratio.high:.3f}, of {len(verdict.pairs)} "
        f"interleaved pairs; medians {best:,.0f} and {default:,.0f} {unit}"
    )
    latencies = verdict.latencies_ms
    if latencies is not None:
        measured += f"; {config.limit and config.limit.partition('=')[0]} {latencies[1]:.1f} and {latencies[0]:.1f} ms"
    if not verdict.is_win:
        why = "" if verdict.keeps_promise else f"; {config.limit} was not kept"
        return [f"verdict  could not beat the default: {measured}{why}", longer]
    why = "" if verdict.default_keeps_promise else f", which does not keep {config.limit}"
    said = [f"verdict  beats the default{why}: {measured}"]
    if result.written is not None:
        said += [
            f"written  {result.written}",
            f"next     blobzero serve --repository {quoted(config.repository)} --config-name {result.written.stem}   "
            f"with {client_flags(verdict.setting)}",
        ]
    return said


def _picture(result: TuneResult) -> bytes:
    """Every trial's score in order, the best so far, and what mattered."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scored = [one for one in result.trials if one.state == TrialState.COMPLETE]
    figure, (top, bars) = plt.subplots(2, 1, figsize=(8, 7), layout="constrained")
    at = [one.number + 1 for one in scored]
    shares = [math.exp(one.value or 0.0) for one in scored]
    top.plot(at, shares, "o", label="a trial")
    if at:
        top.step(at, np.maximum.accumulate(shares), where="post", color="tab:orange", label="best so far")
    top.axhline(1.0, color="grey", linewidth=0.8, label="the default")
    refused = [one.number + 1 for one in result.trials if "reason" in one.user_attrs]
    if refused:
        top.plot(refused, [0.0] * len(refused), "x", color="tab:red", label="refused")
    if result.verdict is not None:
        found = result.verdict.ratio
        top.axhspan(found.low, found.high, color="tab:green", alpha=0.25, label="best against default, 95%")
    top.set_xlabel("trial")
    top.set_ylabel("rate, as a share of the default's")
    top.grid(alpha=0.25)
    top.legend(fontsize="small")
    importances = result.importances
    names = list(importances)[::-1]
    bars.barh(names, [importances[name] for name in names])
    bars.set_xlabel("share of what tells the best quarter of trials from the others")
    if not names:
        bars.text(0.5, 0.5, f"told from {LEAST_TRIALS} trials on", ha="center", transform=bars.transAxes)
    return png(figure)
