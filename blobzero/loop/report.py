# SPDX-License-Identifier: Apache-2.0
"""`blobzero report`: a self-contained HTML report of a learning loop, and its charts as PNG files."""

import base64
import html
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import numpy as np
import tyro
from numpy.typing import NDArray

from blobzero.loop import charts
from blobzero.loop.instruments import MADE_BID, Exploration, points_of
from clients.files import json_object, read_json, read_small, reason, write_whole
from clients.lock import sole_writer
from clients.provenance import machine
from clients.selfplay.records import ShardError, readable
from mcts_ext.contract import AT_DEALER, AT_N_CARDS, AT_N_PLAYERS
from mcts_ext.errors import BlobError
from ui.console import plain_console
from ui.figures import PAGE
from ui.next_step import propose, quoted

T = TypeVar("T")

REFERENCE_ROUNDS: Final = 5_000_000
"""Total rounds of the preset `reference`."""
LOST: Final = (
    "how many points the policy target of self-play's search loses to that of an even root of the same size, judged by "
    "a larger search. Above 0.2 points, or with the best action never visited in over 5% of the decisions, self-play "
    "explores too little to learn from."
)


class ReportError(BlobError):
    """The folder has no finished generation, or a file is invalid."""


@dataclass(frozen=True)
class ReportConfig:
    """Write an HTML report of a learning loop: strength, losses, rates, time spent."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a `blobzero loop`."""


@dataclass(frozen=True)
class Section:
    """Chart with heading and note."""

    name: str
    heading: str
    picture: bytes
    note: str


def report(config: ReportConfig) -> int:
    """Write `<run>/report.html` and `<run>/report/*.png`; return the exit status."""
    generations = [_read(path, read_json) for path in sorted((config.run / "generations").glob("*.json"))]
    if not generations:
        run = f"run blobzero loop --out {quoted(config.run)}"
        raise ReportError(f"expected a finished generation in {config.run}, got none; {run}")
    path = config.run / "train" / "metrics.jsonl"
    metrics = _read(path, _json_lines) if path.exists() else []
    sections = list(_sections(config.run, generations, metrics))
    folder = config.run / "report"
    with sole_writer(folder):
        for section in sections:
            write_whole(folder / f"{section.name}.png", section.picture)
        page = PAGE.format(title=html.escape(f"BlobZero: {config.run.name}"), body=_body(generations, sections))
        write_whole(config.run / "report.html", page.encode(errors="replace"))
    console = plain_console(stderr=True)
    console.print(f"written  {config.run}/report.html")
    propose(console, f"blobzero play --repository {quoted(config.run / 'models')}")
    return 0


def _read(path: Path, parse: Callable[[Path], T]) -> T:
    try:
        return parse(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"expected JSON in {path}, got {reason(error)}; run the loop again") from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json_object(line) for line in read_small(path).splitlines()]


def _sections(
    run: Path, generations: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]
) -> list[Section]:
    bars = "Bars: 95% intervals over duplicate deals."
    sections = [
        Section("strength", "Strength", charts.strength(generations), bars),
        Section(
            "rating",
            "Elo",
            charts.rating(generations),
            "Sum of the matches against the previous version; the band adds their variances. Elo is not transitive in "
            "multiplayer games, so the matches against fixed opponents are more reliable. 95% intervals.",
        ),
        Section("rates", "Self-play", charts.rates(generations), "Whole generations, including start and end."),
        Section("time", "Time spent", charts.time_spent(generations), ""),
    ]
    if metrics:
        sections.insert(2, Section("losses", "Losses", charts.losses(metrics), ""))
    if any(one.get("play") for one in generations):
        note = f"Top: drawn with self-play's temperature. Bottom, with 95% intervals: {LOST}"
        sections.append(Section("play", "What self-play explores", charts.play(generations), note))
    made = bids_made(run / "selfplay" / f"{generations[-1]['generation']:03}" / "shards")
    if made:
        note = "Self-play of the last generation, where moves are sampled from the policy."
        sections.append(Section("bids", "Bids made", charts.bids_made(made), note))
    return sections


def bids_made(shards: Path) -> dict[tuple[int, int], tuple[int, int]]:
    """Return a map (cards, seat in the order of bidding) -> (bids made, rounds)."""
    total: Counter[tuple[int, int]] = Counter()
    made: Counter[tuple[int, int]] = Counter()
    try:
        for records in readable(shards, ["observation", "value", "round"]):
            _count_bids(records, made, total)
    except ShardError:
        return {}
    return {key: (made[key], total[key]) for key in total}


