# SPDX-License-Identifier: Apache-2.0
"""Interactive table: the flow of a round and of a game, and a player that searches.

A player is given the whole `Round` but must decide from its seat's information set; `SeatSearchPlayer` redeals all
other cards. Seats are absolute here (0 .. P-1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from clients.arena.searching import finish
from clients.evaluator import Evaluator, evaluate
from mcts_ext.config import SearchConfig
from mcts_ext.determinize import determinized
from mcts_ext.game import Game
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from mcts_ext.search import Search


class SeatPlayer(Protocol):
    """Decides for one or several seats."""

    def choose(self, table: Round) -> int:
        """Return a legal action for the seat to act."""
        ...


class Watcher(Protocol):
    """Observer of the public events, called after each event."""

    def dealt(self, table: Round) -> None:
        """Handle a new round; `table.totals` are the points before it."""
        ...

    def moved(self, table: Round, seat: int) -> None:
        """Handle a bid, or a card, which is the last of `table.tricks`."""
        ...

    def won(self, table: Round, seat: int) -> None:
        """Handle a finished trick, the last of `table.tricks`, won by `seat`."""
        ...

    def scored(self, table: Round) -> None:
        """Handle the end of a round; `table.scores()` will be added to `table.totals`."""
        ...


def play_round(table: Round, players: Sequence[SeatPlayer], watcher: Watcher) -> None:
    """Play a round to its end, with one player per seat."""
    watcher.dealt(table)
    while (seat := table.seat_to_act) is not None:
        won = table.tricks_won
        table.apply(players[seat].choose(table))
        watcher.moved(table, seat)
        for winner in range(table.n_players):
            if table.tricks_won[winner] != won[winner]:
                watcher.won(table, winner)
    watcher.scored(table)


def play_game(game: Game, players: Sequence[SeatPlayer], watcher: Watcher) -> None:
    """Play a game to its end, with one player per seat."""
    while not game.is_over:
        play_round(game.current, players, watcher)
        game.finish_round()


@dataclass(frozen=True)
class Analysis:
    """Analysis of one decision by network and search."""

    policy: dict[int, float]
    """Policy of the search by legal action; sums to 1."""
    prior: dict[int, float]
    """Prior of the network by legal action; sums to 1."""
    points: dict[int, float]
    """Expected round score of the seat to act, by action visited in the search."""
    seats: list[float]
    """Expected round score per seat by the network alone."""
    model_version: int
    """Model version that gave `prior` and `seats`; 0 without a network."""


_PRIOR_DEALS: Final = 16
"""Determinizations over which the network's own outputs are averaged."""


class SeatSearchPlayer:
    """Plays the action with the highest probability in the policy of a search without noise.

    Its results are a function of the seed, the network and the information set: an analysis does not affect the game.

    Raises:
        EvaluatorError: from `analyze` and `choose`, if the evaluator fails.
    """

    def __init__(self, evaluator: Evaluator, config: SearchConfig, *, seed: int) -> None:
        self._evaluator = evaluator
        self._config = config
        self._key = str(seed).encode()

    def choose(self, table: Round) -> int:
        """See `SeatPlayer`; a forced move is not searched."""
        legal = table.legal_actions()
        if len(legal) == 1:
            return legal[0]
        policy = self._search(table)[0]
        return max(policy, key=policy.__getitem__)  # the first on a tie

    def analyze(self, table: Round) -> Analysis:
        """Analyze a decision between at least two actions."""
        policy, q = self._search(table)
        legal = table.legal_actions()
        seat = table.seat_to_act or 0
        deals = [observation(determinized(table, seat, seed=0, stream=i)) for i in range(_PRIOR_DEALS)]
        answer = evaluate(self._evaluator, np.frombuffer(b"".join(deals), dtype=np.uint8).reshape(_PRIOR_DEALS, -1))
        prior = _softmax(answer.logits[:, legal]).mean(axis=0)
        values = answer.values.mean(axis=0)
        unit = 10 + table.n_cards  # values are fractions of the maximum score of a round
        return Analysis(
            policy=policy,
            prior=dict(zip(legal, prior.tolist(), strict=True)),
            points={action: unit * value for action, value in q.items()},
            seats=[unit * float(values[(s - seat) % table.n_players]) for s in range(table.n_players)],
            model_version=answer.model_version,
        )

    def _search(self, table: Round) -> tuple[dict[int, float], dict[int, float]]:
        """Return policy and mean value, by action."""
        digest = blake2b(observation(table, with_others=False), key=self._key, digest_size=8).digest()
        search = Search(table, self._config, seed=int.from_bytes(digest, "little"))
        finish(self._evaluator, [search])
        return search.policy(), search.values()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    odds = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
