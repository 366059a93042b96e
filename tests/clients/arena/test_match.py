# SPDX-License-Identifier: Apache-2.0
"""Matches: balanced seats, equal cards, luck that cancels, results that a seed gives again; and the command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blobzero.cli import main
from blobzero.play.play import PlayConfig
from blobzero.verbs.match import MatchConfig
from clients.arena.bots import HeuristicBot, RandomBot
from clients.arena.match import BotPlayer, MatchCounts, Player, SearchPlayer, arrangements, deal_of, play, seed_of
from clients.arena.players import Networks, open_player, parse
from clients.arena.rating import estimate
from clients.connect import EvaluatorConfig
from clients.errors import ModelNotFound
from clients.evaluator import HashEvaluator, UniformEvaluator
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import BlobError, InvalidConfig
from mcts_ext.rules import Round
from tests.support.tiny_model import write_version

SEARCH = SearchConfig(determinizations=2, simulations=6).without_noise()
HEURISTIC, RANDOM = BotPlayer("heuristic", HeuristicBot()), BotPlayer("random", RandomBot())


class OtherwiseRandom:
    """`RandomBot` with other randomness."""

    def choose(self, table: Round, *, seed: int) -> int:
        return RandomBot().choose(table, seed=seed ^ 1)


class Sloppy:
    """The heuristic, but every eighth choice is random."""

    def choose(self, table: Round, *, seed: int) -> int:
        return (RandomBot() if seed % 8 == 0 else HeuristicBot()).choose(table, seed=seed)


def differences(
    players: list[Player], *, deals: int, seed: int = 1, deal: DealConfig | None = None
) -> NDArray[np.float64]:
    results = list(play(players, deal or DealConfig(), deals=deals, seed=seed))
    assert [result.number for result in results] == list(range(deals))
    return np.array([result.scores[0] - result.scores[1] for result in results])


@pytest.mark.parametrize(("n_players", "n_seats"), [(2, 3), (2, 4), (2, 7), (3, 4), (3, 3), (5, 4), (9, 8)])
def test_every_player_sits_in_every_seat_once(n_players: int, n_seats: int) -> None:
    neighbours = Counter[tuple[int, int]]()
    for number in range(200):
        rounds = arrangements(n_players, n_seats, seed=1, number=number)
        assert len(rounds) == n_players
        for seat in range(n_seats):
            assert sorted(seating[seat] for seating in rounds) == list(range(n_players))
        for seating in rounds:
            counts = Counter(seating)
            assert max(counts.values()) - min(counts[player] for player in range(n_players)) <= 1
            neighbours.update((seating[i - 1], seating[i]) for i in range(n_seats))
    if n_players == 2:
        assert len(neighbours) == 4  # own kind and the other, on either side
        assert neighbours[0, 1] == pytest.approx(neighbours[1, 0], rel=0.2)


def test_deals_come_from_seed_and_number() -> None:
    config = DealConfig((3, 4), (2, 5))
    dealt = [deal_of(config, seed=3, number=number) for number in range(300)]
    again = deal_of(config, seed=3, number=17)
    assert (again.hands, again.dealer, again.trump) == (dealt[17].hands, dealt[17].dealer, dealt[17].trump)
    assert deal_of(config, seed=4, number=17).hands != again.hands
    assert {(table.n_players, table.n_cards) for table in dealt} == {(3, 2), (3, 5), (4, 2), (4, 5)}
    assert {table.trump for table in dealt} == {0, 1, 2, 3, None}
    assert {table.dealer for table in dealt} == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["heuristic", "random", "search"])
def test_a_player_against_itself_is_exactly_even(kind: str) -> None:
    if kind == "search":
        players: list[Player] = [SearchPlayer(name, SEARCH, HashEvaluator()) for name in "AB"]
    else:
        players = [HEURISTIC if kind == "heuristic" else RANDOM] * 2
    assert (differences(players, deals=40) == 0).all()


def test_a_player_against_itself_with_other_randomness_is_even_within_noise() -> None:
    found = differences([RANDOM, BotPlayer("other", OtherwiseRandom())], deals=600)
    assert (found != 0).any()
    assert not estimate(found).excludes_zero


def test_searches_play_the_same_match_again_however_it_goes_on() -> None:
    def once(deals: int) -> list[float]:
        players: list[Player] = [
            SearchPlayer("a", SEARCH, HashEvaluator()),
            SearchPlayer("b", SEARCH, UniformEvaluator()),
        ]
        return differences(players, deals=deals, deal=DealConfig((3, 4), (2, 3))).tolist()

    assert once(60) == once(60)
    assert once(60)[:20] == once(20)


def test_leaves_of_many_tables_make_one_batch_and_forced_moves_none() -> None:
    counts = MatchCounts()
    shared = HashEvaluator()
    players: list[Player] = [SearchPlayer("a", SEARCH, shared), SearchPlayer("b", SEARCH, shared), HEURISTIC]
    results = list(play(players, DealConfig((4,), (5,)), deals=300, seed=2, counts=counts))
    assert len(results) == 300
    assert counts.evaluations / counts.requests > 100
    # 24 moves a round; the last cards and much of what follows suit are forced, and a third is the bot's.
    assert 300 * 3 * 24 * 0.25 < counts.decisions < 300 * 3 * 24 * 0.55


def test_scores_and_bids_are_those_of_the_rounds() -> None:
    players = [HEURISTIC, RANDOM]
    result = next(play(players, DealConfig((4,), (3,)), deals=1, seed=5))
    assert result.n_seats == 4
    assert (result.scores <= 13 * result.bids_made).all()
    assert (result.scores >= 10 * result.bids_made).all()


def test_duplicate_deals_cut_the_variance() -> None:
    """Against as many rounds of the same players in the same seats, but every round with cards of its own."""
    players, deal, n = [HEURISTIC, BotPlayer("sloppy", Sloppy())], DealConfig((4,), (3,)), 500
    duplicate = differences(list(players), deals=n, deal=deal)
    single = []
    for number in range(n):
        found = []
        for turn, seating in enumerate(arrangements(2, 4, seed=1, number=number)):
            table = deal_of(deal, seed=99 + turn, number=number)
            n_actions = 0
            while not table.is_over:
                assert table.seat_to_act is not None
                bot = players[seating[table.seat_to_act]].bot
                n_actions += 1
                table.apply(bot.choose(table, seed=seed_of(turn, number, n_actions)))
            scores = np.array(table.scores())
            found.append(scores[np.equal(seating, 0)].sum() - scores[np.equal(seating, 1)].sum())
        single.append(np.mean(found) / 2)
    assert np.mean(single) == pytest.approx(duplicate.mean(), abs=0.6)
    assert duplicate.var() < 0.6 * np.var(single)


def test_too_few_players_or_deals_are_refused() -> None:
    for players, deals in (([RANDOM], 1), ([RANDOM, RANDOM], 0)):
        with pytest.raises(InvalidConfig, match="at least 2 players and 1 deal"):
            list(play(players, DealConfig(), deals=deals, seed=0))


def test_files_become_players_once_and_missing_ones_are_named(tmp_path: Path) -> None:
    file, said = write_version(tmp_path, version=1, seed=1), list[str]()
    specs = [parse(str(file)), parse(f"{file}@1x4"), parse("search-uniform@1x4"), parse("heuristic")]
    with ExitStack() as stack:
        networks = Networks(EvaluatorConfig(), repository=tmp_path, exported={}, stack=stack, on_event=said.append)
        players = [open_player(spec, search=SEARCH, networks=networks) for spec in specs]
        first, second = players[:2]
        assert isinstance(first, SearchPlayer)
        assert isinstance(second, SearchPlayer)
        assert first.evaluator is second.evaluator
        assert (first.search.simulations, second.search.simulations) == (6, 4)
        assert first.search.dirichlet_fraction == second.search.temperature == 0
        assert len(said) == 1
        assert len(list(play(players, DealConfig((4,), (2,)), deals=6, seed=0))) == 6
        with pytest.raises(ModelNotFound):
            open_player(parse("no.onnx"), search=SEARCH, networks=networks)


def blobzero(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blobzero.cli", "match", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["random", "nowhere.onnx"], "expected an ONNX file at nowhere.onnx"),
        (["random", "latest", "--repository", "nowhere"], "expected nowhere/blobnet"),
        (["random", "latest", "--url", "127.0.0.1:9", "--server-timeout", "0.3"], "127.0.0.1:9"),
        (["random", "random", "--deals", "2", "--out", "/proc/x/y.json"], "expected to write /proc/x/y.json"),
    ],
)
def test_a_mistake_costs_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = blobzero(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert says in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["heuristic"], "expected at least two players, got 1"),
        (["heuristic", "stockfish"], "expected a player of random, heuristic"),
        (["heuristic", "random", "--deals", "0"], "expected --deals in 1.."),
        (["heuristic", "random@1x2"], "expected the suffix @DxK or @policy only for a player that searches"),
        (["random", "ismcts", "--players", "8"], "expected at most 7 seats with ismcts"),
    ],
)
def test_wrong_players_are_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match", *arguments]) == 1
    assert says in capsys.readouterr().err


def test_json_has_the_promised_keys(tmp_path: Path) -> None:
    done = blobzero(
        "heuristic", "random", "--deals", "5000", "--stop-when-decided", "--json", "--out", "out/m.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "out" / "m.json").read_text()) == found
    assert {"players", "deals", "difference", "elo", "decided", "seconds", "config"} <= set(found)
    assert [player["name"] for player in found["players"]] == ["heuristic", "random"]
    assert {"name", "score_per_round", "bid_made_rate", "rounds"} <= set(found["players"][0])
    assert found["difference"]["low"] < found["difference"]["mean"] < found["difference"]["high"]
    assert found["elo"]["low"] > 0
    assert found["decided"]
    assert found["interval"] == "anytime"
    assert 100 <= found["deals"] < 200
    assert found["players"][0]["rounds"] == 4 * found["deals"]
    assert found["config"]["deals"] == 5000


def test_ctrl_c_reports_what_was_played(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "blobzero.cli", "match", "heuristic", "random", "--deals", "1000000", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(6)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"]
    assert 10 < found["deals"] < 1_000_000
    assert "Traceback" not in err


def test_unknown_flags_are_refused(tmp_path: Path) -> None:
    assert blobzero("heuristic", "random", "--deal", "3", cwd=tmp_path).returncode == 2
    assert issubclass(ModelNotFound, BlobError)


def test_the_opponent_at_the_table_is_the_one_that_matches_measure() -> None:
    assert PlayConfig().search == MatchConfig(contestants=("random", "random")).search
