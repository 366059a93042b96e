# SPDX-License-Identifier: Apache-2.0
"""Observation: read back, it is exactly what the seat to act knows, and apart from it the hands of the deal."""

import re
from pathlib import Path
from random import Random

import pytest

from mcts_ext import contract, names
from mcts_ext.decode import InformationSet, decode
from mcts_ext.determinize import determinized
from mcts_ext.errors import BlobError
from mcts_ext.game import Game
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from tests.support.positions import SHAPES, choose, deal, playout, position


def information_set(table: Round) -> InformationSet:
    """The slow way: the public state and the own hand, turned so that the seat to act is seat 0."""
    me, n = table.seat_to_act, table.n_players
    assert me is not None
    seats = [(me + relative) % n for relative in range(n)]
    tricks = [tuple(((seat - me) % n, card) for seat, card in trick) for trick in table.tricks]
    finished = [trick for trick in table.tricks if len(trick) == n]
    others = tuple(tuple(table.hands[seat]) for seat in seats[1:])
    leader = me if len(finished) == len(tricks) else table.tricks[-1][0][0]
    if table.is_bidding:
        leader = (table.dealer + 1) % n
    return InformationSet(
        n_players=n,
        n_cards=table.n_cards,
        trump=table.trump,
        dealer=(table.dealer - me) % n,
        leader=(leader - me) % n,
        bids=tuple(table.bids[seat] for seat in seats),
        tricks_won=tuple(table.tricks_won[seat] for seat in seats),
        voids=tuple(tuple(table.voids[seat]) for seat in seats),
        hand=tuple(table.hands[me]),
        tricks=tuple(tricks),
        totals=tuple(table.totals[seat] for seat in seats),
        game_round=table.game_round,
        start_cards=table.start_cards,
        others=others if any(others) else (),
    )


@pytest.mark.parametrize(("n_players", "n_cards"), SHAPES)
def test_decoding_gives_the_information_set(n_players: int, n_cards: int) -> None:
    random = Random(1000 * n_players + n_cards)
    for _ in range(6):
        for table in playout(deal(random, n_players, n_cards), random):
            row = observation(table)
            assert len(row) == contract.OBSERVATION_BYTES <= 128
            assert decode(row) == information_set(table)


def test_decoding_through_whole_games() -> None:
    """The totals and the rounds to come are part of what a seat knows."""
    for seed, (n_players, start_cards) in enumerate([(3, 13), (4, 7), (5, 10), (8, 6)]):
        random = Random(seed)
        game = Game(n_players, start_cards, seed)
        highest_total = 0
        while not game.is_over:
            for table in playout(game.current, random):
                known = decode(observation(table))
                assert known == information_set(table)
                assert (known.game_round, known.start_cards) == (game.round_number, start_cards)
                me = table.seat_to_act
                assert me is not None
                assert list(known.totals) == game.totals[me:] + game.totals[:me]
            highest_total = max(highest_total, *game.totals)
            game.finish_round()
        assert highest_total > 0


def test_totals_beyond_one_byte() -> None:
    table = Round([[0], [1], [2]], dealer=0, totals=[255, 256, 65535], game_round=40, start_cards=13)
    assert decode(observation(table)).totals == (256, 65535, 255)


def test_states_a_seat_cannot_tell_apart_look_alike() -> None:
    random = Random(2)
    n_differing = 0
    for trial in range(2000):
        table = position(random, *random.choice(SHAPES))
        assert table.seat_to_act is not None
        twin = determinized(table, table.seat_to_act, seed=trial)
        n_differing += twin.hands != table.hands
        assert observation(twin, with_others=False) == observation(table, with_others=False)
        assert (observation(twin) == observation(table)) == (twin.hands == table.hands)
    assert n_differing > 1500


HANDS = [[0, 13, 26], [1, 14, 27], [2, 15, 28]]


def played(*actions: int, hands: list[list[int]] = HANDS, dealer: int = 2, trump: int | None = None) -> Round:
    table = Round(hands, dealer=dealer, trump=trump)
    for action in actions:
        table.apply(action)
    return table


