# SPDX-License-Identifier: Apache-2.0
"""`blobzero play`: a person sits at the table in the terminal, against a served network."""

import contextlib
import io
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Final, Literal

import tyro

from blobzero.play.seat import OPPONENTS, Left, Seat
from clients.arena.game import SeatPlayer, SeatSearchPlayer, play_game, play_round
from clients.arena.players import PLAYER_SEARCH
from clients.connect import EvaluatorConfig, connect
from clients.errors import EvaluatorError
from mcts_ext.config import SearchConfig
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import InvalidConfig
from mcts_ext.game import TRUMPS, Game
from mcts_ext.memory import check_memory
from mcts_ext.rules import Round
from mcts_ext.search import memory_of_search
from ui.console import plain_console

SERVER_TIMEOUT_S: Final = 10.0
"""How long a person waits for a server that is away."""

MAX_NAME: Final = 12


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Play Blob in the terminal against the network; it says what it thinks when asked."""

    url: str | None = None
    """HOST:PORT of a Triton server's gRPC endpoint; without it one is started here."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here, or of `--evaluator local`."""
    evaluator: Literal["triton", "local", "uniform"] = "triton"
    """Who answers the search: a Triton server, the model in this process, or nobody (`uniform`, no network)."""
    players: int = 4
    """Players at the table, you among them."""
    cards: int = 5
    """Cards dealt to each, in the first round of a game."""
    unit: Literal["game", "round"] = "game"
    """A whole game, or one round with dealer and trump drawn at random."""
    seed: int | None = None
    """Of the deals and the searches; drawn, and shown, unless given."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = PLAYER_SEARCH
    name: str = "You"
    """What to call you."""

    def check(self) -> None:
        """Raise InvalidConfig where a setting is out of range."""
        check_memory(memory_of_search(self.search, self.cards), of="a search")
        if self.url is not None and self.evaluator != "triton":
            raise InvalidConfig(f"expected --url only with --evaluator triton, got --evaluator {self.evaluator}")
        if not (self.name.isprintable() and 1 <= len(self.name) <= MAX_NAME) or self.name in OPPONENTS:
            raise InvalidConfig(
                f"expected --name of 1..{MAX_NAME} printable characters, and none of {', '.join(OPPONENTS)}, "
                f"got {self.name!r}"
            )


def play(config: PlayConfig) -> int:
    """Play until the end, or until the person leaves; the exit status."""
    config.check()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what was typed is repeated, whatever it was
    seed = secrets.randbelow(10**6) if config.seed is None else config.seed
    game = Game(config.players, config.cards, seed) if config.unit == "game" else _deal(config, seed)
    console = plain_console(stderr=True)

    def say(text: str) -> None:
        console.print(text, style="dim", soft_wrap=True)

    with _evaluator(config, say) as evaluator_config, connect(evaluator_config, on_event=say) as evaluator:
        model = SeatSearchPlayer(evaluator, config.search, seed=seed)
        seat = Seat(name=config.name, n_players=config.players, analyze=model.analyze)
        seat.welcome(f"seed {seed}, opponents search {config.search.determinizations} x {config.search.simulations}")
        players: list[SeatPlayer] = [seat, *[model] * (config.players - 1)]
        try:
            if isinstance(game, Game):
                play_game(game, players, seat)
            else:
                play_round(game, players, seat)
        except Left:
            seat.farewell()
            return 0
        except KeyboardInterrupt:
            seat.farewell()
            return 130
        except EvaluatorError:
            seat.farewell()
            raise
        seat.finish()
    return 0


def _deal(config: PlayConfig, seed: int) -> Round:
    """One round, dealer and trump drawn uniformly."""
    draw = Random(seed)
    return Round.deal(config.players, config.cards, draw.randrange(config.players), draw.choice(TRUMPS), seed)


@contextlib.contextmanager
def _evaluator(config: PlayConfig, say: Callable[[str], None]) -> Iterator[EvaluatorConfig]:
    """Whoever answers, started here if need be."""
    if config.evaluator == "uniform":
        yield EvaluatorConfig(kind="uniform")
    elif config.evaluator == "local":
        from clients.local import latest_model_file

        yield EvaluatorConfig(kind="local", model_path=str(latest_model_file(config.repository, MODEL_NAME)))
    elif config.url is not None:
        yield EvaluatorConfig(url=config.url, server_timeout_s=SERVER_TIMEOUT_S)
    else:
        from serving.embedded import own_server  # not every installation has a server

        with own_server(config.repository, say=say) as triton:
            yield EvaluatorConfig(url=triton.url, server_timeout_s=SERVER_TIMEOUT_S)
