# SPDX-License-Identifier: Apache-2.0
"""The rules against their slow twin, at every step of random rounds and games: 3 to 8 players, trump or none."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_ext.game import Game
from mcts_ext.rules import Round
from tests.reference.rules import SlowRound

SHAPES = [(players, cards) for players in range(3, 9) for cards in range(1, 14) if players * cards <= 52]


def play_both(fast: Round, random: Random) -> SlowRound:
    """Play a round to its end, comparing everything at every step."""
    slow = SlowRound([list(hand) for hand in fast.hands], fast.dealer, fast.trump)
    while True:
        seats = range(slow.n_players)
        assert fast.seat_to_act == slow.seat_to_act()
        assert fast.legal_actions() == slow.legal()
        assert fast.bids == [slow.bids.get(seat) for seat in seats]
        assert fast.tricks_won == slow.tricks_won()
        assert fast.hands == [sorted(hand) for hand in slow.hands]
        assert fast.tricks == slow.tricks + ([slow.table] if slow.table else [])
        assert fast.voids == [[suit for suit in range(4) if (seat, suit) in slow.voids] for seat in seats]
        assert fast.is_over == slow.is_over()
        if fast.is_over:
            assert fast.scores() == slow.scores()
            return slow
        action = random.choice(fast.legal_actions())
        fast.apply(action)
        slow.apply(action)


@settings(max_examples=400)
@given(
    shape=st.sampled_from(SHAPES),
    trump=st.sampled_from([0, 1, 2, 3, None]),
    random=st.randoms(use_true_random=False),
)
def test_rounds(shape: tuple[int, int], trump: int | None, random: Random) -> None:
    players, cards = shape
    deck = random.sample(range(52), players * cards)
    hands = [deck[seat::players] for seat in range(players)]
    play_both(Round(hands, dealer=random.randrange(players), trump=trump), random)


def test_every_shape_with_every_trump() -> None:
    random = Random(7)
    for players, cards in SHAPES:
        for trump in (0, 1, 2, 3, None):
            play_both(Round.deal(players, cards, random.randrange(players), trump, random.getrandbits(64)), random)


@settings(max_examples=30)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**64 - 1), random=st.randoms(use_true_random=False))
def test_games(shape: tuple[int, int], seed: int, random: Random) -> None:
    players, start = shape
    game = Game(players, start, seed)
    sizes = [*range(start, 1, -1), *[1] * players, *range(2, start + 1)]
    totals = [0] * players
    first_dealer = game.current.dealer
    for number, size in enumerate(sizes):
        assert not game.is_over
        table = game.current
        assert table.n_cards == size
        assert table.dealer == (first_dealer + number) % players
        assert table.trump == [0, 1, 2, 3, None][number % 5]
        assert table.totals == totals
        assert (table.game_round, table.start_cards) == (number, start)
        slow = play_both(table, random)
        assert game.finish_round() == slow.scores()
        totals = [a + b for a, b in zip(totals, slow.scores(), strict=True)]
        assert game.totals == totals
    assert game.is_over
    assert game.winners() == [seat for seat in range(players) if totals[seat] == max(totals)]
