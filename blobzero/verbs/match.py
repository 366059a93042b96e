# SPDX-License-Identifier: Apache-2.0
"""`blobzero match`: a match of duplicate deals between players, with confidence intervals."""

import contextlib
import importlib
import itertools
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from blobzero.arguments import Range
from blobzero.server import Say, ServerFlags
from clients.arena.match import DealResult, MatchCounts, Player, play
from clients.arena.players import KNOWN, PLAYER_SEARCH, Networks, PlayerSpec, open_player, parse
from clients.arena.rating import Estimate, anytime_estimate, decided_after, elo, estimate
from clients.connect import EvaluatorConfig
from clients.files import write_json
from clients.lock import sole_writer_of
from clients.provenance import machine
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import InvalidConfig
from ui.console import new_table, plain_console
from ui.progress import ticker
from ui.stopping import INTERRUPTED

CONTESTANTS: Final = (
    f"Two or more players of {KNOWN}; a searching player may have the suffix @DxK, its own determinizations and "
    "simulations, or @policy, its network without search."
)
SCORE: Final = "score\nper round"
LOOK_EVERY = 16
"""Deals between two evaluations of the sequential test."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig(ServerFlags):
    """Play a match of duplicate deals: every player plays every hand, and differences have confidence intervals."""

    contestants: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(help=CONTESTANTS)]]
    deals: Annotated[int, Range(1, 10**9)] = 1000
    """Number of deals; each is played once per player."""
    seed: int = 0
    """Seed of deals, seatings and searches; the same seed gives the same match."""
    players: tuple[int, ...] = (4,)
    """Number of seats; drawn uniformly if several are given."""
    cards: tuple[int, ...] = (5,)
    """Number of cards per seat; drawn uniformly if several are given."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = PLAYER_SEARCH
    stop_when_decided: bool = False
    """Stop as soon as the difference of the first two players is decided, by an anytime-valid interval."""
    out: Path | None = None
    """Write the result to this JSON file."""
    json: bool = False
    """Print the result as JSON on standard output."""

    def deal(self) -> DealConfig:
        return DealConfig(players=self.players, cards=self.cards)

    def specs(self) -> list[PlayerSpec]:
        """Return the parsed players.

        Raises:
            InvalidConfig: if a setting is out of range, or a player is unknown.
        """
        if len(self.contestants) < 2:
            raise InvalidConfig(f"expected at least two players, got {len(self.contestants)}; add another")
        self.deal()
        specs = [parse(text) for text in self.contestants]
        if max(self.players) > 7 and any(spec.is_openspiel for spec in specs):
            raise InvalidConfig(f"expected at most 7 seats with ismcts, got {max(self.players)}")
        return specs


def match(config: MatchConfig) -> int:
    """Play, report, and return the exit status: 0, or 130 when interrupted."""
    specs = config.specs()
    importlib.import_module("scipy.stats")  # needed for the intervals: fail before the match if it is missing
    with sole_writer_of(config.out) if config.out is not None else contextlib.nullcontext():
        return _run(config, specs)


def _run(config: MatchConfig, specs: list[PlayerSpec]) -> int:
    console = plain_console(stderr=True, is_wide=True)
    counts, results = MatchCounts(), list[DealResult]()
    watched, was_interrupted = config.stop_when_decided, False
    with contextlib.ExitStack() as stack:
        networks = _networks(config, specs, stack, console.print)
        players = [open_player(spec, search=config.search, networks=networks) for spec in specs]
        tick = stack.enter_context(ticker(console, "deals", total=config.deals))
        start = time.monotonic()
        try:
            for result in play(players, config.deal(), deals=config.deals, seed=config.seed, counts=counts):
                results.append(result)
                if watched and len(results) % LOOK_EVERY == 0:
                    end = decided_after(_differences(results, 0, 1))
                    if end is not None:
                        del results[end:]
                        break
                tick(len(results), lambda: f"difference {_estimate(_differences(results, 0, 1), watched)}")
        except KeyboardInterrupt:
            was_interrupted = True
        seconds = time.monotonic() - start
    if not results:
        console.print("interrupted before the first deal was complete")
        return INTERRUPTED
    outcome = summarize(players, results, watched=watched)
    outcome |= {
        "seed": config.seed,
        "seconds": round(seconds, 3),
        **asdict(counts),
        "interrupted": was_interrupted,
        "machine": machine(),
        "config": json.loads(json.dumps(asdict(config), default=str)),
    }
    _tell(console, outcome)
    if config.out is not None:
        write_json(config.out, outcome)
    if config.json:
        print(json.dumps(outcome))
    return INTERRUPTED if was_interrupted else 0


