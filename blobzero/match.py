# SPDX-License-Identifier: Apache-2.0
"""`blobzero match`: two or more players on duplicate deals, and how sure the outcome is."""

import json
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from blobzero.players import open_player
from clients.match import Deal, Match
from clients.rating import Interval, anytime_interval, elo_interval, mean_interval
from clients.report import machine, write_json
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import InvalidConfig

LOOK_EVERY: Final = 10
"""Deals between two looks at whether the match is decided."""


@dataclass(frozen=True)
class MatchConfig:
    """Let players meet on duplicate deals: random, heuristic, search-uniform, latest, version:N, or a file's path."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """The players, two or more; the difference is the first one's score less the second's."""
    deals: int = 200
    """Deals; each is played once for every player, with the seats moved on."""
    stop_when_decided: bool = False
    """End once an interval that holds at every moment excludes zero."""
    players: tuple[int, ...] = (4,)
    """Seats at the table; several numbers are drawn from uniformly."""
    cards: tuple[int, ...] = (5,)
    """Cards dealt to each; several numbers are drawn from uniformly."""
    determinizations: int = 3
    """Deals searched for each decision, by players that search."""
    simulations: int = 30
    """Simulations in each of them."""
    c_puct: float = 1.5
    """Weight of the network's prior against the values found."""
    seed: int = 0
    """The same seed gives the same match."""
    url: str | None = None
    """HOST:PORT of a server for `latest` and `version:N`; without it they are computed in this process."""
    repository: Path = Path("model_repo")
    """Model repository of `latest` and `version:N`."""
    out: Path | None = None
    """Also write the result to this JSON file."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output, everything else on standard error."""


def match(config: MatchConfig) -> int:
    """Play and tell; the exit status: 130 when it was interrupted."""
    if len(config.names) < 2:
        raise InvalidConfig(f"expected two players or more, got {len(config.names)}")
    if config.deals < 2:
        raise InvalidConfig(f"expected --deals of at least 2, got {config.deals}")
    if len(config.names) > min(config.players):
        raise InvalidConfig(f"expected a seat for each of {len(config.names)} players, got --players {config.players}")
    deals = DealConfig(players=config.players, cards=config.cards)
    search = SearchConfig(
        determinizations=config.determinizations, simulations=config.simulations, c_puct=config.c_puct
    )
    console = Console(stderr=True, highlight=False)
    stopped = False

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    found: list[Deal] = []
    began = time.monotonic()
    try:
        with ExitStack() as stack, _progress(console) as progress:
            players = [
                open_player(name, url=config.url, repository=config.repository, stack=stack) for name in config.names
            ]
            task = progress.add_task(" - ".join(config.names), total=config.deals, difference="")
            played = Match(players, deals=deals, search=search, seed=config.seed)
            for deal in played.play(
                config.deals, should_stop=lambda: stopped or (config.stop_when_decided and is_decided(found))
            ):
                found.append(deal)
                if len(found) % LOOK_EVERY == 0:
                    progress.update(task, completed=len(found), difference=str(mean_interval(differences(found))))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if len(found) < 2:
        return 130
    result = outcome(config, found, seconds=time.monotonic() - began, evaluations=played.n_evaluations)
    console.print(_table(result))
    console.print(_words(result), markup=False, soft_wrap=True)
    if config.out is not None:
        write_json(config.out, result)
        console.print(f"written  {config.out}", markup=False)
    if config.json:
        print(json.dumps(result))
    return 130 if stopped else 0


def differences(deals: Sequence[Deal]) -> list[float]:
    """The first player's mean round score less the second's, deal by deal."""
    return [deal.scores[0] - deal.scores[1] for deal in deals]


def is_decided(deals: Sequence[Deal]) -> bool:
    """Whether an interval that holds at every moment excludes zero; looked at every few deals."""
    return len(deals) % LOOK_EVERY == 0 and anytime_interval(differences(deals)).excludes(0.0)


def outcome(config: MatchConfig, deals: Sequence[Deal], *, seconds: float, evaluations: int) -> dict[str, Any]:
    """The result as programs read it."""
    per_deal = differences(deals)
    interval = anytime_interval if config.stop_when_decided else mean_interval
    difference: Interval = interval(per_deal)
    return {
        "players": [
            {
                "name": name,
                "score_per_round": sum(deal.scores[i] for deal in deals) / len(deals),
                "bid_made_rate": sum(deal.made[i] for deal in deals) / sum(deal.rounds[i] for deal in deals),
                "rounds": sum(deal.rounds[i] for deal in deals),
            }
            for i, name in enumerate(config.names)
        ],
        "deals": len(deals),
        "difference": asdict(difference),
        "elo": asdict(elo_interval(per_deal)),
        "decided": difference.excludes(0.0),
        "seconds": round(seconds, 3),
        "evaluations": evaluations,
        "machine": machine(),
        "config": json.loads(json.dumps(asdict(config), default=str)),
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[difference]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _words(result: dict[str, Any]) -> str:
    difference, elo = Interval(**result["difference"]), Interval(**result["elo"])
    names = [player["name"] for player in result["players"]]
    verdict = "decided" if result["decided"] else "not decided"
    return (
        f"{names[0]} less {names[1]}: {difference} a round, Elo {elo.mean:+.0f} ({elo.low:+.0f} to {elo.high:+.0f}): "
        f"{verdict}, at 95%"
    )


def _table(result: dict[str, Any]) -> Table:
    table = Table(
        "player", "score a round", "bids made", "rounds", box=None, pad_edge=False, title_justify="left",
        title=f"{result['deals']} deals, {result['seconds']:.0f} s",
    )  # fmt: skip
    for player in result["players"]:
        table.add_row(
            player["name"],
            f"{player['score_per_round']:.2f}",
            f"{100 * player['bid_made_rate']:.1f}%",
            f"{player['rounds']:,}",
        )
    return table
