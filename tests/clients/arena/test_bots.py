# SPDX-License-Identifier: Apache-2.0
"""Bots: legal cards only, the same choice every time, nothing seen that a seat may not see; the map to OpenSpiel."""

from random import Random
from typing import Any

import numpy as np
import pyspiel
import pytest

from clients.arena.bots import Bot, HeuristicBot, PIMCBot, RandomBot
from clients.arena.ismcts import FairISMCTSBot, ISMCTSBot, mirror, our_action, their_action
from clients.arena.match import BotPlayer, play
from clients.arena.players import parse
from clients.arena.rating import estimate
from mcts_ext.config import DealConfig
from mcts_ext.contract import FIRST_CARD_ACTION, N_ACTIONS
from mcts_ext.errors import InvalidConfig
from mcts_ext.rules import Round

SPADES, HEARTS = 0, 13
TWO, SEVEN, JACK, KING, ACE = 0, 5, 9, 11, 12


def deal(seed: int, *, most_players: int = 8) -> Round:
    random = Random(seed)
    n_players = random.randint(3, most_players)
    n_cards = random.randint(1, min(13, 52 // n_players))
    return Round.deal(n_players, n_cards, random.randrange(n_players), random.choice([0, 1, 2, 3, None]), seed)


def with_other_hidden_cards(table: Round, seed: int) -> Round:
    """The same round as its seat to act knows it: what it cannot see lies elsewhere, undealt cards included."""
    played = [pair for trick in table.tricks for pair in trick] if not table.is_bidding else []
    seat = table.seat_to_act
    hands = table.hands
    known = {*hands[seat], *(card for _, card in played)}
    unseen = [card for card in range(52) if card not in known]
    Random(seed).shuffle(unseen)
    dealt = []
    for other in range(table.n_players):
        hand = hands[other] if other == seat else [unseen.pop() for _ in hands[other]]
        dealt.append(hand + [card for by, card in played if by == other])
    copy = Round(dealt, dealer=table.dealer, trump=table.trump)
    for i in range(table.n_players):
        bid = table.bids[(table.dealer + 1 + i) % table.n_players]
        if bid is not None:
            copy.apply(bid)
    for _, card in played:
        copy.apply(FIRST_CARD_ACTION + card)
    return copy


BOTS = [(RandomBot(), 150), (HeuristicBot(), 150), (PIMCBot(3), 150), (ISMCTSBot(20), 15), (FairISMCTSBot(20), 10)]


@pytest.mark.parametrize(("bot", "rounds"), BOTS)
def test_a_bot_plays_legal_cards_and_the_same_again(bot: Bot, rounds: int) -> None:
    for number in range(rounds):
        table = deal(number, most_players=7)
        while not table.is_over:
            before = str(table)
            action = bot.choose(table, seed=number)
            assert action in table.legal_actions()
            if not isinstance(bot, ISMCTSBot):  # OpenSpiel's hash tables have no fixed order
                assert action == bot.choose(table, seed=number)
            assert str(table) == before
            table.apply(action)


def test_the_heuristic_does_not_see_hidden_cards() -> None:
    bot = HeuristicBot()
    n_compared = 0
    for number in range(120):
        table = deal(number)
        while not table.is_over:
            action = bot.choose(table, seed=0)
            if table.is_bidding:  # later a void might forbid a deal, and the copy would be another situation
                assert bot.choose(with_other_hidden_cards(table, number), seed=0) == action
                n_compared += 1
            elif not any(table.voids[seat] for seat in range(table.n_players)):
                try:
                    other = with_other_hidden_cards(table, number)
                except ValueError:  # a seat would have had to follow suit
                    pass
                else:
                    assert bot.choose(other, seed=0) == action
                    n_compared += 1
            table.apply(action)
    assert n_compared > 800


def test_the_heuristic_bids_and_plays_as_it_says() -> None:
    bot = HeuristicBot()
    hands = [[ACE, KING, JACK], [HEARTS + TWO, HEARTS + 1, HEARTS + 2], [SEVEN, HEARTS + SEVEN, 26]]
    sure = Round(hands, dealer=2, trump=0)
    assert bot.choose(sure, seed=0) == 3  # the highest trumps, to lead
    sure.apply(3)
    assert bot.choose(sure, seed=0) == 0  # the lowest of a side suit
    sure.apply(0)
    sure.apply(2)
    sure.apply(FIRST_CARD_ACTION + ACE)
    sure.apply(bot.choose(sure, seed=0))
    assert bot.choose(sure, seed=0) == FIRST_CARD_ACTION + SEVEN  # follows suit
    # Seat 2 needs none and plays last to a jack led: its highest loser is the seven, not the two.
    duck = Round([[JACK, KING], [HEARTS, HEARTS + 1], [TWO, SEVEN]], dealer=2, trump=None)
    for action in (1, 0, 0, FIRST_CARD_ACTION + JACK, FIRST_CARD_ACTION + HEARTS):
        duck.apply(action)
    assert bot.choose(duck, seed=0) == FIRST_CARD_ACTION + SEVEN


@pytest.mark.parametrize("shape", [(3, 1), (4, 5), (6, 8), (8, 3)])
@pytest.mark.parametrize("bot", [HeuristicBot(), PIMCBot(10)], ids=["heuristic", "pimc"])
def test_bots_beat_random(bot: Bot, shape: tuple[int, int]) -> None:
    players = [BotPlayer("bot", bot), BotPlayer("random", RandomBot())]
    results = list(play(players, DealConfig((shape[0],), (shape[1],)), deals=120, seed=1))
    assert estimate(np.array([result.scores[0] - result.scores[1] for result in results])).low > 1


def test_the_map_to_openspiel_holds_at_every_step() -> None:
    assert [our_action(their_action(action)) for action in range(N_ACTIONS)] == list(range(N_ACTIONS))
    random = Random(3)
    n_steps = 0
    for number in range(60):
        table = deal(number, most_players=7)
        while not table.is_over:
            state = mirror(table)
            assert state.current_player() == table.seat_to_act
            assert sorted(map(our_action, state.legal_actions())) == table.legal_actions()
            table.apply(random.choice(table.legal_actions()))
            n_steps += 1
        made = [bid == won for bid, won in zip(table.bids, table.tricks_won, strict=True)]
        assert mirror(table).returns() == [w + 10 * m for w, m in zip(table.tricks_won, made, strict=True)]
    assert n_steps > 1000


def test_one_of_openspiels_knows_which_cards_are_in_play_and_the_fair_one_does_not() -> None:
    # The lowest trump, to lead, wins unless another trump was dealt: most likely none, but here there is one.
    table = Round([[TWO], [SEVEN], [HEARTS + SEVEN]], dealer=2, trump=0)
    assert [bot.choose(table, seed=1) for bot in (ISMCTSBot(400), FairISMCTSBot(4000))] == [0, 1]


def test_openspiels_search_and_its_rollouts_have_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bot = ISMCTSBot(50)
    found: list[tuple[int, int]] = []

    class Spy:
        """OpenSpiel, its seeds written down."""

        ISMCTSFinalPolicyType = pyspiel.ISMCTSFinalPolicyType

        def RandomRolloutEvaluator(self, n: int, seed: int) -> Any:
            return seed, pyspiel.RandomRolloutEvaluator(n, seed)

        def ISMCTSBot(self, seed: int, evaluator: Any, *more: Any) -> Any:
            found.append((seed, evaluator[0]))
            return pyspiel.ISMCTSBot(seed, evaluator[1], *more)

    monkeypatch.setattr(bot, "_pyspiel", Spy())
    for seed in (0, 1, 2**64 - 1):
        bot.choose(Round.deal(4, 3, 0, 0, 1), seed=seed)
    assert len({seed for pair in found for seed in pair}) == 6
    assert all(0 <= seed < 2**31 for pair in found for seed in pair)


def test_openspiel_takes_no_eighth_player() -> None:
    with pytest.raises(InvalidConfig, match="at most 7"):
        ISMCTSBot(10).choose(Round.deal(8, 2, 0, 0, 1), seed=0)


def test_specs_are_read() -> None:
    assert (parse("ismcts").number, parse("ismcts:50").number, parse("version:12").number) == (1000, 50, 12)
    assert [(spec.kind, spec.number) for spec in map(parse, ("ismcts-fair", "ismcts-fair:9"))] == [
        ("ismcts-fair", 1000),
        ("ismcts-fair", 9),
    ]
    assert [(spec.kind, spec.number) for spec in map(parse, ("pimc", "pimc:200"))] == [("pimc", 50), ("pimc", 200)]
    assert parse("latest@1x15").search == (1, 15)
    assert parse("runs/a@b/model.onnx@2x20").search == (2, 20)
    assert str(parse("runs/a@b/model.onnx").path) == "runs/a@b/model.onnx"
    for wrong in (
        "",
        "newest",
        "version:",
        "version:x",
        "ismcts:many",
        "pimc:",
        "pimc:x",
        "random@3x30",
        "heuristic@1x1",
        "model.pt",
    ):
        with pytest.raises(InvalidConfig, match=r"expected (a player|the suffix) "):
            parse(wrong)