SPADES = (0, 0, 0, 14 + 0, 14 + 1, 14 + 2)
"""Three bids of 0, then one trick of spades; seat 2 wins it and leads."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (played(), played(dealer=1)),
        (played(), played(trump=0)),
        (played(), played(hands=[[3, 13, 26], *HANDS[1:]])),
        (played(), played(hands=[HANDS[0][:2], HANDS[1][:2], HANDS[2][:2]])),
        (played(), played(hands=[*HANDS, [3, 16, 29]], dealer=3)),
        (played(0), played(1)),
        (played(0, 1), played(1, 0)),
        (played(0, 0, 0, 14), played(0, 0, 0, 27)),
        (played(0, 0, 0, 14, 15), played(0, 0, 0, 14, 16, hands=[HANDS[0], [2, 14, 27], [1, 15, 28]])),
        (played(*SPADES), played(*SPADES, trump=1)),
        # The same cards on the table by other seats, the same own hand.
        (
            played(0, 0, 0, 14, 15, 16, hands=[[0, 13, 26], [1, 14, 27], [2, 15, 28]]),
            played(0, 0, 0, 15, 14, 16, hands=[[1, 13, 26], [0, 14, 27], [2, 15, 28]]),
        ),
        # The same two tricks in another order.
        (
            played(0, 0, 0, 14, 15, 16, 29, 27, 28, hands=[[0, 13, 26], [1, 14, 27], [2, 15, 28]]),
            played(0, 0, 0, 27, 28, 29, 16, 14, 15, hands=[[0, 13, 26], [1, 14, 27], [2, 15, 28]]),
        ),
        (Round(HANDS, dealer=0, totals=[0, 0, 0]), Round(HANDS, dealer=0, totals=[0, 0, 256])),
        (Round(HANDS, dealer=0, start_cards=3), Round(HANDS, dealer=0, start_cards=4)),
        (Round(HANDS, dealer=0, game_round=1), Round(HANDS, dealer=0, game_round=2)),
    ],
)
def test_every_fact_a_seat_knows_shows(one: Round, other: Round) -> None:
    assert observation(one, with_others=False) != observation(other, with_others=False)
    assert decode(observation(one)) != decode(observation(other))


def test_a_void_shown_by_a_seat_is_its_own() -> None:
    """Seats 1 and 2 could not follow the spade; seat 1 trumped, and leads."""
    table = played(0, 0, 0, 14 + 0, 14 + 13, 14 + 27, hands=[[0, 1], [13, 14], [26, 27]], trump=1)
    assert table.seat_to_act == 1
    assert decode(observation(table)).voids == ((0,), (0,), ())


def test_the_text_names_everything() -> None:
    table = played(1, 0, 2, 14 + 0, 14 + 13, 14 + 27, hands=[[0, 1], [13, 14], [26, 27]], trump=1)
    assert str(decode(observation(table))).splitlines() == [
        "3 players, 2 cards, trump H, dealer +1",
        "  bids 0 2 1  won 1 0 0",
        "  hand H3",
        "  +1 may hold C2",
        "  +2 may hold S3",
        "  +0 holds no S",
        "  +1 holds no S",
        "  trick  1  +2:S2  +0:H2  +1:C3",
    ]
    bidding = Round([[50, 51], [0, 1], [2, 3]], dealer=1, totals=[7, 300, 12], game_round=3, start_cards=5)
    bidding.apply(2)
    assert str(decode(observation(bidding))).splitlines() == [
        "3 players, 2 cards, trump none, dealer +1",
        "  bids - - 2  won 0 0 0",
        "  hand DK DA",
        "  +1 may hold S2 S3",
        "  +2 may hold S4 S5",
        "  game of 5, round 4, totals (7, 300, 12)",
    ]


def test_the_text_names_every_card_in_play() -> None:
    random = Random(4)
    for _ in range(100):
        table = position(random, *random.choice(SHAPES))
        text = str(decode(observation(table)))
        assert table.seat_to_act is not None
        shown = [*table.hands[table.seat_to_act], *(card for trick in table.tricks for _, card in trick)]
        words = re.split(r"[\s:]+", text)
        assert all(names.card(card) in words for card in shown)


def test_nobody_observes_a_finished_round() -> None:
    table = deal(Random(0), 3, 1)
    while not table.is_over:
        table.apply(choose(table, Random(0)))
    with pytest.raises(ValueError, match="finished"):
        observation(table)


@pytest.mark.parametrize("n_bytes", [0, 95, 97])
def test_decode_refuses_another_length(n_bytes: int) -> None:
    with pytest.raises(BlobError, match=f"expected an observation of 96 bytes, got {n_bytes}"):
        decode(bytes(n_bytes))


def test_the_two_statements_of_the_layout_agree() -> None:
    """`contract.pxd` for the compiler, which the build writes, and `contract.py` for everyone else."""
    text = (Path(contract.__file__).parent / "contract.pxd").read_text()
    compiled = {name: int(value) for name, value in re.findall(r"^ {4}([A-Z_]+) = (\d+)", text, re.MULTILINE)}
    assert compiled == {name: getattr(contract, name) for name in compiled}
    assert compiled.keys() >= {name for name in vars(contract) if name.startswith(("AT_", "CARD_", "BID_"))}
    assert contract.OBSERVATION_BYTES % 16 == 0
