# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's `oh_hell` as an outside judge, move by move (docs/rules.md says how the two map)."""

from collections import Counter
from random import Random

from clients.arena.ismcts import deal, their_action
from mcts_ext.rules import Round

SHAPES = [(players, cards) for players in range(3, 8) for cards in range(1, min(13, 52 // players) + 1)]
"""4 x 13 as well: the card turned up may then be one in a hand, for only its suit matters."""
DEALS_PER_SHAPE = 60
TRUMPS = (0, 1, 2, 3, None)


def test_every_step_of_thousands_of_deals() -> None:
    random = Random(20)
    seen: Counter[tuple[int, int, int | None]] = Counter()
    n_steps = 0
    for players, cards in SHAPES:
        for number in range(DEALS_PER_SHAPE):
            deck = random.sample(range(52), players * cards)
            hands = [deck[seat::players] for seat in range(players)]
            dealer, trump = random.randrange(players), TRUMPS[number % len(TRUMPS)]
            ours = Round(hands, dealer=dealer, trump=trump)
            judge = deal(hands, dealer=dealer, trump=trump)
            while not ours.is_over:
                assert judge.current_player() == ours.seat_to_act
                legal = ours.legal_actions()
                assert sorted(judge.legal_actions()) == sorted(map(their_action, legal))
                action = random.choice(legal)
                before = ours.tricks_won
                ours.apply(action)
                judge.apply_action(their_action(action))
                n_steps += 1
                if ours.tricks_won != before and not ours.is_over:  # the trick's winner leads the next
                    winner = next(s for s in range(players) if ours.tricks_won[s] != before[s])
                    assert judge.current_player() == winner
            assert judge.is_terminal()
            for seat, (bid, tricks, returned) in enumerate(
                zip(ours.bids, ours.tricks_won, judge.returns(), strict=True)
            ):
                # Theirs is a point for every trick and ten more for a bid made; so it tells the tricks of each seat.
                made = bid == tricks
                assert returned == tricks + 10 * made, (seat, bid, tricks)
                assert ours.scores()[seat] == (10 + tricks if made else 0)
            seen[players, cards, trump] += 1
    assert seen == {(*shape, trump): DEALS_PER_SHAPE // len(TRUMPS) for shape in SHAPES for trump in TRUMPS}
    assert {players: max(n for p, n in SHAPES if p == players) for players, _ in SHAPES} == {
        3: 13,
        4: 13,
        5: 10,
        6: 8,
        7: 7,
    }
    assert seen.total() >= 2000
    assert n_steps == DEALS_PER_SHAPE * sum(players * (1 + cards) for players, cards in SHAPES)
