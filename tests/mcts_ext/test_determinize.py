# SPDX-License-Identifier: Apache-2.0
"""Determinization: uniform over the deals a seat thinks possible, blind to the true ones, and never slow.

A seed is fixed for every draw, so a test passes always or never. P_VALUE is the chance with which one chi-square test
fails a sound sampler: it was taken once, when the seed was chosen.
"""

import time
from collections import Counter
from random import Random

import pytest
from scipy.stats import chisquare

from mcts_ext._testing import determinize_many
from mcts_ext.determinize import determinized
from mcts_ext.rules import Round
from tests.support.positions import SHAPES, Unseen, choose, consistent_deals, deal, playout, position, unseen

P_VALUE = 1e-4
DRAWS_PER_DEAL = 30

# players, cards, seed and moves of positions with few consistent deals; seats bound by voids; their number of deals.
CASES = [
    (3, 11, 9855, 33, 1, 320),
    (3, 12, 9373, 37, 0, 17),
    (3, 12, 5351, 32, 2, 786),
    (3, 13, 3707, 35, 2, 163),
    (4, 12, 4988, 46, 1, 90),
    (4, 12, 9877, 45, 2, 540),
    (4, 12, 5067, 44, 3, 289),
    (4, 13, 9953, 46, 0, 210),
    (4, 13, 6077, 45, 1, 100),
    (4, 13, 9679, 44, 2, 147),
    (4, 13, 7588, 44, 3, 56),
    (5, 10, 4272, 47, 3, 828),
    (5, 10, 5047, 46, 4, 414),
    (6, 8, 6822, 48, 5, 840),
    (7, 7, 2814, 50, 5, 444),
    (8, 6, 4983, 51, 3, 300),
    (8, 6, 6118, 50, 5, 576),
]


def small_case(n_players: int, n_cards: int, seed: int, n_moves: int) -> tuple[Round, int, Unseen]:
    """A position, the seat to act in it and what that seat knows."""
    table = position(Random(seed), n_players, n_cards, n_moves=n_moves)
    assert table.seat_to_act is not None
    return table, table.seat_to_act, unseen(table, table.seat_to_act)


def p_value(drawn: Counter[tuple[tuple[int, ...], ...]], deals: list[tuple[tuple[int, ...], ...]]) -> float:
    """The chi-square test of `drawn` against every deal being equally likely."""
    assert set(drawn) <= set(deals)
    return float(chisquare([drawn[dealt] for dealt in deals]).pvalue)


@pytest.mark.parametrize("constructed", [False, True], ids=["rejected", "constructed"])
@pytest.mark.parametrize(("n_players", "n_cards", "seed", "n_moves", "n_bound", "n_deals"), CASES)
def test_every_consistent_deal_is_equally_likely(
    n_players: int, n_cards: int, seed: int, n_moves: int, n_bound: int, n_deals: int, constructed: bool
) -> None:
    table, seat, known = small_case(n_players, n_cards, seed, n_moves)
    deals = consistent_deals(known, 1000)
    assert deals is not None
    assert (known.n_bound, len(deals)) == (n_bound, n_deals)

    drawn: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for stream in range(DRAWS_PER_DEAL * len(deals)):
        hands = determinized(table, seat, seed=seed, stream=stream, constructed=constructed).hands
        drawn[tuple(tuple(hands[other]) for other in known.held)] += 1

    assert p_value(drawn, deals) > P_VALUE


@pytest.mark.parametrize(("n_players", "n_cards", "seed", "n_moves"), [case[:4] for case in CASES[2::3]])
def test_the_chi_square_test_notices_a_sampler_that_is_not_uniform(
    n_players: int, n_cards: int, seed: int, n_moves: int
) -> None:
    """Dealing the seats one after the other, starting anew at a dead end, is legal but not uniform."""
    known = small_case(n_players, n_cards, seed, n_moves)[2]
    deals = consistent_deals(known, 1000)
    assert deals is not None
    random = Random(seed)

    def one_after_the_other() -> tuple[tuple[int, ...], ...] | None:
        left, hands = set(known.cards), []
        for other, n in known.held.items():
            allowed = [card for card in known.allowed(other) if card in left]
            if len(allowed) < n:
                return None
            hands.append(tuple(sorted(random.sample(allowed, n))))
            left -= set(hands[-1])
        return tuple(hands)

    drawn: Counter[tuple[tuple[int, ...], ...]] = Counter()
    while drawn.total() < DRAWS_PER_DEAL * len(deals):
        if (dealt := one_after_the_other()) is not None:
            drawn[dealt] += 1

    assert p_value(drawn, deals) < 1e-9


