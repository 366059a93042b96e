# SPDX-License-Identifier: Apache-2.0
"""Match of duplicate deals: each deal is repeated until every player has held every hand once.

**Arrangements.** A deal is cards, trump and dealer. K players play K rounds of it: the seats are filled as evenly as
possible (with a seating drawn per deal, so that every neighbourhood occurs), and from one round to the next everyone
at the table is replaced by the next player in the list:

```
A B, four seats, seating A B B A:     seat 0 1 2 3
                             round 0       A B B A
                             round 1       B A A B       each player has held each of the four hands once
```
So the luck of cards, trump and seat cancels in the difference, with as few rounds as possible: further arrangements of
the same deal are correlated and tell less than a new deal. Seats are divided evenly because the difference of two means
has the least variance when both come from equally many seats, and because neither player then meets itself more often.
docs/experiments/matches.md compares the variance with that of one A against three B.

**Randomness.** A decision's seed comes from (match seed, deal, number of the action in the round), not from the
arrangement: identical players then make identical moves, and their difference is exactly zero. A match is a function
of its seed if evaluators and bots are deterministic (OpenSpiel's bot is not), and the first n deals do not depend on
the number of deals.

**Speed.** Many rounds are played concurrently in a few groups; all waiting leaves of a group for one evaluator form one
batch, and meanwhile the other groups are searched.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from clients.arena.bots import Bot
from clients.evaluator import Evaluation, Evaluator
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.deals import TRUMPS
from mcts_ext.errors import InvalidConfig
from mcts_ext.memory import check_memory
from mcts_ext.rules import Round
from mcts_ext.search import Search, memory_of_search

GROUPS = 3
TABLES = 1536
"""Concurrent rounds if any player searches; gives batches of several hundred rows for each of two evaluators."""


@dataclass(frozen=True)
class BotPlayer:
    """Player that is a bot."""

    name: str
    bot: Bot
    what: str = ""
    """Description, if the name is not enough."""


@dataclass(frozen=True)
class SearchPlayer:
    """Player that searches; players with the same evaluator share batches."""

    name: str
    search: SearchConfig
    """Search configuration, normally without noise (`SearchConfig.without_noise`)."""
    evaluator: Evaluator
    what: str = ""


Player = BotPlayer | SearchPlayer


@dataclass(frozen=True)
class DealResult:
    """Result of K players in one deal, each averaged over the hands of all seats."""

    number: int
    n_seats: int
    """Number of seats, which is each player's number of rounds in this deal."""
    scores: NDArray[np.float64]
    """`[K]` mean round score."""
    bids_made: NDArray[np.float64]
    """`[K]` fraction of rounds in which the bid was made."""


@dataclass
class MatchCounts:
    """Work done so far, including rounds in progress."""

    decisions: int = 0
    """Searched decisions, without forced moves and moves of bots."""
    evaluations: int = 0
    """Rows submitted to evaluators."""
    requests: int = 0


