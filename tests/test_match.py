# SPDX-License-Identifier: Apache-2.0
"""Matches: fair seats, the same match from the same seed, bots that keep to the rules, intervals that hold."""

import itertools
import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest

from blobzero.cli import main
from clients.bots import Bot, HeuristicBot, RandomBot
from clients.evaluator import HashEvaluator, UniformEvaluator
from clients.match import Deal, Match, Player
from clients.rating import anytime_interval, elo_interval, mean_interval
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.rules import Round
from training.checkpoint import save_checkpoint
from training.network import create_network

SHAPES = DealConfig(players=(3, 4, 5, 8), cards=(1, 3, 6))
QUICK = SearchConfig(determinizations=2, simulations=4)


def played(*players: Player, n: int = 20, deals: DealConfig = SHAPES, seed: int = 1) -> list[Deal]:
    return list(Match(players, deals=deals, search=QUICK, seed=seed).play(n))


def heuristic() -> Player:
    return Player("heuristic", bot=HeuristicBot())


def at_random() -> Player:
    return Player("random", bot=RandomBot())


def searching() -> Player:
    return Player("hash", evaluator=HashEvaluator())


@pytest.mark.parametrize("bot", [RandomBot(), HeuristicBot()])
def test_bots_keep_to_the_rules_in_every_shape(bot: Bot) -> None:
    random = Random(4)
    for n_players, n_cards in itertools.product(range(3, 9), range(1, 14)):
        if n_players * n_cards > 52:
            continue
        for trump in (None, 0, 3):
            table = Round.deal(n_players, n_cards, 0, trump, random.getrandbits(62))
            while not table.is_over:
                action = bot.choose(table, random)
                assert action in table.legal_actions()
                table.apply(action)


def test_the_heuristic_does_not_look_into_other_hands() -> None:
    bot, random = HeuristicBot(), Random(1)
    for seed in range(60):
        table = Round.deal(4, 5, 0, seed % 4, seed)
        while not table.is_over:
            seat = table.seat_to_act
            assert seat is not None
            if not table.tricks and not any(bid is not None for bid in table.bids):
                hidden = [card for other in range(4) if other != seat for card in table.hands[other]]
                random.shuffle(hidden)
                hands = [table.hands[seat] if s == seat else [hidden.pop() for _ in range(5)] for s in range(4)]
                other = Round(hands, dealer=table.dealer, trump=table.trump)
                assert bot.choose(other, random) == bot.choose(table, random)
            table.apply(bot.choose(table, random))


def test_the_heuristic_beats_chance() -> None:
    found = played(heuristic(), at_random(), n=150)
    assert mean_interval([deal.scores[0] - deal.scores[1] for deal in found]).low > 1


@pytest.mark.parametrize("players", [2, 3])
def test_every_hand_is_played_once_by_each_player(players: int) -> None:
    """Players that play alike score alike in every single deal, whatever the cards."""
    found = played(*(heuristic() for _ in range(players)))
    assert len(found) == 20
    for deal in found:
        assert len(set(deal.rounds)) == 1
        assert max(deal.scores) - min(deal.scores) < 1e-9


def test_the_same_seed_gives_the_same_match() -> None:
    def outcome(seed: int) -> list[Deal]:
        return sorted(played(searching(), heuristic(), at_random(), seed=seed), key=lambda deal: deal.number)

    assert outcome(3) == outcome(3)
    assert outcome(3) != outcome(4)


def test_scores_are_those_of_the_rules() -> None:
    for deal in played(searching(), at_random()):
        for score, made, rounds in zip(deal.scores, deal.made, deal.rounds, strict=True):
            assert 10 * made <= round(score * rounds) <= (10 + 6) * made


def test_duplicate_deals_cut_the_variance() -> None:
    found = played(heuristic(), at_random(), n=400, deals=DealConfig())
    paired = [deal.scores[0] - deal.scores[1] for deal in found]
    shuffled = [one.scores[0] - other.scores[1] for one, other in itertools.pairwise(found)]
    assert np.var(paired) < np.var(shuffled)


def test_a_match_can_be_stopped_and_the_evaluator_used_again() -> None:
    evaluator = UniformEvaluator()
    match = Match([Player("a", evaluator=evaluator), heuristic()], deals=SHAPES, search=QUICK, seed=1)
    assert len(list(match.play(500, should_stop=lambda: True))) == 1
    assert len(played(Player("a", evaluator=evaluator), heuristic(), n=5)) == 5


def test_intervals_cover_what_they_say() -> None:
    random = np.random.default_rng(5)
    samples = random.exponential(2.0, (2000, 60)) - 2
    covered = [not mean_interval(sample.tolist()).excludes(0) for sample in samples]
    assert 0.92 < np.mean(covered) < 0.97
    assert mean_interval([1.0]).low == -math.inf


def test_the_anytime_interval_rarely_ever_errs() -> None:
    random = np.random.default_rng(6)
    erred = 0
    for _ in range(200):
        sample = random.normal(0, 3, 600).tolist()
        erred += any(anytime_interval(sample[:n]).excludes(0) for n in range(20, 601, 20))
    assert erred <= 18  # 5% of 200, and what chance adds to it
    peeking = 0
    for _ in range(200):
        sample = random.normal(0, 3, 600).tolist()
        peeking += any(mean_interval(sample[:n]).excludes(0) for n in range(20, 601, 20))
    assert peeking > 30  # why it is needed


def test_elo_is_the_logistic_of_the_share() -> None:
    assert elo_interval([1.0, -1.0] * 50).mean == 0
    found = elo_interval([1.0] * 75 + [-1.0] * 25)
    assert found.mean == pytest.approx(400 * math.log10(3))
    assert found.low < found.mean < found.high
    assert math.isfinite(elo_interval([1.0] * 30).high)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "net.safetensors"
    save_checkpoint(checkpoint, create_network("small", seed=1), step=1)
    flags = [
        "--deals",
        "6",
        "--simulations",
        "3",
        "--determinizations",
        "2",
        "--json",
        "--out",
        str(tmp_path / "m.json"),
    ]
    assert main(["match", "heuristic", "search-uniform", str(checkpoint), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "m.json").read_text())
    assert [player["name"] for player in found["players"]] == ["heuristic", "search-uniform", str(checkpoint)]
    assert (found["deals"], found["players"][0]["rounds"]) == (6, 6 * 4)
    assert found["difference"]["low"] < found["difference"]["mean"] < found["difference"]["high"]
    assert main(["match", "heuristic", "random", "--deals", "5000", "--stop-when-decided", "--json"]) == 0
    decided = json.loads(capsys.readouterr().out)
    assert decided["decided"]
    assert decided["deals"] < 1000
    for wrong, says in (
        (["heuristic"], "expected two players or more"),
        (["heuristic", "nobody"], "expected a player of random, heuristic"),
        (["heuristic", "random", "--deals", "1"], "expected --deals of at least 2"),
        (["heuristic"] * 5, "expected a seat for each of 5 players"),
        (["heuristic", "version:7", "--repository", str(tmp_path)], "expected an ONNX file"),
    ):
        assert main(["match", *wrong]) == 1
        assert says in capsys.readouterr().err
