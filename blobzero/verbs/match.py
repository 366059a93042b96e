# SPDX-License-Identifier: Apache-2.0
"""`blobzero match`: a match of duplicate deals between players, with confidence intervals."""

import contextlib
import importlib
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from clients.arena.match import DealResult, MatchCounts, Player, play
from clients.arena.players import KNOWN, PLAYER_SEARCH, NetworkSource, PlayerSpec, open_players, parse
from clients.arena.rating import Estimate, anytime_estimate, decided_after, elo, estimate
from clients.files import reason, write_json
from clients.lock import sole_writer_of
from clients.provenance import machine
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig
from ui.console import plain_console

PLAIN_INTERVAL_S = 10.0
"""Interval of progress lines without a terminal."""
CONTESTANTS: Final = (
    f"Two or more players of {KNOWN}; a searching player may have the suffix @DxK, its own determinizations and "
    "simulations, or @policy, its network without search."
)
LOOK_EVERY = 16
"""Deals between two evaluations of the sequential test."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Play a match of duplicate deals: every player plays every hand, and differences have confidence intervals."""

    contestants: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(help=CONTESTANTS)]]
    deals: int = 1000
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
    url: str | None = None
    """HOST:PORT of a Triton server's gRPC endpoint; by default one is started if a player needs it."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here, and of versions that the server does not serve."""
    model: str = MODEL_NAME
    """Name of the model."""
    server_timeout: float = 60.0
    """Seconds to retry while the server is unavailable."""
    out: Path | None = None
    """Write the result to this JSON file."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
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
        if not 1 <= self.deals <= 10**9:
            raise InvalidConfig(f"expected --deals in 1..1000000000, got {self.deals}")
        self.deal()
        specs = [parse(text) for text in self.contestants]
        if max(self.players) > 7 and any(spec.is_openspiel for spec in specs):
            raise InvalidConfig(f"expected at most 7 seats with ismcts, got {max(self.players)}")
        return specs


class UnwritableResult(BlobError):
    """The result's file cannot be written."""


def match(config: MatchConfig) -> int:
    """Play, report, and return the exit status: 0, or 130 when interrupted."""
    specs = config.specs()
    importlib.import_module("scipy.stats")  # needed for the intervals: fail before the match if it is missing
    with sole_writer_of(config.out) if config.out is not None else contextlib.nullcontext():
        return _run(config, specs)


def _run(config: MatchConfig, specs: list[PlayerSpec]) -> int:
    console = plain_console(stderr=True)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    counts, results = MatchCounts(), list[DealResult]()
    was_interrupted = False
    with contextlib.ExitStack() as stack:
        source = _source(config, specs, stack, say)
        players = open_players(specs, search=config.search, source=source, stack=stack, on_event=say)
        start = time.monotonic()
        try:
            with _progress(console, config.deals) as show:
                for result in play(players, config.deal(), deals=config.deals, seed=config.seed, counts=counts):
                    results.append(result)
                    if config.stop_when_decided and len(results) % LOOK_EVERY == 0:
                        end = decided_after(_differences(results, 0, 1))
                        if end is not None:
                            del results[end:]
                            break
                    show(results, config.stop_when_decided)
        except KeyboardInterrupt:
            was_interrupted = True
        seconds = time.monotonic() - start
    if not results:
        say("interrupted before the first deal was complete")
        return 130
    outcome = summarize(players, results, watched=config.stop_when_decided)
    outcome |= {
        "seed": config.seed,
        "seconds": round(seconds, 3),
        "decisions": counts.decisions,
        "evaluations": counts.evaluations,
        "requests": counts.requests,
        "interrupted": was_interrupted,
        "machine": machine(),
        "config": json.loads(json.dumps(asdict(config), default=str)),
    }
    if config.out is not None:
        try:
            write_json(config.out, outcome)
        except OSError as error:
            raise UnwritableResult(
                f"expected to write {config.out}, got {reason(error)}; choose another --out"
            ) from error
    _tell(console, outcome)
    if config.json:
        print(json.dumps(outcome))
    return 130 if was_interrupted else 0


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
        "difference": pairs[0]["difference"],
        "elo": pairs[0]["elo"],
        "decided": pairs[0]["decided"],
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


def _source(
    config: MatchConfig, specs: Sequence[PlayerSpec], stack: contextlib.ExitStack, say: Callable[[str], None]
) -> NetworkSource:
    """Return the source of the players' networks; starts a server and exports checkpoints if necessary."""
    url = config.url or ""
    checkpoints = {spec.path for spec in specs if spec.path.suffix == ".safetensors"}
    exported: dict[Path, Path] = {}
    for path in sorted(checkpoints):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-match-"))
        exported[path] = Path(folder) / "model.onnx"
        _export(path, exported[path])
    if not url and any(spec.needs_server for spec in specs):
        from serving.embedded import own_server  # the server is an optional dependency

        url = stack.enter_context(own_server(config.repository, say=say, model=config.model)).url
    return NetworkSource(url, config.model, config.repository, exported, config.server_timeout)


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


@contextlib.contextmanager
def _progress(console: Console, deals: int) -> Iterator[Callable[[Sequence[DealResult], bool], None]]:
    """Show the deals and the current difference: a progress bar on a terminal, otherwise lines."""
    next_s = time.monotonic() + (0.25 if console.is_terminal else PLAIN_INTERVAL_S)
    progress = Progress(
        TextColumn("deals"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False), console=console, disable=not console.is_terminal,
    )  # fmt: skip
    task = progress.add_task("", total=deals)

    def show(results: Sequence[DealResult], watched: bool) -> None:
        nonlocal next_s
        now = time.monotonic()
        if now < next_s:
            return
        text = f"difference {_estimate(_differences(results, 0, 1), watched)}"
        if console.is_terminal:
            next_s = now + 0.25
            progress.update(task, completed=len(results), description=text)
        else:
            next_s = now + PLAIN_INTERVAL_S
            console.print(f"{len(results):8} of {deals} deals  {text}", soft_wrap=True)

    with progress:
        yield show


def _tell(console: Console, outcome: dict[str, Any]) -> None:
    """Print the result as tables."""
    table = Table(title=f"{outcome['deals']:,} deals of seed {outcome['seed']} in {outcome['seconds']:.1f} s")
    for heading in ("player", "score per round", "95%", "bids made", "rounds", ""):
        table.add_column(heading, justify="left" if heading in ("player", "") else "right")
    for player in outcome["players"]:
        table.add_row(
            player["name"], f"{player['score_per_round']:.2f}", _span(player["score_interval"], 2),
            f"{100 * player['bid_made_rate']:.1f}%", f"{player['rounds']:,}", player["what"],
        )  # fmt: skip
    console.print(table)
    table = Table(title=f"differences ({outcome['interval']} 95% intervals)")
    for heading in ("first", "second", "score per round", "95%", "Elo", "95%", "decided"):
        table.add_column(heading, justify="left" if heading in ("first", "second") else "right")
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