def summarize(players: Sequence[Player], results: Sequence[DealResult], *, watched: bool) -> dict[str, Any]:
    """Return the result of a match under its JSON keys.

    Args:
        watched: whether the match could stop early; then all intervals are anytime-valid (`anytime`), else Student's t
            intervals for a fixed number of deals (`fixed`).
    """
    seats = sum(result.n_seats for result in results)
    scores = np.array([result.scores for result in results])
    made = np.array([result.bids_made * result.n_seats for result in results]).sum(axis=0) / seats
    pairs = []
    for first, second in itertools.combinations(range(len(players)), 2):
        differences = _differences(results, first, second)
        difference = _estimate(differences, watched)
        pairs.append(
            {
                "first": players[first].name,
                "second": players[second].name,
                "difference": _plain(difference),
                "elo": _plain(elo(differences)),
                "decided": difference.excludes_zero,
            }
        )
    return {
        "players": [
            {
                "name": player.name,
                "what": player.what,
                "score_per_round": round(float(scores[:, i].mean()), 4),
                "score_interval": _plain(_estimate(scores[:, i], watched)),
                "bid_made_rate": round(float(made[i]), 4),
                "rounds": seats,
            }
            for i, player in enumerate(players)
        ],
        "deals": len(results),
        **{name: pairs[0][name] for name in ("difference", "elo", "decided")},
        "interval": "anytime" if watched else "fixed",
        "pairs": pairs,
    }


def _differences(results: Sequence[DealResult], first: int, second: int) -> NDArray[np.float64]:
    return np.array([result.scores[first] - result.scores[second] for result in results])


def _estimate(differences: NDArray[np.float64], watched: bool) -> Estimate:
    return anytime_estimate(differences) if watched else estimate(differences)


def _plain(interval: Estimate) -> dict[str, float | None]:
    """Return an estimate as JSON values; infinite ends become null."""
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in asdict(interval).items()}


def _networks(config: MatchConfig, specs: Sequence[PlayerSpec], stack: contextlib.ExitStack, say: Say) -> Networks:
    """Return the players' networks; starts a server and exports checkpoints if necessary."""
    exported: dict[Path, Path] = {}
    for path in sorted({spec.path for spec in specs if spec.path.suffix == ".safetensors"}):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-match-"))
        exported[path] = Path(folder) / "model.onnx"
        _export(path, exported[path])
    url = config.url or ""
    if any(spec.needs_server for spec in specs):
        url, _ = stack.enter_context(config.server(say))
    server = EvaluatorConfig(url=url, model=config.model, server_timeout_s=config.server_timeout)
    return Networks(server, repository=config.repository, exported=exported, stack=stack, on_event=say)


def _export(checkpoint: Path, path: Path) -> None:
    """Export a checkpoint to a float32 ONNX file, independent of the precision in which it may be published."""
    from export.graph import metadata_of
    from export.precisions import Variant
    from export.variants import build
    from mcts_ext.contract import OBSERVATION_BYTES
    from training.checkpoint import load_checkpoint

    network, info = load_checkpoint(checkpoint)
    nothing = np.zeros((0, OBSERVATION_BYTES), np.uint8)
    build(network, Variant("onnx", "float32"), path, metadata=metadata_of(info), calibration=nothing)


def _tell(console: Console, outcome: dict[str, Any]) -> None:
    """Print the result as tables."""
    title = f"{outcome['deals']:,} deals of seed {outcome['seed']} in {outcome['seconds']:.1f} s"
    table = new_table(title, "player", SCORE, "95%", "bids made", "rounds", "", left=("player", ""), box=None)
    for player in outcome["players"]:
        table.add_row(
            player["name"], f"{player['score_per_round']:.2f}", _span(player["score_interval"], 2),
            f"{100 * player['bid_made_rate']:.1f}%", f"{player['rounds']:,}", player["what"],
        )  # fmt: skip
    console.print(table)
    title = f"differences ({outcome['interval']} 95% intervals)"
    words = ("first", "second")
    table = new_table(title, *words, SCORE, "95%", "Elo", "95%", "decided", left=words, box=None)
    for pair in outcome["pairs"]:
        difference, points = pair["difference"], pair["elo"]
        table.add_row(
            pair["first"], pair["second"], f"{difference['mean']:+.2f}", _span(difference, 2),
            f"{points['mean']:+.0f}", _span(points, 0), "yes" if pair["decided"] else "no",
        )  # fmt: skip
    console.print(table)
    if outcome["evaluations"]:
        rate = outcome["evaluations"] / outcome["seconds"]
        mean = outcome["evaluations"] / outcome["requests"]
        console.print(
            f"{outcome['decisions']:,} decisions searched, {outcome['evaluations']:,} evaluations, "
            f"{rate:,.0f} per second, {mean:.0f} rows per request"
        )
    if outcome["interrupted"]:
        console.print("interrupted: only complete deals are counted")


def _span(interval: dict[str, float | None], digits: int) -> str:
    """Format an interval; infinite ends become an ellipsis."""
    ends = ("..." if end is None else f"{end:+.{digits}f}" for end in (interval["low"], interval["high"]))
    return " to ".join(ends)
