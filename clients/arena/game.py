# SPDX-License-Identifier: Apache-2.0
"""A table of Blob: the flow of a round and of a game, whoever sits in the seats, and a player that searches.

A seat sees the whole `Round` but must decide from what its seat knows; `SearchPlayer` deals all other cards afresh.
Seats are absolute here (0 .. P-1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from clients.evaluator import Evaluator, evaluate
from mcts_ext.config import SearchConfig
from mcts_ext.determinize import determinized
from mcts_ext.game import Game
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from mcts_ext.search import Search


class Player(Protocol):
    """Whoever decides for one seat, or for several."""

    def choose(self, table: Round) -> int:
        """A legal action for the seat to act, of which there is at least one."""
        ...


class Watcher(Protocol):
    """Told of everything that happens in the open, after it happened."""

    def dealt(self, table: Round) -> None:
        """A round begins; `table.totals` are the points before it."""
        ...

    def moved(self, table: Round, seat: int) -> None:
        """This seat has bid, or has played the last card of `table.tricks`."""
        ...

    def won(self, table: Round, seat: int) -> None:
        """This seat has won the last of `table.tricks`."""
        ...

    def scored(self, table: Round) -> None:
        """The round is over: `table.scores()` come to `table.totals`."""
        ...


def play_round(table: Round, players: Sequence[Player], watcher: Watcher) -> None:
    """Play a round to its end, one player a seat."""
    watcher.dealt(table)
    while (seat := table.seat_to_act) is not None:
        won = table.tricks_won
        table.apply(players[seat].choose(table))
        watcher.moved(table, seat)
        for winner in range(table.n_players):
            if table.tricks_won[winner] != won[winner]:
                watcher.won(table, winner)
    watcher.scored(table)


def play_game(game: Game, players: Sequence[Player], watcher: Watcher) -> None:
    """Play a game to its end, one player a seat."""
    while not game.is_over:
        play_round(game.current, players, watcher)
        game.finish_round()


@dataclass(frozen=True)
class View:
    """What the network and the search make of one decision."""

    visits: dict[int, float]
    """The search's policy, by legal action; it sums to 1."""
    prior: dict[int, float]
    """The network's probability per legal action; they sum to 1."""
    points: dict[int, float]
    """Expected round score of the seat to act per action that the search visited."""
    seats: list[float]
    """Expected round score per seat by the network alone."""
    model_version: int
    """Of the network that gave `prior` and `seats`; 0 for stand-ins."""

    @property
    def best(self) -> int:
        """The likeliest action of the search, the first of several."""
        return max(self.visits, key=lambda action: self.visits[action])


_VIEWED_DEALS: Final = 16
"""Deals of the hidden cards over which the network's own view is averaged."""


class SearchPlayer:
    """Plays the likeliest action of a search without noise.

    What it answers is a function of the seed, the network and what the seat to act knows: to ask for a view changes
    nothing of the game.

    Raises:
        EvaluatorError: from `look` and `choose`, where the evaluator has no answer.
    """

    def __init__(self, evaluator: Evaluator, config: SearchConfig, *, seed: int) -> None:
        self._evaluator = evaluator
        self._config = config
        self._key = str(seed).encode()

    def choose(self, table: Round) -> int:
        """See `Player`; a forced move is not searched."""
        legal = table.legal_actions()
        if len(legal) == 1:
            return legal[0]
        policy = self._search(table)[0]
        return max(policy, key=lambda action: policy[action])

    def look(self, table: Round) -> View:
        """The view of a decision between two actions or more."""
        policy, q = self._search(table)
        legal = table.legal_actions()
        seat = table.seat_to_act or 0
        deals = [observation(determinized(table, seat, seed=0, stream=i)) for i in range(_VIEWED_DEALS)]
        answer = evaluate(self._evaluator, np.frombuffer(b"".join(deals), dtype=np.uint8).reshape(_VIEWED_DEALS, -1))
        prior = _softmax(answer.logits[:, legal]).mean(axis=0)
        values = answer.values.mean(axis=0)
        unit = 10 + table.n_cards  # values are shares of the most that a round can give
        return View(
            visits=policy,
            prior=dict(zip(legal, prior.tolist(), strict=True)),
            points={action: unit * value for action, value in q.items()},
            seats=[unit * float(values[(s - seat) % table.n_players]) for s in range(table.n_players)],
            model_version=answer.model_version,
        )

    def _search(self, table: Round) -> tuple[dict[int, float], dict[int, float]]:
        """Probability and mean value, per action."""
        digest = blake2b(observation(table, with_others=False), key=self._key, digest_size=8).digest()
        search = Search(table, self._config, seed=int.from_bytes(digest, "little"))
        while search.collect():
            answer = evaluate(self._evaluator, search.observations)
            search.apply(answer.logits, answer.values)
        return search.policy(), search.values()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    odds = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