def test_undealt_cards_are_as_likely_as_any_other() -> None:
    """Before a card is played each unseen card lies in a given hand with chance N / unseen."""
    table = deal(Random(5), 4, 5)
    n_draws = 20_000
    held = Counter(card for stream in range(n_draws) for card in determinized(table, 0, seed=1, stream=stream).hands[2])
    cards = unseen(table, 0).cards

    assert len(cards) == 47
    assert set(held) == cards
    # Without replacement the counts vary less than independent ones: scaled, the statistic is chi-square again.
    scale = (1 - 5 / 47) * 47 / 46
    statistic = sum((held[card] - n_draws * 5 / 47) ** 2 / (n_draws * 5 / 47) for card in cards) / scale
    assert 46 - 4 * 92**0.5 < statistic < 46 + 4 * 92**0.5


def assert_consistent(table: Round, seat: int, dealt: Round) -> None:
    """`dealt` is a deal that `seat` thinks possible in `table`, and nothing else has changed."""
    known = unseen(table, seat)
    others = [card for other in known.held for card in dealt.hands[other]]
    assert dealt.hands[seat] == table.hands[seat]
    assert len(set(others)) == len(others)
    for other, n in known.held.items():
        assert len(dealt.hands[other]) == n
        assert set(dealt.hands[other]) <= set(known.allowed(other))
    for field in ("bids", "tricks", "tricks_won", "voids", "totals", "seat_to_act", "dealer", "trump"):
        assert getattr(dealt, field) == getattr(table, field), field


@pytest.mark.parametrize(("n_players", "n_cards"), SHAPES)
def test_any_seat_at_any_point_gets_a_consistent_deal(n_players: int, n_cards: int) -> None:
    random = Random(100 * n_players + n_cards)
    table = deal(random, n_players, n_cards)
    for moment, state in enumerate(playout(table, random)):
        seat = random.randrange(n_players)
        before = str(state)
        for constructed in (False, True):
            assert_consistent(state, seat, determinized(state, seat, seed=moment, constructed=constructed))
        assert str(state) == before


@pytest.mark.parametrize("constructed", [False, True])
def test_a_deal_depends_on_what_the_seat_knows_and_on_nothing_else(constructed: bool) -> None:
    random = Random(11)
    n_differing = 0
    for trial in range(600):
        table = position(random, *random.choice(SHAPES))
        seat = table.seat_to_act
        assert seat is not None
        twin = determinized(table, seat, seed=1, stream=trial)
        n_differing += twin.hands != table.hands
        from_truth = determinized(table, seat, seed=2, stream=trial, constructed=constructed)
        from_twin = determinized(twin, seat, seed=2, stream=trial, constructed=constructed)
        assert from_truth.hands == from_twin.hands
    assert n_differing > 400


def test_only_one_deal_left_is_found() -> None:
    """Voids that leave a single consistent deal: most first tries of the rejection fail, all draws agree."""
    random = Random(3)
    n_found = 0
    while n_found < 20:
        table = position(random, 4, 13, n_moves=random.randrange(40, 50))
        assert table.seat_to_act is not None
        known = unseen(table, table.seat_to_act)
        deals = consistent_deals(known, 100) if known.n_bound >= 2 else None
        if deals is None or len(deals) != 1:
            continue
        n_found += 1
        for seed in range(50):
            assert determinized(table, table.seat_to_act, seed=seed).hands == table.hands


def bound_position(n_players: int, n_cards: int, n_bound: int) -> tuple[Round, int]:
    """The earliest position found where `n_bound` other seats are bound by voids, and the seat to act."""
    random = Random(n_players)
    best: tuple[int, Round, int] | None = None
    for _ in range(60):
        table = deal(random, n_players, n_cards)
        while not table.is_over:
            seat = table.seat_to_act
            assert seat is not None
            if unseen(table, seat).n_bound >= n_bound:
                n_left = sum(map(len, table.hands))
                if best is None or n_left > best[0]:
                    best = (n_left, table.copy(), seat)
                break
            table.apply(choose(table, random))
    assert best is not None
    return best[1], best[2]


@pytest.mark.parametrize(("n_players", "n_cards", "n_bound"), [(4, 13, 3), (8, 6, 7), (8, 6, 4), (6, 8, 5), (5, 10, 4)])
def test_the_worst_positions_stay_fast(n_players: int, n_cards: int, n_bound: int) -> None:
    """Far beyond what it takes (some 10 us a draw), far below what a stalled sampler would."""
    table, seat = bound_position(n_players, n_cards, n_bound)
    start = time.perf_counter()
    determinize_many(table, seat, 1000, seed=1)
    assert time.perf_counter() - start < 1.0
    start = time.perf_counter()
    for stream in range(50):
        assert_consistent(table, seat, determinized(table, seat, seed=2, stream=stream, constructed=True))
    assert time.perf_counter() - start < 1.0
