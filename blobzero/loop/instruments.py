# SPDX-License-Identifier: Apache-2.0
"""What a generation's records say of its learning: scores, bids, and what its search never looked at.

A search that leaves actions unvisited teaches the network its own prior again (docs/experiments/exploration.md). So
each generation a sample of its decisions is searched once more as in self-play, beside an even root of the same size
and a larger judge; both run with the network that played.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.arena.match import seed_of
from clients.arena.rating import estimate
from clients.arena.searching import finish
from clients.evaluator import Evaluator
from clients.selfplay.records import readable
from mcts_ext.config import SearchConfig
from mcts_ext.contract import AT_N_CARDS, AT_N_PLAYERS, FIRST_CARD_ACTION, OBSERVATION_BYTES
from mcts_ext.decode import decode
from mcts_ext.search import Search

N_EXAMINED: Final = 400
"""Decisions that are searched again."""
MADE_BID: Final = 10
"""Score of a made bid of 0; a missed bid scores 0."""
JUDGE: Final = (32, 6)
"""Determinizations and simulations of the judge, whose root is even."""
Q_SCALE: Final = 60.0
"""Weight of Q in the policy of the even root, where self-play's own target is its visits."""
MOST_NEVER_VISITED: Final = 0.05
MOST_POINTS_LOST: Final = 0.2
"""Above either, self-play explores too little to learn from."""


@dataclass(frozen=True)
class BidFigures:
    """How often one bid was made in self-play, forced bids left out."""

    bid: int
    share: float
    """Of all bids."""
    made: float
    """Fraction that took exactly as many tricks."""


@dataclass(frozen=True)
class PlayFigures:
    """Self-play of one generation."""

    rounds: int
    score: float
    """Mean score of a seat per round, in points."""
    bids: tuple[BidFigures, ...]

    def __str__(self) -> str:
        bids = ", ".join(f"{one.bid}: {one.share:.0%} ({one.made:.0%})" for one in self.bids)
        return f"{self.score:.2f} points a round; bids (made) {bids}"


@dataclass(frozen=True)
class Exploration:
    """What self-play's search misses, over a sample of its records."""

    kind: str
    """`bids` or `cards`."""
    decisions: int
    never_visited: float
    """Fraction of decisions whose best action by the judge was never visited."""
    points_lost: float
    """Points per decision that the policy target is worse than that of an even root of the same size, by the judge."""
    points_lost_error: float
    """Half the width of its 95% interval."""

    def __str__(self) -> str:
        return (
            f"{self.kind}: best never visited in {self.never_visited:.1%} of {self.decisions}, "
            f"target loses {self.points_lost:.2f} +- {self.points_lost_error:.2f} points"
        )

    def warnings(self) -> list[str]:
        """Return one line for each figure beyond its bound."""
        found = []
        if self.never_visited > MOST_NEVER_VISITED:
            found.append(
                f"expected the best of the {self.kind} unvisited in at most {MOST_NEVER_VISITED:.0%} of decisions, "
                f"got {self.never_visited:.1%}; set even_root = true"
            )
        if self.points_lost > MOST_POINTS_LOST:
            found.append(
                f"expected the target of the {self.kind} to lose at most {MOST_POINTS_LOST} points a decision "
                f"against an even root, got {self.points_lost:.2f}; set even_root = true"
            )
        return found


def points_of(records: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return the points `[n, S]` of the relative seats, from the columns `observation` and `value`."""
    points: NDArray[np.float64] = np.rint(records["value"] * (10.0 + records["observation"][:, AT_N_CARDS, None]))
    return points


def play_figures(shards: Path) -> PlayFigures | None:
    """Return the figures of the records in a folder of shards; None without records.

    Raises:
        ShardUnavailable: if a shard could not be read.
    """
    n_rounds, n_seats, points = 0, 0, 0.0
    bids = np.zeros((2, FIRST_CARD_ACTION), dtype=np.int64)  # made or not, all
    for records in readable(shards, ["observation", "value", "round", "action"]):
        seats = points_of(records)
        first = np.unique(records["round"], return_index=True)[1]  # each record has the outcome of all seats
        n_rounds += len(first)
        n_seats += int(records["observation"][first, AT_N_PLAYERS].sum())
        points += float(seats[first].sum())
        is_bid = records["action"] < FIRST_CARD_ACTION
        is_made = seats[:, 0] >= MADE_BID
        for row, mask in enumerate((is_bid & is_made, is_bid)):
            bids[row] += np.bincount(records["action"][mask], minlength=FIRST_CARD_ACTION)
    if not n_rounds:
        return None
    made, times = bids
    figures = tuple(
        BidFigures(int(bid), float(times[bid] / times.sum()), float(made[bid] / times[bid]))
        for bid in np.flatnonzero(times)
    )
    return PlayFigures(n_rounds, points / n_seats, figures)


def exploration(
    shards: Path, evaluator: Evaluator, search: SearchConfig, *, seed: int, n: int = N_EXAMINED
) -> list[Exploration]:
    """Search recorded decisions again, bids and cards apart, and judge what the search missed.

    Args:
        shards: folder of the records.
        evaluator: the network that played them.
        search: self-play's search.
        seed: seed of the samples and of all searches.
        n: size of each sample.

    Raises:
        ShardUnavailable, EvaluatorError: see there.
    """
    bids, cards = _observations(shards)
    parts = {"bids": bids, "cards": cards}
    return [_explored(kind, rows, evaluator, search, seed, n) for kind, rows in parts.items() if len(rows)]


def _explored(
    kind: str, rows: NDArray[np.uint8], evaluator: Evaluator, search: SearchConfig, seed: int, n: int
) -> Exploration:
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n]
    tables = [decode(rows[i].tobytes()).round() for i in sorted(chosen.tolist())]
    even = replace(search, even_root=True, q_scale=search.q_scale or Q_SCALE)
    judge = replace(even.without_noise(), determinizations=JUDGE[0], simulations=JUDGE[1], candidates=0)
    taught, better, judged = (
        [Search(table, config, seed=seed_of(seed, part, i)) for i, table in enumerate(tables)]
        for part, config in enumerate((search, even, judge))
    )
    finish(evaluator, [*taught, *better, *judged])
    missed, lost = [], []
    for table, target, evenly, truth in zip(tables, taught, better, judged, strict=True):
        values, policy, visits = truth.values(), target.policy(), target.visits()
        missed.append(visits[max(values, key=values.__getitem__)] == 0)
        gain = sum((p - policy[action]) * values[action] for action, p in evenly.policy().items())
        lost.append((10 + table.n_cards) * gain)
    found = estimate(np.array(lost))
    return Exploration(kind, len(tables), float(np.mean(missed)), found.mean, found.high - found.mean)


def _observations(shards: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return all recorded observations `[n, F]`, of bids and of cards."""
    bids, cards = [np.zeros((0, OBSERVATION_BYTES), np.uint8)], [np.zeros((0, OBSERVATION_BYTES), np.uint8)]
    for records in readable(shards, ["observation", "action"]):
        is_bid = records["action"] < FIRST_CARD_ACTION
        bids.append(records["observation"][is_bid])
        cards.append(records["observation"][~is_bid])
    return np.concatenate(bids), np.concatenate(cards)
