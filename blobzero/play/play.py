# SPDX-License-Identifier: Apache-2.0
"""`blobzero play`: interactive play in the terminal against a served network."""

import io
import secrets
import sys
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Annotated, Final, Literal

import tyro

from blobzero.arguments import Range
from blobzero.play.seat import OPPONENTS, Left, Seat
from blobzero.server import ServerFlags
from clients.arena.game import SeatPlayer, SeatSearchPlayer, play_game, play_round
from clients.arena.players import PLAYER_SEARCH
from clients.connect import connect
from clients.errors import EvaluatorError
from mcts_ext.config import SearchConfig
from mcts_ext.deals import TRUMPS
from mcts_ext.errors import InvalidConfig
from mcts_ext.game import Game
from mcts_ext.memory import check_memory
from mcts_ext.rules import Round
from mcts_ext.search import memory_of_search
from ui.console import plain_console
from ui.stopping import INTERRUPTED

MAX_NAME: Final = 12


@dataclass(frozen=True, kw_only=True)
class PlayConfig(ServerFlags):
    """Play Blob in the terminal against the network, which shows its analysis on request."""

    server_timeout: Annotated[float, Range(0, 86_400)] = 10.0
    """Seconds to retry while the server is unavailable."""
    evaluator: Literal["triton", "local", "uniform"] = "triton"
    """Evaluator: a Triton server, the model in this process, or `uniform` (no network)."""
    players: int = 4
    """Number of players, including you."""
    cards: int = 5
    """Cards per player, in the first round of a game."""
    unit: Literal["game", "round"] = "game"
    """A whole game, or one round with random dealer and trump."""
    seed: int | None = None
    """Seed of the deals and searches; by default a random one, which is shown."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = PLAYER_SEARCH
    name: str = "You"
    """Your name."""

    def check(self) -> None:
        """Raise InvalidConfig if a setting is out of range."""
        check_memory(memory_of_search(self.search, self.cards), of="a search")
        self.check_evaluator(self.evaluator, "url")
        if not (self.name.isprintable() and 1 <= len(self.name) <= MAX_NAME) or self.name in OPPONENTS:
            raise InvalidConfig(
                f"expected --name of 1..{MAX_NAME} printable characters, other than {', '.join(OPPONENTS)}, "
                f"got {self.name!r}"
            )


def play(config: PlayConfig) -> int:
    """Play until the end, or until the player leaves; return the exit status."""
    config.check()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # input is echoed, whatever its bytes
    seed = secrets.randbelow(10**6) if config.seed is None else config.seed
    game = Game(config.players, config.cards, seed) if config.unit == "game" else _deal(config, seed)
    say = partial(plain_console(stderr=True).print, style="dim")
    with (
        config.evaluator_config(config.evaluator, say) as (evaluator_config, _),
        connect(evaluator_config, on_event=say) as evaluator,
    ):
        model = SeatSearchPlayer(evaluator, config.search, seed=seed)
        seat = Seat(name=config.name, n_players=config.players, analyze=model.analyze)
        seat.welcome(f"seed {seed}, opponents search {config.search.determinizations} x {config.search.simulations}")
        players: list[SeatPlayer] = [seat, *[model] * (config.players - 1)]
        try:
            if isinstance(game, Game):
                play_game(game, players, seat)
            else:
                play_round(game, players, seat)
        except (Left, KeyboardInterrupt) as end:
            seat.farewell()
            return 0 if isinstance(end, Left) else INTERRUPTED
        except EvaluatorError:
            seat.farewell()
            raise
        seat.finish()
    return 0


def _deal(config: PlayConfig, seed: int) -> Round:
    """Deal one round with random dealer and trump."""
    draw = Random(seed)
    return Round.deal(config.players, config.cards, draw.randrange(config.players), draw.choice(TRUMPS), seed)
