# SPDX-License-Identifier: Apache-2.0
"""Search finds the best move: against brute-force max^n where every deal can be played out to all its ends.

A position counts only if one move beats the others by a made bid, however ties among later moves are broken. The
evaluators know nothing (or worse: `hashed` says random things), so what the search finds comes from the tree and its
exact ends.
"""

from dataclasses import replace
from random import Random

import pytest

from mcts_ext.config import SearchConfig
from mcts_ext.rules import Round
from mcts_ext.search import Search
from tests.reference.maxn import best_action, outcomes, own_bounds
from tests.support.evaluators import Evaluate, hashed, run_search, uniform
from tests.support.positions import consistent_deals, position, unseen

SLACK = 4
"""Points. A made bid is worth 10 and more, a missed one nothing: between made bids a seat is at a tie."""

SMALL = [(3, 2, 11), (3, 3, 11), (3, 4, 11), (3, 9, 9), (4, 2, 10), (4, 3, 10), (4, 6, 8), (5, 2, 9), (6, 2, 8)]
"""Players, cards, and the most moves left that brute force may face."""


def endgame(random: Random) -> Round:
    """A position with a choice and few moves left, in the bidding too where the hands are small."""
    while True:
        n_players, n_cards, most_left = random.choice(SMALL)
        n_moves = n_players * (n_cards + 1)
        table = position(random, n_players, n_cards, n_moves=n_moves - random.randrange(4, min(n_moves, most_left) + 1))
        if len(table.legal_actions()) > 1:
            return table


def with_hands(table: Round, hands: list[list[int]]) -> Round:
    """The same round played so far, had the cards still held been these."""
    played: list[list[int]] = [[] for _ in hands]
    for trick in table.tricks:
        for seat, card in trick:
            played[seat].append(card)
    dealt = [hand + gone for hand, gone in zip(hands, played, strict=True)]
    twin = Round(dealt, dealer=table.dealer, trump=table.trump)
    for k in range(1, table.n_players + 1):
        bid = table.bids[(table.dealer + k) % table.n_players]
        if bid is not None:
            twin.apply(bid)
    for trick in table.tricks:
        for _, card in trick:
            twin.apply(14 + card)
    return twin


@pytest.mark.parametrize("evaluate", [uniform, hashed])
def test_visits_concentrate_on_the_best_move(evaluate: Evaluate) -> None:
    random = Random(1)
    shares: dict[int, list[float]] = {300: [], 6000: []}
    seed = 0
    while len(shares[300]) < 120:
        seed += 1
        table = endgame(random)
        assert table.seat_to_act is not None
        config = SearchConfig(determinizations=1, simulations=1, dirichlet_fraction=0.0)
        best = best_action(Search(table, config, seed=seed).deals()[0], slack=SLACK)
        if best is None or best[1] < 10:
            continue
        action = best[0]
        for simulations, found in shares.items():
            visits = run_search(Search(table, replace(config, simulations=simulations), seed=seed), evaluate)
            found.append(visits[action] / simulations)
        assert found[-1] > 0.8, f"{table!r}: {visits}, best {action}"
    means = {simulations: sum(found) / len(found) for simulations, found in shares.items()}
    assert means[300] > 0.75
    assert means[6000] > 0.95


def test_values_approach_what_best_play_brings() -> None:
    """Q of the most visited move lies near the bounds of brute force, for every position, ties or not."""
    random = Random(2)
    for seed in range(60):
        table = endgame(random)
        assert table.seat_to_act is not None
        config = SearchConfig(determinizations=1, simulations=6000, dirichlet_fraction=0.0, c_puct=0.7)
        search = Search(table, config, seed=seed)
        bounds = own_bounds(search.deals()[0], slack=SLACK)
        visits = run_search(search, uniform)
        action = max(visits, key=visits.__getitem__)
        points = search.values()[action] * (10 + table.n_cards)
        low, high = bounds[action]
        assert low - 1.0 < points < high + 1.0, f"{table!r}: {points} for {action}, expected {low}..{high}"


def test_hidden_cards_best_move_in_every_consistent_deal() -> None:
    """Where one move is best whatever the others hold, a search of a few determinizations plays it."""
    random = Random(3)
    n_found = n_hidden = 0
    config = SearchConfig(determinizations=5, simulations=400, leaves_per_tree=2, dirichlet_fraction=0.1)
    while n_found < 10:
        shape = random.choice([(3, 12), (3, 13), (4, 12), (4, 13), (5, 10), (6, 8), (7, 7), (8, 6)])
        table = position(random, *shape, n_moves=shape[0] * (shape[1] - 1) + random.randrange(shape[0]))
        seat = table.seat_to_act
        if seat is None or len(table.legal_actions()) < 2:
            continue
        known = unseen(table, seat)
        deals = consistent_deals(known, 30) if best_action(table) else None
        if deals is None:
            continue
        best: set[int] = set()
        for dealt in deals:
            hands = [list(dealt[list(known.held).index(s)]) if s != seat else table.hands[s] for s in range(shape[0])]
            found = best_action(with_hands(table, hands))
            best.add(found[0] if found else -1)
            if len(best) > 1 or -1 in best:
                break
        if len(best) > 1 or -1 in best:
            continue
        n_found += 1
        n_hidden += len(deals) > 1
        visits = run_search(Search(table, config, seed=n_found), hashed)
        assert visits[best.pop()] > 0.8 * sum(visits.values())
    assert n_hidden >= 5


def test_brute_force_itself() -> None:
    """Two cards each, spades trump, seat 1 on lead: small enough to think through.

    Seat 1 bid 1 and holds the ace of spades and the two of hearts. Whichever it leads, it wins the ace's trick
    and no other: the two of hearts loses to the queen. Seat 2 bid 1 with the queen of hearts and a low spade.
    """
    table = Round([[2, 15], [12, 13], [0, 23]], dealer=0, trump=0)
    for bid in (1, 1, 1):
        table.apply(bid)
    assert table.seat_to_act == 1
    assert outcomes(table) == {(0, 11, 11)}
    assert own_bounds(table) == {14 + 12: (11, 11), 14 + 13: (11, 11)}
    assert best_action(table) is None

    table.apply(14 + 13)
    assert own_bounds(table) == {14 + 23: (11, 11)}
