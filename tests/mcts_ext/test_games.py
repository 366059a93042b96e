# SPDX-License-Identifier: Apache-2.0
"""Self-play of whole games: what the rules say of a game, whatever the pool, and from any round on."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from clients.selfplay.records import write_shard
from clients.selfplay.shares import Share
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.deals import ROUNDS_APART, TRUMPS, games_for, hand_sizes
from mcts_ext.decode import decode
from mcts_ext.errors import InvalidConfig
from mcts_ext.observe import observation
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records
from mcts_ext.rules import Round
from tests.support.evaluators import hashed, in_order, run_pool, uniform

CHEAP = SearchConfig(determinizations=1, simulations=2)
SHORT = DealConfig(players=(3, 4), cards=(1, 2, 3), unit="game")
EVERY = DealConfig(players=(3, 4, 5, 6, 7, 8), cards=tuple(range(1, 14)), unit="game")


def make_pool(rounds: Any, **settings: Any) -> SelfPlayPool:
    return SelfPlayPool(rounds, **{"seed": 1, "deal": SHORT, "search": CHEAP, "n_games": 8, **settings})


def first_rounds(n_games: int) -> list[int]:
    return [ROUNDS_APART * game for game in range(n_games)]


def assert_same(one: Records, other: Records) -> None:
    for name, column in vars(one).items():
        assert np.array_equal(column, getattr(other, name)), name


def rows_of(records: Records, rows: Any) -> Records:
    return Records(**{field.name: getattr(records, field.name)[rows] for field in fields(Records)})


def play_again(records: Records, number: int, *, dealer: int, **game: Any) -> Round:
    """Play one round from its records through the rules, comparing every observation; the finished round."""
    rows = np.flatnonzero(records.round == number)
    known = decode(records.observation[rows[0]].tobytes())
    hands = np.roll(np.array([known.hand, *known.others]), int(records.seat[rows[0]]), axis=0).tolist()
    table = Round(hands, dealer=dealer, trump=known.trump, **game)
    pending = list(rows)
    while not table.is_over:
        action = table.legal_actions()[0]
        if len(table.legal_actions()) > 1:
            row = pending.pop(0)
            action = int(records.action[row])
            assert records.observation[row].tobytes() == observation(table)
            turned = np.roll(records.value[row, : table.n_players], int(records.seat[row])) * (10 + table.n_cards)
        table.apply(action)
    assert not pending
    assert turned == pytest.approx(table.scores())  # of the last decision: the value is the round's own score
    return table


def test_a_game_is_played_by_the_rules() -> None:
    records = run_pool(make_pool(first_rounds(60), deal=EVERY, n_games=16), uniform)
    scored = 0
    for game in range(60):
        numbers = np.unique(records.round[records.round // ROUNDS_APART == game]).tolist()
        opening = decode(records.observation[np.argmax(records.round == numbers[0])].tobytes())
        sizes = hand_sizes(opening.n_players, opening.start_cards)
        assert numbers == [ROUNDS_APART * game + index for index in range(len(sizes))]
        first_dealer = (int(records.seat[np.argmax(records.round == numbers[0])]) + opening.dealer) % opening.n_players
        totals = [0] * opening.n_players
        for index, number in enumerate(numbers):
            table = play_again(
                records,
                number,
                dealer=(first_dealer + index) % opening.n_players,
                totals=totals,
                game_round=index,
                start_cards=opening.start_cards,
            )
            assert (table.n_cards, table.trump) == (sizes[index], TRUMPS[index % 5])
            totals = [total + score for total, score in zip(totals, table.scores(), strict=True)]
        scored += sum(totals)
    assert scored


def test_the_same_games_whatever_the_pool() -> None:
    expected = run_pool(make_pool(first_rounds(30)), hashed)
    for n_games, n_groups in [(1, 1), (3, 2), (64, 3)]:
        pool = make_pool(first_rounds(30), n_games=n_games, n_groups=n_groups)
        assert_same(run_pool(pool, hashed), expected)
    shares = [make_pool(first_rounds(30)[worker::3], n_games=4) for worker in range(3)]
    assert_same(in_order(*(run_pool(pool, hashed) for pool in shares)), expected)


def test_tables_are_drawn_uniformly() -> None:
    deal = DealConfig(players=(3, 8), cards=(2, 7), unit="game")
    records = run_pool(make_pool(first_rounds(1500), deal=deal, n_games=64), uniform)
    openings = np.flatnonzero((records.round % ROUNDS_APART == 0) & (records.decision == 0)).tolist()
    known = [decode(records.observation[row].tobytes()) for row in openings]
    tables = np.unique([(k.n_players, k.start_cards) for k in known], axis=0, return_counts=True)
    assert tables[0].tolist() == [[3, 2], [3, 7], [8, 2]]
    assert chisquare(tables[1]).pvalue > 1e-4
    for n_players in (3, 8):
        seats = [records.seat[row] for row, k in zip(openings, known, strict=True) if k.n_players == n_players]
        assert chisquare(np.bincount(seats, minlength=n_players)).pvalue > 1e-4


def test_stats_count_rounds() -> None:
    n_games, n_rounds = games_for(100, seed=1, deal=SHORT)
    pool = make_pool(first_rounds(n_games))
    assert pool.n_unfinished == n_games
    records = run_pool(pool, uniform)
    assert pool.stats["rounds"] == len(np.unique(records.round)) == n_rounds >= 100
    assert n_rounds - np.count_nonzero(np.unique(records.round) // ROUNDS_APART == n_games - 1) < 100


def write(folder: Path, records: Records, number: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    write_shard(folder / f"{number:03}.parquet", records, provenance={})


def share(folder: Path, rounds: int, *, index: int = 0, workers: int = 1) -> Share:
    return Share.left(folder, SHORT, seed=1, rounds=rounds, index=index, workers=workers)


def test_a_game_goes_on_where_its_shards_end(tmp_path: Path) -> None:
    """Two shards hold some rounds of every game, all of some, none of others; with the rest they are all."""
    n_games, _ = games_for(150, seed=1, deal=SHORT)
    expected = run_pool(make_pool(first_rounds(n_games)), hashed)
    index, game = expected.round % ROUNDS_APART, expected.round // ROUNDS_APART
    held = [index < game % 4, (index >= game % 4) & (index < 2 * (game % 4))]
    for number, rows in enumerate(held):
        write(tmp_path, rows_of(expected, rows), number)
    left = share(tmp_path, 150)
    assert len(left.rounds) < n_games
    assert left.totals.any()
    parts = [rows_of(expected, held[0] | held[1])]
    for worker in range(3):
        mine = share(tmp_path, 150, index=worker, workers=3)
        parts.append(run_pool(make_pool(mine.rounds, totals=mine.totals), hashed))
    assert_same(in_order(*parts), expected)
    write(tmp_path, expected)
    assert len(share(tmp_path, 150).rounds) == 0
    assert share(tmp_path, 200).rounds[0] == n_games * ROUNDS_APART


def test_rounds_are_left_by_their_numbers(tmp_path: Path) -> None:
    records = Records.empty(2)
    records.round[:] = [1, 4]
    write(tmp_path, records)
    left = Share.left(tmp_path, DealConfig(), seed=1, rounds=8, index=1, workers=2)
    assert left.rounds.tolist() == [3, 5, 7]
    assert left.totals.shape == (3, 8)


def test_what_is_no_round_of_a_game_is_refused() -> None:
    last = ROUNDS_APART + len(hand_sizes(4, 3))
    with pytest.raises(InvalidConfig, match=f"expected the number of a round within a game, got {last}"):
        make_pool([0, last])
    with pytest.raises(InvalidConfig, match=r"expected totals \[2, 8\], .* got uint16 \[1, 8\]"):
        make_pool(first_rounds(2), totals=np.zeros((1, 8), np.uint16))
    with pytest.raises(InvalidConfig, match="expected a deal of whole games, got unit 'round'"):
        games_for(10, seed=1, deal=DealConfig())
    with pytest.raises(InvalidConfig, match="expected unit of round, game, got 'match'"):
        DealConfig(unit="match")  # type: ignore[arg-type]