def _count_bids(
    records: Mapping[str, NDArray[Any]], made: Counter[tuple[int, int]], total: Counter[tuple[int, int]]
) -> None:
    first = np.unique(records["round"], return_index=True)[1]  # each record has the outcome of all seats
    rows = records["observation"][first].astype(np.int64)
    cards, players, dealer = rows[:, AT_N_CARDS], rows[:, AT_N_PLAYERS], rows[:, AT_DEALER]
    is_made = points_of(records)[first] >= MADE_BID
    for relative in range(int(players.max())):
        order = (relative - dealer - 1) % players
        for counter, mask in ((total, players > relative), (made, (players > relative) & is_made[:, relative])):
            counter.update(zip(cards[mask].tolist(), order[mask].tolist(), strict=True))


def _projection(generations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Estimate how long the preset `reference` would take."""
    measured = [one for one in generations if one["selfplay"]["rounds"]]  # 0 if resumed after its self-play
    if not measured:
        return {}
    rounds = sum(one["selfplay"]["rounds"] for one in measured)
    seconds = sum(sum(one["seconds"].values()) for one in measured)
    rate = measured[-1]["selfplay"]["rounds_per_min"]
    return {
        "self-play alone, at the last generation's rate": _duration(REFERENCE_ROUNDS / rate / 1440),
        "everything, at the mean rate of this loop": _duration(REFERENCE_ROUNDS * seconds / rounds / 86400),
    }


def _duration(days: float) -> str:
    """Format a time in a suitable unit."""
    if days >= 2:
        return f"{days:.1f} days"
    return f"{24 * days:.1f} hours" if days >= 2 / 24 else f"{1440 * days:.1f} min"


def _body(generations: Sequence[Mapping[str, Any]], sections: Sequence[Section]) -> str:
    parts = [_summary(generations)]
    for section in sections:
        data = base64.b64encode(section.picture).decode()
        parts.append(f"<h2>{html.escape(section.heading)}</h2>")
        parts.append(f'<img alt="{section.name}" src="data:image/png;base64,{data}">')
        parts.append(f'<p class="note">{html.escape(section.note)}</p>' if section.note else "")
    return "\n".join(parts)


def _summary(generations: Sequence[Mapping[str, Any]]) -> str:
    last = generations[-1]
    seconds = sum(sum(one["seconds"].values()) for one in generations)
    rounds = sum(one["selfplay"]["rounds"] + one["selfplay"].get("rounds_before", 0) for one in generations)
    here = last["selfplay"].get("machine") or machine()
    rows = [
        ("generations", f"{len(generations)}"),
        ("version", f"{last['version']}"),
        ("rounds of self-play", f"{rounds:,}"),
        ("training steps", f"{last['train'].get('step', 0):,}"),
        ("total time", _duration(seconds / 86400)),
        ("machine", f"{here['cores']} cores, {here['cpu']}"),
    ]
    for name, found in last["matches"].items():
        opponent = charts.described(name)
        rows.append((f"score difference per round, {opponent}", _interval(found["difference"], 2)))
        rows.append((f"Elo, {opponent}", _interval(found["elo"], 0)))
    rows += [(f"self-play, {name}", text) for name, text in _explored(last)]
    rows += [(f"5 million rounds: {name}", words) for name, words in _projection(generations).items()]
    lines = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return "<table>" + "".join(lines) + "</table>"


def _explored(generation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and text of what was measured of a generation's self-play; old generations have nothing."""
    if play := generation.get("play"):
        yield "points a round", f"{play['score']:.2f}"
        yield (
            "bids, how often (and made)",
            ", ".join(f"{one['bid']}: {one['share']:.0%} ({one['made']:.0%})" for one in play["bids"]),
        )
    for figures in generation.get("exploration", []):
        found = Exploration(**figures)
        yield f"exploration of {found.kind}", "; ".join([str(found), *(f"warning: {w}" for w in found.warnings())])


def _interval(found: Mapping[str, float | None], digits: int) -> str:
    """Format an estimate with its 95% interval; infinite ends become an ellipsis."""
    mean, low, high = ("..." if found[key] is None else f"{found[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