def play(
    players: Sequence[Player], deal: DealConfig, *, deals: int, seed: int, counts: MatchCounts | None = None
) -> Iterator[DealResult]:
    """Play a match and yield the result of each deal, in order of their numbers; the caller may stop earlier.

    `counts` is updated during the match.

    Raises:
        InvalidConfig: if there are fewer than two players or no deals, or the searches need more memory than available.
        EvaluatorError: if an evaluator fails.
    """
    if len(players) < 2 or deals < 1:
        raise InvalidConfig(f"expected at least 2 players and 1 deal, got {len(players)} and {deals}")
    searches = [player.search for player in players if isinstance(player, SearchPlayer)]
    n_tables = TABLES if searches else 1
    most_cards = max(n_cards for _, n_cards in deal.pairs())
    n_bytes = max((memory_of_search(search, most_cards) for search in searches), default=0)
    check_memory(n_tables * n_bytes, of=f"{n_tables} searches")
    match = _Match(players, deal, deals, seed, counts if counts is not None else MatchCounts())
    groups = deque(_Group(i, max(n_tables // GROUPS, 1)) for i in range(GROUPS))
    while groups:
        group = groups.popleft()
        match.apply_evaluations(group)
        if match.advance(group):
            groups.append(group)
        yield from match.finished()


def deal_of(config: DealConfig, *, seed: int, number: int) -> Round:
    """Return a deal of a match: shape, cards, dealer and trump drawn uniformly from (seed, number)."""
    random = Random(seed_of(seed, number))
    n_players, n_cards = random.choice(config.pairs())
    deck = random.sample(range(52), n_players * n_cards)
    return Round(
        [deck[seat::n_players] for seat in range(n_players)],
        dealer=random.randrange(n_players),
        trump=random.choice(TRUMPS),
    )


def arrangements(n_players: int, n_seats: int, *, seed: int, number: int) -> list[list[int]]:
    """Return the players by round and seat, `[K][seats]`: each player once in each seat, mixed evenly."""
    order = list(range(n_players))
    random = Random(seed_of(seed, number, -1))
    random.shuffle(order)
    seating = [order[seat % n_players] for seat in range(n_seats)]
    random.shuffle(seating)
    return [[(player + turn) % n_players for player in seating] for turn in range(n_players)]


def seed_of(*parts: int | str) -> int:
    """Hash words and numbers to a 64-bit seed."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(eq=False)
class _Deal:
    """Deal in progress, with sums over its finished rounds by player."""

    n_seats: int
    rounds_left: int
    scores: NDArray[np.float64]
    bids_made: NDArray[np.float64]


_Table = Iterator[tuple[Evaluator, Search]]
"""A round in progress: plays on, and yields whenever a search waits for the evaluation of its rows."""


@dataclass(eq=False)
class _Group:
    """Tables that are advanced together."""

    index: int
    size: int
    tables: list[_Table] = field(default_factory=list)
    waiting: dict[Evaluator, list[Search]] = field(default_factory=dict)
    """Searches by the evaluator that has their rows, in order of the rows."""


class _Match:
    """State of a match: tables still to play and incomplete deals."""

    def __init__(self, players: Sequence[Player], deal: DealConfig, deals: int, seed: int, counts: MatchCounts) -> None:
        self._players = list(players)
        self._seed = seed
        self._counts = counts
        self._deals: dict[int, _Deal] = {}
        self._next_deal = 0
        self._tables = self._deal_out(deal, deals)
        self._any_search = any(isinstance(player, SearchPlayer) for player in players)
        self._answers: dict[tuple[Evaluator, int], Evaluation] = {}
        """Evaluations that came while another group's were awaited, by evaluator and group."""

    def _deal_out(self, config: DealConfig, deals: int) -> Iterator[_Table]:
        n = len(self._players)
        for number in range(deals):
            dealt = deal_of(config, seed=self._seed, number=number)
            self._deals[number] = _Deal(dealt.n_players, n, np.zeros(n), np.zeros(n))
            for seating in arrangements(n, dealt.n_players, seed=self._seed, number=number):
                yield self._play(number, seating, dealt.copy())

    def finished(self) -> Iterator[DealResult]:
        """Yield the newly complete deals, in order and without gaps."""
        while self._next_deal in self._deals and self._deals[self._next_deal].rounds_left == 0:
            deal = self._deals.pop(self._next_deal)
            yield DealResult(self._next_deal, deal.n_seats, deal.scores / deal.n_seats, deal.bids_made / deal.n_seats)
            self._next_deal += 1

    def advance(self, group: _Group) -> bool:
        """Play every table of a group until it waits for evaluations, replace finished tables, and submit the rows.

        Returns:
            Whether the group has anything left to do.
        """
        group.tables = [table for table in group.tables if self._waits(table, group)]
        table: _Table | None = None
        while len(group.tables) < group.size and (table := next(self._tables, None)) is not None:
            if self._waits(table, group):
                group.tables.append(table)
            elif not self._any_search:
                break  # let the caller have the results
        for evaluator, searches in group.waiting.items():
            rows = np.concatenate([search.observations for search in searches])
            evaluator.submit(rows, tag=group.index)
            self._counts.evaluations += len(rows)
            self._counts.requests += 1
        return bool(group.tables) or table is not None

    def apply_evaluations(self, group: _Group) -> None:
        """Wait for all evaluations of a group and apply them to its searches."""
        for evaluator, searches in group.waiting.items():
            while (evaluator, group.index) not in self._answers:
                tag, answer = evaluator.wait()
                self._answers[evaluator, tag] = answer
            answer = self._answers.pop((evaluator, group.index))
            start = 0
            for search in searches:
                end = start + len(search.observations)
                search.apply(answer.logits[start:end], answer.values[start:end])
                start = end
        group.waiting.clear()

    @staticmethod
    def _waits(table: _Table, group: _Group) -> bool:
        """Play until a search waits for evaluations; return False once the round is over."""
        for evaluator, search in table:
            group.waiting.setdefault(evaluator, []).append(search)
            return True
        return False

    def _play(self, number: int, seating: list[int], table: Round) -> _Table:
        """Play one round of deal `number`; `seating` holds the player in each seat."""
        n_actions = 0
        while (seat := table.seat_to_act) is not None:
            player, legal = self._players[seating[seat]], table.legal_actions()
            if len(legal) == 1:
                action = legal[0]
            elif isinstance(player, BotPlayer):
                action = player.bot.choose(table, seed=seed_of(self._seed, number, n_actions, 0))
            else:
                self._counts.decisions += 1
                search = Search(table, player.search, seed=seed_of(self._seed, number, n_actions, 0))
                while search.collect():
                    yield player.evaluator, search
                policy = search.policy()
                action = max(policy, key=policy.__getitem__)  # the first on a tie
            table.apply(action)
            n_actions += 1
        deal = self._deals[number]
        deal.rounds_left -= 1
        for index, score in zip(seating, table.scores(), strict=True):
            deal.scores[index] += score
            deal.bids_made[index] += score > 0  # a bid made, even of 0, scores at least 10
