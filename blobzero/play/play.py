# SPDX-License-Identifier: Apache-2.0
"""`blobzero play`: interactive play in the terminal against a served network."""

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
from mcts_ext.deals import TRUMPS
from mcts_ext.errors import InvalidConfig
from mcts_ext.game import Game
from mcts_ext.memory import check_memory
from mcts_ext.rules import Round
from mcts_ext.search import memory_of_search
from ui.console import plain_console

SERVER_TIMEOUT_S: Final = 10.0
"""How long to retry while the server is unavailable."""

MAX_NAME: Final = 12


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Play Blob in the terminal against the network, which shows its analysis on request."""

    url: str | None = None
    """HOST:PORT of a Triton server's gRPC endpoint; by default one is started."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here, or of `--evaluator local`."""
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
        if self.url is not None and self.evaluator != "triton":
            raise InvalidConfig(f"expected --url only with --evaluator triton, got --evaluator {self.evaluator}")
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
    """Deal one round with random dealer and trump."""
    draw = Random(seed)
    return Round.deal(config.players, config.cards, draw.randrange(config.players), draw.choice(TRUMPS), seed)


@contextlib.contextmanager
def _evaluator(config: PlayConfig, say: Callable[[str], None]) -> Iterator[EvaluatorConfig]:
    """Yield the configuration of the evaluator, starting a server if necessary."""
    if config.evaluator == "uniform":
        yield EvaluatorConfig(kind="uniform")
    elif config.evaluator == "local":
        from clients.local import latest_model_file

        yield EvaluatorConfig(kind="local", model_path=str(latest_model_file(config.repository, MODEL_NAME)))
    elif config.url is not None:
        yield EvaluatorConfig(url=config.url, server_timeout_s=SERVER_TIMEOUT_S)
    else:
        from serving.embedded import own_server  # the server is an optional dependency

        with own_server(config.repository, say=say) as triton:
            yield EvaluatorConfig(url=triton.url, server_timeout_s=SERVER_TIMEOUT_S)
