# SPDX-License-Identifier: Apache-2.0
"""Each line of docs/rules.md by an example, and what `Round` and `Game` refuse."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from scipy.stats import chisquare

from mcts_ext.deals import hand_sizes
from mcts_ext.determinize import determinized
from mcts_ext.errors import BlobError, IllegalAction, InvalidDeal
from mcts_ext.game import Game
from mcts_ext.names import RANKS, SUITS
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from tests.golden.make_rules import GOLDEN, playthrough


def card(name: str) -> int:
    return 13 * SUITS.index(name[0]) + RANKS.index(name[1:])


def table(*hands: str, dealer: int = 0, trump: int | None = None, bids: tuple[int, ...] = ()) -> Round:
    dealt = Round([[card(name) for name in hand.split()] for hand in hands], dealer=dealer, trump=trump)
    for bid in bids:
        dealt.apply(bid)
    return dealt


def play(dealt: Round, *names: str) -> None:
    for name in names:
        dealt.apply(14 + card(name))


def whole_state(dealt: Round) -> list[object]:
    """All that can be seen of a state, fields that only the search reads included."""
    fields = [name for name in dir(Round) if isinstance(getattr(dealt, name), int | list | None)]
    seen: list[object] = [(name, getattr(dealt, name)) for name in fields if not name.startswith("_")]
    seen += [str(dealt), dealt.legal_actions()]
    seat = dealt.seat_to_act
    if seat is not None:
        seen += [bytes(observation(dealt)), determinized(dealt, seat, seed=1).hands]
    return seen


def random_end(dealt: Round, seed: int) -> list[list[object]]:
    """Every state on the way to the end."""
    random, states = Random(seed), [whole_state(dealt)]
    while not dealt.is_over:
        dealt.apply(random.choice(dealt.legal_actions()))
        states.append(whole_state(dealt))
    return states


THREE = ("S2 HA", "S3 H2", "SK D2")


def test_bids_go_round_from_the_dealers_left_and_all_may_be_chosen() -> None:
    dealt = table(*THREE, dealer=1)
    order = []
    for bid in (2, 1):
        order.append(dealt.seat_to_act)
        assert dealt.legal_actions() == [0, 1, 2]
        dealt.apply(bid)
    assert [*order, dealt.seat_to_act] == [2, 0, 1]


def test_the_hook_forbids_the_dealer_the_bid_that_makes_the_sum() -> None:
    assert table(*THREE, bids=(1, 0)).legal_actions() == [0, 2]
    assert table(*THREE, bids=(0, 0)).legal_actions() == [0, 1]
    assert table(*THREE, bids=(2, 0)).legal_actions() == [1, 2]


def test_the_hook_forbids_nothing_when_the_sum_is_passed_already() -> None:
    assert table(*THREE, bids=(2, 1)).legal_actions() == [0, 1, 2]


def test_with_one_card_the_dealer_may_be_left_one_bid() -> None:
    assert table("S2", "S3", "S4", bids=(0, 0)).legal_actions() == [0]
    assert table("S2", "S3", "S4", bids=(1, 0)).legal_actions() == [1]
    assert table("S2", "S3", "S4", bids=(1, 1)).legal_actions() == [0, 1]


def test_the_dealers_left_leads_whatever_the_bids_were() -> None:
    assert table(*THREE, dealer=2, bids=(0, 2, 2)).seat_to_act == 0


def test_suits_are_followed_and_trumping_is_not_forced() -> None:
    dealt = table("H3 S4", "S3 D9", "HK D2", trump=2, bids=(0, 0, 0))
    play(dealt, "S3")  # seat 1 leads; seat 2 has no spade
    assert dealt.legal_actions() == sorted([14 + card("HK"), 14 + card("D2")])
    play(dealt, "HK")
    assert dealt.voids == [[], [], [0]]
    assert dealt.legal_actions() == [14 + card("S4")]  # seat 0 must follow


@pytest.mark.parametrize(
    ("trump", "winner"), [(None, 2), (1, 0), (2, 2), (3, 2)], ids=["none", "hearts", "clubs", "diamonds"]
)
def test_the_highest_trump_wins_else_the_highest_of_the_led_suit(trump: int | None, winner: int) -> None:
    dealt = table("H2", "S3", "SA", trump=trump, bids=(0, 0, 0))
    play(dealt, "S3", "SA", "H2")
    assert dealt.tricks_won == [int(seat == winner) for seat in range(3)]


def test_a_high_card_of_another_suit_does_not_win_and_the_winner_leads() -> None:
    dealt = table("HA S9", "S3 H4", "S5 H5", bids=(0, 0, 0))
    play(dealt, "S3", "S5", "S9")
    assert dealt.seat_to_act == 0
    play(dealt, "HA", "H4", "H5")
    assert dealt.is_over
    assert dealt.seat_to_act is None
    assert dealt.legal_actions() == []
    assert dealt.tricks_won == [2, 0, 0]


def test_scores_are_ten_and_the_bid_or_nothing() -> None:
    dealt = table("HA S9", "S3 H4", "S5 H5", bids=(0, 1, 2))  # seats 1, 2, 0
    with pytest.raises(ValueError, match="finished"):
        dealt.scores()
    play(dealt, "S3", "S5", "S9", "HA", "H4", "H5")
    assert dealt.bids == [2, 0, 1]
    assert dealt.scores() == [12, 10, 0]


def test_the_sequence_of_a_game() -> None:
    assert hand_sizes(5, 7) == [7, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7]
    assert Game(5, 7, seed=0).n_rounds == 17
    assert hand_sizes(3, 1) == [1, 1, 1]


def test_a_game_is_a_function_of_its_seed() -> None:
    assert Game(4, 5, 9).current.hands == Game(4, 5, 9).current.hands
    assert Game(4, 5, 9).current.hands != Game(4, 5, 10).current.hands
    assert Round.deal(4, 5, 0, 1, 9).hands == Round.deal(4, 5, 0, 1, 9).hands
    assert Round.deal(4, 5, 0, 1, 9).hands != Round.deal(4, 5, 0, 1, 10).hands
    assert Round.deal(4, 5, 0, 1, 9).hands != Round.deal(4, 5, 0, 1, 9 + 2**40).hands


def test_the_dealer_moves_left_and_the_trumps_come_in_turn() -> None:
    assert [Game(4, 3, seed).current.dealer for seed in range(6)] == [0, 1, 2, 3, 0, 1]
    game, seen = Game(4, 3, seed=2), []
    while not game.is_over:
        seen.append((game.current.n_cards, game.current.dealer, game.current.trump))
        random_end(game.current, game.round_number)
        game.finish_round()
    assert [size for size, _, _ in seen] == [3, 2, 1, 1, 1, 1, 2, 3]
    assert [dealer for _, dealer, _ in seen] == [2, 3, 0, 1, 2, 3, 0, 1]
    assert [trump for _, _, trump in seen] == [0, 1, 2, 3, None, 0, 1, 2]


def test_an_unfinished_round_cannot_be_counted() -> None:
    game = Game(3, 2, seed=0)
    with pytest.raises(ValueError, match="finished round"):
        game.finish_round()
    assert (game.round_number, game.totals) == (0, [0, 0, 0])


def test_ties_share_the_win() -> None:
    game = Game(3, 1, seed=0)
    while not game.is_over:
        random_end(game.current, 0)
        game.finish_round()
    game.totals = [11, 20, 20]
    assert game.winners() == [1, 2]


def test_every_card_falls_to_every_seat_as_often() -> None:
    places: Counter[tuple[int, int]] = Counter()
    for seed in range(3000):
        hands = Round.deal(3, 13, 0, None, seed).hands
        assert len({card for hand in hands for card in hand}) == 39
        places.update((seat, card) for seat, hand in enumerate(hands) for card in hand)
    assert chisquare([places[seat, card] for seat in range(3) for card in range(52)]).pvalue > 1e-4


def test_an_unfinished_game_has_no_winner() -> None:
    with pytest.raises(ValueError, match="finished"):
        Game(3, 1, 0).winners()


@pytest.mark.parametrize("action", [-1, 3, 13, 14, 65, 66, 1000, 2**40, -(2**40), True])
def test_an_illegal_bid_is_named_and_changes_nothing(action: int) -> None:
    dealt = table(*THREE)
    before = whole_state(dealt)
    with pytest.raises(IllegalAction) as caught:
        dealt.apply(action)
    assert (caught.value.action, caught.value.seat, caught.value.legal) == (action, 1, [0, 1, 2])
    assert f"illegal action {action} for seat 1: expected one of [0, 1, 2]" in str(caught.value)
    assert whole_state(dealt) == before


def test_an_illegal_card_is_named_and_changes_nothing() -> None:
    dealt = table("H3 S4", "S3 D9", "HK D2", bids=(0, 0, 0))
    play(dealt, "S3", "HK")
    before, twin = whole_state(dealt), dealt.copy()
    for action in (14 + card("H3"), 14 + card("S9"), 0, 2):  # revokes, not held, a bid
        with pytest.raises(IllegalAction) as caught:
            dealt.apply(action)
        assert (caught.value.action, caught.value.seat, caught.value.legal) == (action, 0, [14 + card("S4")])
        assert isinstance(caught.value, BlobError)
    assert whole_state(dealt) == before
    assert random_end(dealt, 1) == random_end(twin, 1)


def test_nothing_can_be_played_after_the_end() -> None:
    dealt = table("S2", "S3", "S4", bids=(0, 0, 0))
    play(dealt, "S3", "S4", "S2")
    before = whole_state(dealt)
    with pytest.raises(IllegalAction, match="after the round is over") as caught:
        dealt.apply(14 + card("S2"))
    assert (caught.value.seat, caught.value.legal) == (None, [])
    assert whole_state(dealt) == before


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Round.deal(2, 5, 0, 0, 1), "3 to 8 players, got 2"),
        (lambda: Round.deal(9, 1, 0, 0, 1), "3 to 8 players, got 9"),
        (lambda: Round.deal(4, 0, 0, 0, 1), "1 to 13 cards per seat, got 0"),
        (lambda: Round.deal(3, 14, 0, 0, 1), "1 to 13 cards per seat, got 14"),
        (lambda: Round.deal(8, 7, 0, 0, 1), "8 players x 7 cards = 56"),
        (lambda: Round.deal(4, 5, 4, 0, 1), "dealer in 0..3, got 4"),
        (lambda: Round.deal(4, 5, -1, 0, 1), "dealer in 0..3, got -1"),
        (lambda: Round.deal(4, 5, 0, 4, 1), "trump 0..3 or None, got 4"),
        (lambda: Round([], dealer=0), "3 to 8 players, got 0"),
        (lambda: Round([[0, 1], [2, 3], [4]], dealer=0), "2 cards in every hand, got 1 for seat 2"),
        (lambda: Round([[0], [1], [52]], dealer=0), "card indices 0..51, got 52 for seat 2"),
        (lambda: Round([[0], [-1], [2]], dealer=0), "card indices 0..51, got -1 for seat 1"),
        (lambda: Round([[0], [13], [0]], dealer=0), "every card once, got S2 twice"),
        (lambda: Round([[0], [1], [2]], dealer=0, totals=[1, 2]), "3 totals, got 2"),
        (lambda: Round([[0], [1], [2]], dealer=0, totals=[1, 2, -1]), "totals in 0..65535, got -1"),
        (lambda: Round([[0], [1], [2]], dealer=0, totals=[1, 2, 65536]), "totals in 0..65535, got 65536 for seat 2"),
        (lambda: Round([[0], [1], [2]], dealer=0, game_round=256), "game_round in 0..255"),
        (lambda: Round([[0], [1], [2]], dealer=0, game_round=-1), "got -1 and 0"),
        (lambda: Round([[0], [1], [2]], dealer=0, start_cards=14), "start_cards in 0..13, got 0 and 14"),
        (lambda: Round([[0], [1], [2]], dealer=0, start_cards=-1), "got 0 and -1"),
        (lambda: Round([[0], [1], [2]], dealer=3), "dealer in 0..2, got 3"),
        (lambda: Round([[0], [1], [2]], dealer=0, trump=-1), "trump 0..3 or None, got -1"),
        (lambda: Round([[], [], []], dealer=0), "1 to 13 cards per seat, got 0"),
        (lambda: Game(8, 7, 0), "got 8 players x 7 cards"),
        (lambda: Game(2, 5, 0), "got 2 players x 5 cards"),
        (lambda: Game(9, 5, 0), "got 9 players x 5 cards"),
        (lambda: Game(3, 0, 0), "got 3 players x 0 cards"),
        (lambda: Game(3, 14, 0), "got 3 players x 14 cards"),
    ],
)
def test_what_no_deal_can_be_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidDeal, match="expected") as caught:
        make()
    assert says in str(caught.value)


def test_the_ends_of_every_range_are_taken() -> None:
    dealt = Round([[0], [1], [2]], dealer=2, trump=3, totals=[0, 65535, 1], game_round=255, start_cards=13)
    assert (dealt.totals, dealt.game_round, dealt.start_cards) == ([0, 65535, 1], 255, 13)
    assert (dealt.dealer, dealt.trump, Round.deal(8, 6, 7, None, -1).trump) == (2, 3, None)


@pytest.mark.parametrize("steps", range(21))
def test_a_copy_is_whole_at_every_point(steps: int) -> None:
    hands = Round.deal(4, 4, 1, 2, seed=steps).hands
    dealt = Round(hands, dealer=1, trump=2, totals=[3, 0, 40, 7], game_round=6, start_cards=5)
    random = Random(steps)
    for _ in range(steps):
        dealt.apply(random.choice(dealt.legal_actions()))
    before, twin = whole_state(dealt), dealt.copy()
    played_on = random_end(twin, 5)
    assert whole_state(dealt) == before
    assert random_end(dealt, 5) == played_on


def test_a_copy_goes_its_own_way() -> None:
    dealt = table(*THREE)
    twin = dealt.copy()
    twin.apply(2)
    assert dealt.bids == [None, None, None]
    assert twin.bids == [None, 2, None]


def test_a_table_is_drawn_with_its_turn_and_the_trick_in_progress() -> None:
    dealt = table("H3 S10", "S3 D9", "HK D2", trump=2, bids=(0, 2))  # the dealer, seat 0, has yet to bid
    assert str(dealt).splitlines() == [
        "3 players, 2 cards, trump C, dealer seat 0",
        "> seat 0  bid  -  won  0  S10 H3",
        "  seat 1  bid  0  won  0  S3 D9",
        "  seat 2  bid  2  won  0  HK D2",
    ]
    dealt.apply(1)
    play(dealt, "S3", "HK", "S10", "H3")
    assert str(dealt).splitlines() == [
        "3 players, 2 cards, trump C, dealer seat 0",
        "  seat 0  bid  1  won  1  -",
        "> seat 1  bid  0  won  0  D9",
        "  seat 2  bid  2  won  0  D2",
        "  trick  1  1:S3  2:HK  0:S10",
        "  trick  2  0:H3",
    ]
    assert repr(dealt) == "<Round 3 players x 2 cards, trump C, bids [1, 0, 2], tricks [1, 0, 0]>"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_golden_playthroughs(path: Path) -> None:
    players, cards, trump, seed = (int(part) for part in path.stem.split("-"))
    assert playthrough(players, cards, None if trump == 4 else trump, seed) == path.read_text()


def test_there_are_golden_playthroughs() -> None:
    assert len(list(GOLDEN.glob("*.txt"))) >= 5
