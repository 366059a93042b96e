# SPDX-License-Identifier: Apache-2.0
"""Perfect-information Monte Carlo: exact last tricks, a rule of one hand, and a choice blind to hidden cards."""

from random import Random

import pytest

from clients.arena.bots import HeuristicBot
from mcts_ext.determinize import determinized
from mcts_ext.errors import InvalidConfig
from mcts_ext.pimc import choose, finished, rule_action
from mcts_ext.rules import Round
from tests.reference.maxn import outcomes, own_bounds
from tests.support.positions import SHAPES, consistent_deals, deal, playout, position, unseen

EXACT = 2
"""Tricks that are solved, as in mcts_ext/pimc.pyx."""


def slowly_finished(table: Round) -> Round:
    """Plain max^n in the last tricks: the rule's card first, then the others; the first with the most own points."""
    if table.is_over:
        return table
    first = rule_action(table)
    actions = [first]
    if not table.is_bidding and table.n_cards - sum(table.tricks_won) <= EXACT:
        actions += [action for action in table.legal_actions() if action != first]
    ends = []
    for action in actions:
        child = table.copy()
        child.apply(action)
        ends.append(slowly_finished(child))
    seat = table.seat_to_act
    assert seat is not None
    return max(ends, key=lambda end: end.scores()[seat])


def ending(random: Random, n_players: int, n_cards: int) -> Round:
    """A position of the last tricks; the rule bid and played to it, so that bids are still to be made."""
    left = random.randrange(2, n_players * min(EXACT, n_cards) + 1)
    table = deal(random, n_players, n_cards)
    for _ in range(n_players * (n_cards + 1) - left):
        table.apply(rule_action(table))
    return table


@pytest.mark.parametrize("shape", SHAPES)
def test_rounds_are_finished_as_a_plain_max_n_finishes_them(shape: tuple[int, int]) -> None:
    random = Random(1)
    for _ in range(8):
        table = position(random, *shape)
        before = str(table)
        assert str(finished(table)) == str(slowly_finished(table))
        assert str(table) == before


def test_the_last_tricks_are_worth_what_brute_force_says() -> None:
    random = Random(2)
    n_choices = 0
    for _ in range(600):
        table = ending(random, *random.choice(SHAPES))
        assert tuple(finished(table).scores()) in outcomes(table)
        n_choices += len(outcomes(table)) > 1
    assert n_choices > 20


def test_the_best_card_is_played_where_no_card_is_unknown() -> None:
    random = Random(3)
    n_found = 0
    while n_found < 12:
        table = ending(random, 4, 13)
        seat = table.seat_to_act
        assert seat is not None
        bounds = own_bounds(table)
        surest = max(low for low, _ in bounds.values())
        if all(high >= surest for _, high in bounds.values()) or consistent_deals(unseen(table, seat), 1) is None:
            continue
        n_found += 1
        assert bounds[choose(table, worlds=3, seed=n_found)][1] >= surest


def test_legal_actions_in_rounds_of_every_shape() -> None:
    random = Random(4)
    for number in range(2500):
        for table in playout(deal(random, *SHAPES[number % len(SHAPES)]), random):
            assert choose(table, worlds=1, seed=number) in table.legal_actions()


def test_hidden_cards_do_not_change_the_choice() -> None:
    random = Random(5)
    n_others = 0
    for seed in range(400):
        table = position(random, *random.choice(SHAPES))
        assert table.seat_to_act is not None
        other = determinized(table, table.seat_to_act, seed=seed)
        n_others += other.hands != table.hands
        assert choose(table, worlds=10, seed=seed) == choose(other, worlds=10, seed=seed)
        assert rule_action(table) == rule_action(other)
    assert n_others > 300


def test_the_seed_draws_the_deals_and_breaks_ties() -> None:
    """The two highest trumps take both tricks in either order."""
    table = Round([[11, 12], [13, 14], [15, 26]], dealer=2, trump=0)
    assert choose(table, worlds=5, seed=0) == 2
    for bid in (2, 0, 1):
        table.apply(bid)
    assert {choose(table, worlds=5, seed=seed) for seed in range(20)} == {14 + 11, 14 + 12}
    table = Round.deal(4, 7, 0, 1, 3)
    choices = [choose(table, worlds=2, seed=seed) for seed in range(20)]
    assert choices == [choose(table, worlds=2, seed=seed) for seed in range(20)]
    assert len(set(choices)) > 1
    assert choose(table, worlds=2, seed=2**64 - 1) in table.legal_actions()


def test_the_rule_mostly_does_as_the_heuristic_does() -> None:
    """They differ in the chances of voids and of higher cards, and in ties of equal rank."""
    random, heuristic = Random(6), HeuristicBot()
    bids, cards = [], []
    for number in range(300):
        for table in playout(deal(random, *SHAPES[number % len(SHAPES)]), random):
            if len(table.legal_actions()) > 1:
                (bids if table.is_bidding else cards).append(rule_action(table) == heuristic.choose(table, seed=0))
    assert sum(bids) > 0.9 * len(bids)
    assert sum(cards) > 0.9 * len(cards)


def test_what_cannot_be_chosen_is_refused() -> None:
    table = Round.deal(3, 1, 0, None, 0)
    for worlds in (0, -1, 10_001):
        with pytest.raises(InvalidConfig, match=r"1\.\.10000 worlds"):
            choose(table, worlds=worlds, seed=0)
    while not table.is_over:
        table.apply(table.legal_actions()[0])
    for done in (table, Round.__new__(Round)):
        with pytest.raises(InvalidConfig, match="finished"):
            choose(done, worlds=1, seed=0)
        with pytest.raises(InvalidConfig, match="finished"):
            rule_action(done)
        assert finished(done).is_over
