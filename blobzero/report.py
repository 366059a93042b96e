# SPDX-License-Identifier: Apache-2.0
"""`blobzero report`: one self-contained page about a learning loop, and its pictures as PNGs beside it."""

import base64
import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import tyro
from rich.console import Console

from blobzero import charts
from clients.records import ShardError, read_shards, shard_paths
from clients.report import machine, write_aside
from mcts_ext.contract import AT_DEALER, AT_N_CARDS, AT_N_PLAYERS
from mcts_ext.errors import BlobError

OLD_ROUNDS: Final = 5_000_000
OLD_DAYS: Final = (66, 71)
"""What a training run of the old system was to take, by its own two estimates, training included."""
MADE_BID: Final = 10
"""The score of a made bid of 0; one that is missed scores 0."""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
img {{ max-width: 100%; }} p.note {{ color: #666; font-size: 0.9rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: 0.2rem 0.8rem; border-bottom: 1px solid #ddd; }}
td {{ text-align: right; }} th {{ text-align: left; font-weight: normal; }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


class ReportError(BlobError):
    """A folder without a finished generation."""


@dataclass(frozen=True)
class ReportConfig:
    """Make a page about a learning loop: strength, losses, rates, where the time went."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a `blobzero loop`."""


@dataclass(frozen=True)
class Section:
    """One picture and what it says."""

    name: str
    heading: str
    picture: bytes
    note: str


def report(config: ReportConfig) -> int:
    """Write `<run>/report.html` and `<run>/report/*.png`; the exit status."""
    generations = _read_generations(config.run)
    metrics = _read_lines(config.run / "train" / "metrics.jsonl")
    sections = list(_sections(config.run, generations, metrics))
    folder = config.run / "report"
    try:
        folder.mkdir(exist_ok=True)
        for section in sections:
            write_aside(folder / f"{section.name}.png", section.picture)
        page = _PAGE.format(title=html.escape(f"BlobZero: {config.run.name}"), body=_body(generations, sections))
        write_aside(config.run / "report.html", page.encode())
    except OSError as error:
        raise ReportError(f"expected to write {config.run}/report.html, got {error}; free space") from error
    console = Console(stderr=True, highlight=False)
    console.print(f"written  {config.run}/report.html", markup=False)
    console.print(f"next     blobzero play --repository {config.run}/models", markup=False)
    return 0


def _read_generations(run: Path) -> list[dict[str, Any]]:
    try:
        found = [json.loads(path.read_text()) for path in sorted((run / "generations").glob("*.json"))]
    except (OSError, ValueError) as error:
        raise ReportError(f"expected the results of generations in {run}, got {error}; run the loop again") from error
    if not found:
        raise ReportError(f"expected a finished generation in {run}, got none; run blobzero loop --out {run}")
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ReportError(f"expected JSON lines in {path}, got {error}; run the loop again") from error


def _sections(
    run: Path, generations: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]
) -> list[Section]:
    bars = "Bars: 95% intervals over deals, each played with all seats exchanged."
    found = [
        Section("strength", "Strength", charts.strength(generations), bars),
        Section(
            "rating",
            "Elo",
            charts.rating(generations),
            "Matches against the version before, added up; the band adds their variances. Elo is not transitive in a "
            "game of several players: the matches against fixed opponents are the firmer ground.",
        ),
        Section(
            "rates", "Self-play", charts.rates(generations), "Whole generations, their beginning and end included."
        ),
        Section("time", "Where the time went", charts.time_spent(generations), ""),
    ]
    if metrics:
        found.insert(2, Section("losses", "Losses", charts.losses(metrics), ""))
    made = _bids_made(run / "selfplay" / f"{generations[-1]['generation']:03}" / "shards")
    if made:
        note = "In the last generation's self-play, where moves are drawn by temperature and with root noise."
        found.append(Section("bids", "Bids made", charts.bids_made(made), note))
    return found


def _bids_made(shards: Path) -> dict[tuple[int, int], tuple[int, int]]:
    """(cards, seat in the order of bidding) -> (bids made, rounds), of every seat that decided something."""
    try:
        records = read_shards(shard_paths(shards))
    except ShardError:
        return {}
    if not len(records):
        return {}
    keys = np.stack([records.round, records.seat.astype(np.int64)], axis=1)
    first = np.unique(keys, axis=0, return_index=True)[1]
    rows, outcome = records.observation[first].astype(np.int64), records.value[first, 0]
    cards, players = rows[:, AT_N_CARDS], rows[:, AT_N_PLAYERS]
    order = (players - 1 - rows[:, AT_DEALER]) % players  # the dealer, whose relative seat is 0 to itself, bids last
    is_made = np.rint(outcome * (10 + cards)) >= MADE_BID
    total: Counter[tuple[int, int]] = Counter(zip(cards.tolist(), order.tolist(), strict=True))
    made: Counter[tuple[int, int]] = Counter(zip(cards[is_made].tolist(), order[is_made].tolist(), strict=True))
    return {key: (made[key], total[key]) for key in total}


def _body(generations: Sequence[Mapping[str, Any]], sections: Sequence[Section]) -> str:
    parts = [_summary(generations)]
    for section in sections:
        data = base64.b64encode(section.picture).decode()
        parts.append(
            f'<h2>{html.escape(section.heading)}</h2><img alt="{section.name}" src="data:image/png;base64,{data}">'
        )
        parts.append(f'<p class="note">{html.escape(section.note)}</p>' if section.note else "")
    return "\n".join(parts)


def _summary(generations: Sequence[Mapping[str, Any]]) -> str:
    last = generations[-1]
    seconds = sum(sum(one["seconds"].values()) for one in generations)
    rounds = sum(one["selfplay"]["rounds"] for one in generations)
    per_min = last["selfplay"]["rounds_per_min"]
    rows = [
        ("generations", f"{len(generations)}"),
        ("version", f"{last['version']}"),
        ("rounds of self-play", f"{rounds:,}"),
        ("training steps", f"{last['train'].get('step', '')}"),
        ("time in all", f"{seconds / 60:.1f} min"),
        ("of it in training", f"{100 * sum(one['seconds']['train'] for one in generations) / seconds:.0f}%"),
        ("5 million rounds at the last generation's rate", f"{OLD_ROUNDS / per_min / 1440:.1f} days"),
        ("the old system's", f"{OLD_DAYS[0]} and {OLD_DAYS[1]} days (Ryzen 9 7950X, RTX 4060)"),
        ("machine", f"{machine()['cores']} cores, {html.escape(str(machine()['cpu']))}"),
    ]
    for name, found in last["matches"].items():
        difference = found["difference"]
        words = f"{difference['mean']:+.2f} ({difference['low']:+.2f} to {difference['high']:+.2f})"
        rows.append(
            (f"score per round against {html.escape('the version before' if name == 'before' else name)}", words)
        )
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows) + "</table>"
