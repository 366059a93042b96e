# SPDX-License-Identifier: Apache-2.0
"""Matches on duplicate deals: every deal is played so that each player has each hand as often as the others.

A deal with k players is played k times. Its seats are shuffled, the players are dealt around them in turn, and each
time everybody moves on by one: so every hand is played once by each player, and luck of the deal cancels in the
difference. With more seats than players several seats are the same player, which keeps its own score in mind only.

Many tables are played side by side, in two groups that take turns between search and network, as in self-play.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np

from clients.bots import Bot
from clients.evaluator import Evaluation, Evaluator
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.rules import Round
from mcts_ext.search import Search

N_TABLES: Final = 256
"""Side by side, in each group."""
GROUPS: Final = 2
TRUMPS: Final = (0, 1, 2, 3, None)


@dataclass(frozen=True, eq=False)
class Player:
    """Who plays: a bot, or our search with an evaluator."""

    name: str
    bot: Bot | None = None
    evaluator: Evaluator | None = None


@dataclass(frozen=True)
class Deal:
    """What became of one deal, with all its rotations."""

    number: int
    scores: tuple[float, ...]
    """Mean round score of each player."""
    made: tuple[int, ...]
    """Bids made, by player, of the rounds that it played in all."""
    rounds: tuple[int, ...]


@dataclass(eq=False)
class _Table:
    """One rotation of one deal, in play."""

    deal: int
    rotation: int
    table: Round
    seats: Sequence[int]
    """The player in each seat."""
    n_moves: int = 0
    search: Search | None = None


@dataclass(eq=False)
class _Group:
    """Tables whose leaves are at the network together."""

    tables: list[_Table] = field(default_factory=list)
    asked: dict[int, list[tuple[_Table, int]]] = field(default_factory=dict)
    """By player, the tables whose rows were sent, and how many each."""


class Match:
    """A match, one deal after another.

    Args:
        players: two or more; evaluators are asked from here alone.
        deals: which rounds are dealt.
        search: of the players that search; noise and temperature are left out.
        seed: of deals, seats, determinizations and bots: the same seed gives the same match.
    """

    def __init__(self, players: Sequence[Player], *, deals: DealConfig, search: SearchConfig, seed: int) -> None:
        self.players = players
        self.n_evaluations = 0
        self._pairs = deals.pairs()
        self._search = search.without_noise()
        self._seed = seed
        self._scores: dict[int, list[tuple[Sequence[int], list[int]]]] = {}
        self._early: dict[tuple[int, int], Evaluation] = {}

    def play(self, n_deals: int, *, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Deal]:
        """Play so many deals; each as it is finished, in any order. Asked between two, `should_stop` ends it."""
        waiting = ((deal, rotation) for deal in range(n_deals) for rotation in range(len(self.players)))
        groups = [_Group() for _ in range(GROUPS)]
        while True:
            for number, group in enumerate(groups):
                self._take_answers(number, group)
                for table in [table for table in group.tables if self._advance(table)]:
                    group.tables.remove(table)
                    done = self._finish(table)
                    if done is not None:
                        yield done
                        if should_stop():
                            self._drain(groups)
                            return
                while len(group.tables) < N_TABLES and (following := next(waiting, None)) is not None:
                    table = self._deal(*following)
                    group.tables.append(table)
                    if not self._advance(table):
                        continue
                    group.tables.pop()
                    done = self._finish(table)
                    if done is not None:
                        yield done
                        if should_stop():
                            self._drain(groups)
                            return
                self._ask(number, group)
            if not any(group.tables for group in groups):
                return

    def _deal(self, deal: int, rotation: int) -> _Table:
        random = Random(f"{self._seed} {deal}")
        n_players, n_cards = random.choice(self._pairs)
        trump = random.choice(TRUMPS)
        table = Round.deal(n_players, n_cards, random.randrange(n_players), trump, random.getrandbits(62))
        order = random.sample(range(n_players), n_players)
        seats = [0] * n_players
        for i, seat in enumerate(order):
            seats[seat] = (i + rotation) % len(self.players)
        return _Table(deal, rotation, table, seats)

    def _advance(self, table: _Table) -> bool:
        """Play on until the network has to be asked; whether the round is over."""
        while not table.table.is_over:
            legal = table.table.legal_actions()
            seat = table.table.seat_to_act
            assert seat is not None
            player = self.players[table.seats[seat]]
            if len(legal) == 1:
                action = legal[0]
            elif player.bot is not None:
                action = player.bot.choose(table.table, self._random(table))
            else:
                if table.search is None:
                    seed = self._random(table).getrandbits(62)
                    table.search = Search(table.table, self._search, seed=seed)
                if table.search.collect():
                    return False
                visits = table.search.visits()
                action = max(visits, key=lambda a: (visits[a], -a))
                table.search = None
            table.table.apply(action)
            table.n_moves += 1
        return True

    def _random(self, table: _Table) -> Random:
        return Random(f"{self._seed} {table.deal} {table.rotation} {table.n_moves}")

    def _ask(self, number: int, group: _Group) -> None:
        """Send the rows of all tables of a group, a batch for each player."""
        rows: dict[int, list[np.ndarray[tuple[int, int], np.dtype[np.uint8]]]] = {}
        for table in group.tables:
            assert table.search is not None
            assert table.table.seat_to_act is not None
            player = table.seats[table.table.seat_to_act]
            found = table.search.observations
            rows.setdefault(player, []).append(found)
            group.asked.setdefault(player, []).append((table, len(found)))
        for player, parts in rows.items():
            evaluator = self.players[player].evaluator
            assert evaluator is not None
            evaluator.submit(np.concatenate(parts), tag=number)

    def _take_answers(self, number: int, group: _Group) -> None:
        for player, asked in group.asked.items():
            answer = self._wait(player, number)
            start = 0
            for table, n_rows in asked:
                assert table.search is not None
                stop = start + n_rows
                table.search.apply(answer.logits[start:stop], answer.values[start:stop])
                start = stop
            self.n_evaluations += start
        group.asked.clear()

    def _wait(self, player: int, tag: int) -> Evaluation:
        """The answer to a group's batch; those of the other group that come first are kept."""
        evaluator = self.players[player].evaluator
        assert evaluator is not None
        while (id(evaluator), tag) not in self._early:
            found, answer = evaluator.wait()
            self._early[id(evaluator), found] = answer
        return self._early.pop((id(evaluator), tag))

    def _finish(self, table: _Table) -> Deal | None:
        """Note a round's scores; the deal if that was its last."""
        rounds = self._scores.setdefault(table.deal, [])
        rounds.append((table.seats, table.table.scores()))
        if len(rounds) < len(self.players):
            return None
        del self._scores[table.deal]
        of_player: list[list[int]] = [[] for _ in self.players]
        for seats, scores in rounds:
            for player, score in zip(seats, scores, strict=True):
                of_player[player].append(score)
        return Deal(
            table.deal,
            tuple(float(np.mean(scores)) for scores in of_player),
            tuple(sum(score > 0 for score in scores) for scores in of_player),
            tuple(len(scores) for scores in of_player),
        )

    def _drain(self, groups: Sequence[_Group]) -> None:
        """Take in what is on its way, so that the evaluators can be used again."""
        for number, group in enumerate(groups):
            for player in group.asked:
                self._wait(player, number)
            group.asked.clear()
            group.tables.clear()
