# SPDX-License-Identifier: Apache-2.0
"""`blobzero match`: players meet over duplicate deals, and an interval says who is better."""

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
"""Where there is no terminal to redraw, a line this often."""
CONTESTANTS: Final = (
    f"Two or more players of {KNOWN}; one that searches may end in @DxK, its own determinizations and simulations."
)
LOOK_EVERY = 16
"""Deals between two looks of the sequential test; a look judges all deals since the one before."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Players meet over duplicate deals: everybody plays every hand, and the difference has an interval."""

    contestants: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(help=CONTESTANTS)]]
    deals: int = 1000
    """Deals; each is played once for every player in the match."""
    seed: int = 0
    """Of deals, seatings and searches: the same seed plays the same match."""
    players: tuple[int, ...] = (4,)
    """Seats at the table; several numbers are drawn from uniformly."""
    cards: tuple[int, ...] = (5,)
    """Cards dealt to each; several numbers are drawn from uniformly."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = PLAYER_SEARCH
    stop_when_decided: bool = False
    """Stop as soon as the first two players' difference is decided, by an interval that may be watched."""
    url: str | None = None
    """HOST:PORT of a Triton server's gRPC endpoint; without it one is started here if a player needs it."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here, and of versions that no server serves."""
    model: str = MODEL_NAME
    """Name of the model."""
    server_timeout: float = 60.0
    """Seconds to wait for a server that is away before giving up."""
    out: Path | None = None
    """Write the result to this JSON file."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""

    def deal(self) -> DealConfig:
        return DealConfig(players=self.players, cards=self.cards)

    def specs(self) -> list[PlayerSpec]:
        """The players, read.

        Raises:
            InvalidConfig: a setting out of range, or a player that there is not.
        """
        if len(self.contestants) < 2:
            raise InvalidConfig(f"expected at least two players, got {len(self.contestants)}; name another")
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
    importlib.import_module("scipy.stats")  # of the intervals: without it the match would be in vain
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
    """The figures of a match, by the names programs read.

    Args:
        watched: whether the match could stop because of what it showed; then the first two players' `difference`, and
            all others, have the interval that allows for that (`anytime`), else Student's for a fixed number (`fixed`).
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


def _plain(found: Estimate) -> dict[str, float | None]:
    """As JSON has it: an end that is infinitely far is null."""
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in asdict(found).items()}


def _source(
    config: MatchConfig, specs: Sequence[PlayerSpec], stack: contextlib.ExitStack, say: Callable[[str], None]
) -> NetworkSource:
    """Where the players' networks come from: a server is started, and checkpoints are exported, if need be."""
    url = config.url or ""
    checkpoints = {spec.path for spec in specs if spec.path.suffix == ".safetensors"}
    exported: dict[Path, Path] = {}
    for path in sorted(checkpoints):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-match-"))
        exported[path] = Path(folder) / "model.onnx"
        _export(path, exported[path])
    if not url and any(spec.needs_server for spec in specs):
        from serving.embedded import own_server  # not every installation has a server

        url = stack.enter_context(own_server(config.repository, say=say, model=config.model)).url
    return NetworkSource(url, config.model, config.repository, exported, config.server_timeout)


def _export(checkpoint: Path, path: Path) -> None:
    """Make a float32 ONNX file of a checkpoint: the network itself, whatever it may be published as."""
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
    """Show deals and the running difference: redrawn on a terminal, elsewhere a line now and then."""
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
    """The result as tables for people."""
    table = Table(title=f"{outcome['deals']:,} deals of seed {outcome['seed']} in {outcome['seconds']:.1f} s")
    for heading in ("player", "score a round", "95%", "bids made", "rounds", ""):
        table.add_column(heading, justify="left" if heading in ("player", "") else "right")
    for player in outcome["players"]:
        table.add_row(
            player["name"], f"{player['score_per_round']:.2f}", _span(player["score_interval"], 2),
            f"{100 * player['bid_made_rate']:.1f}%", f"{player['rounds']:,}", player["what"],
        )  # fmt: skip
    console.print(table)
    table = Table(title=f"differences ({outcome['interval']} 95% intervals)")
    for heading in ("first", "second", "score a round", "95%", "Elo", "95%", "decided"):
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
            f"{rate:,.0f} a second, {mean:.0f} rows a request"
        )
    if outcome["interrupted"]:
        console.print("interrupted: these are the deals that were complete")


def _span(found: dict[str, float | None], digits: int) -> str:
    """An interval; an end that is infinitely far as an ellipsis."""
    ends = ("..." if end is None else f"{end:+.{digits}f}" for end in (found["low"], found["high"]))
    return " to ".join(ends)
