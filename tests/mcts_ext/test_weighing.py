# SPDX-License-Identifier: Apache-2.0
"""Deals weighed by what the others did: they follow the exact posterior, and show nothing that a seat cannot know."""

from dataclasses import replace
from itertools import permutations
from random import Random

import numpy as np
import pytest

from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.decode import decode
from mcts_ext.errors import InvalidConfig
from mcts_ext.observe import observation
from mcts_ext.pool import SelfPlayPool
from mcts_ext.rules import Round
from mcts_ext.search import Search
from tests.support.evaluators import hashed, run_pool, run_search, uniform
from tests.support.positions import SHAPES, position

WEIGHED = SearchConfig(determinizations=8, candidates=128, simulations=1, dirichlet_fraction=0.0)
Hands = tuple[tuple[int, ...], ...]


def log_likelihoods(deals: list[Hands], bids: list[int]) -> dict[Hands, float]:
    """Of `bids`, made from seat 1 on, under the policy of `hashed`, for three players with one card each."""
    found = dict.fromkeys(deals, 0.0)
    for n_bids, bid in enumerate(bids):
        rows = []
        for hands in deals:
            table = Round([list(hand) for hand in hands], dealer=0, trump=2)
            for earlier in bids[:n_bids]:
                table.apply(earlier)
            rows.append(observation(table))
        logits, _ = hashed(np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1))
        for hands, row in zip(deals, logits[:, :2], strict=True):
            found[hands] += float(row[bid] - np.logaddexp(*row))
    return found


def test_kept_deals_follow_the_posterior() -> None:
    own, bids = 7, [1, 1]
    deals: list[Hands] = [((own,), (a,), (b,)) for a, b in permutations(set(range(52)) - {own}, 2)]
    log_likelihood = log_likelihoods(deals, bids)
    weights = np.exp(np.array(list(log_likelihood.values())))
    values = np.array(list(log_likelihood.values()))
    posterior, prior = float(weights @ values / weights.sum()), float(values.mean())
    table = Round([[own], [8], [30]], dealer=0, trump=2)
    for bid in bids:
        table.apply(bid)
    found = []
    for seed in range(300):
        search = Search(table, WEIGHED, seed=seed)
        assert search.deals() == []
        run_search(search, hashed)
        found += [log_likelihood[tuple(map(tuple, deal.hands))] for deal in search.deals()]
    assert posterior - prior > 0.2
    assert np.mean(found) == pytest.approx(posterior, abs=0.1 * (posterior - prior))


def test_nothing_done_weighs_nothing() -> None:
    """The first to bid has heard nobody: its deals are different ones, and cost no evaluation."""
    table = Round.deal(4, 5, 0, None, 3)
    search = Search(table, WEIGHED, seed=1)
    assert search.collect() == WEIGHED.determinizations  # the roots
    assert len({str(deal.hands) for deal in search.deals()}) == WEIGHED.determinizations


def test_deals_agree_with_what_the_seat_knows() -> None:
    random = Random(5)
    n_choices = 0
    for _ in range(150):
        table = position(random, *random.choice(SHAPES))
        if len(table.legal_actions()) < 2:
            continue
        config = replace(WEIGHED, candidates=random.choice([8, 20]))
        search = Search(table, config, seed=random.randrange(2**32))
        run_search(search, hashed)
        known = decode(observation(table, with_others=False))
        for deal in search.deals():
            assert decode(observation(deal, with_others=False)) == known
        n_done = sum(bid is not None for bid in table.bids) + sum(map(len, table.tricks))
        n_asked = search.n_evaluations - config.determinizations * 2
        assert n_asked <= n_done * config.candidates
        n_choices += n_asked > 0
    assert n_choices > 50


def test_the_hidden_hands_change_nothing() -> None:
    table = Round.deal(4, 3, 0, 1, 4)
    for action in (1, 0, 2):
        table.apply(action)
    hands = table.hands
    other = Round([hands[0], *(hands[1:][::-1])], dealer=0, trump=1)
    for action in (1, 0, 2):
        other.apply(action)
    config = replace(WEIGHED, simulations=12)
    assert run_search(Search(table, config, seed=2), hashed) == run_search(Search(other, config, seed=2), hashed)


def test_the_same_rounds_whatever_the_pool() -> None:
    config = SearchConfig(determinizations=2, candidates=7, simulations=4)

    def records(n_games: int) -> list[bytes]:
        deal = DealConfig(players=(3, 4), cards=(2, 4))
        pool = SelfPlayPool(range(12), seed=3, deal=deal, search=config, n_games=n_games, n_groups=2)
        played = run_pool(pool, hashed)
        return [column.tobytes() for column in (played.observation, played.policy, played.action)]

    assert records(2) == records(9)


def test_uniform_opponents_tell_nothing_in_the_bidding() -> None:
    table = Round.deal(4, 5, 0, None, 3)
    table.apply(2)
    search = Search(table, WEIGHED, seed=1)
    run_search(search, uniform)
    assert len({str(deal.hands) for deal in search.deals()}) == WEIGHED.determinizations
    assert search.n_evaluations == WEIGHED.candidates + WEIGHED.determinizations * 2


def test_fewer_candidates_than_deals_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="expected candidates of at least determinizations 8, or 0, got 7"):
        replace(WEIGHED, candidates=7)
