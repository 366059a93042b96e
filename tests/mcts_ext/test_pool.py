# SPDX-License-Identifier: Apache-2.0
"""The pool: a round depends on its seed, its number and the evaluator alone, and its records tell it truly."""

from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from scipy.stats import chisquare

from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.decode import decode
from mcts_ext.errors import InvalidConfig, InvalidEvaluation
from mcts_ext.observe import observation
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records
from mcts_ext.rules import Round
from mcts_ext.search import Search
from tests.support.evaluators import Evaluate, hashed, in_order, one_by_one, run_pool, uniform

QUICK = SearchConfig(determinizations=2, simulations=12)
CHEAP = SearchConfig(determinizations=1, simulations=2)
MIXED = DealConfig(players=(3, 4, 5, 6, 7, 8), cards=(1, 2, 3, 5, 8, 13))


def make_pool(n_rounds: int, **settings: Any) -> SelfPlayPool:
    """A pool of rounds 0 .. n_rounds - 1 with some settings of its own."""
    return SelfPlayPool(
        settings.pop("rounds", range(n_rounds)),
        **{"seed": 1, "deal": DealConfig(), "search": QUICK, "n_games": 32, **settings},
    )


def play(n_rounds: int, evaluate: Evaluate = hashed, **settings: Any) -> Records:
    return run_pool(make_pool(n_rounds, **settings), evaluate, check_every=50)


def assert_same(one: Records, other: Records) -> None:
    for name, column in vars(one).items():
        assert np.array_equal(column, getattr(other, name)), name


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("deal", [DealConfig(), MIXED], ids=["4x5", "mixed"])
def test_the_same_rounds_whatever_the_pool(leaves: int, deal: DealConfig) -> None:
    search = replace(QUICK, leaves_per_tree=leaves)
    expected = play(40, deal=deal, search=search, n_games=256, n_groups=2)
    assert len(expected) > 300
    for n_games, n_groups in [(1, 1), (7, 3), (7, 2), (256, 3), (30, 1)]:
        assert_same(play(40, deal=deal, search=search, n_games=n_games, n_groups=n_groups), expected)


def test_the_same_rounds_however_they_are_split_and_ordered() -> None:
    expected = play(40, deal=MIXED)
    shares = [make_pool(0, rounds=np.arange(40)[worker::4], deal=MIXED, n_games=5) for worker in range(4)]
    assert_same(in_order(*(run_pool(pool, hashed) for pool in shares)), expected)
    assert_same(play(0, rounds=range(39, -1, -1), deal=MIXED), expected)


def test_the_same_rounds_evaluated_one_by_one() -> None:
    assert_same(play(20, one_by_one(hashed)), play(20))


def test_seed_and_number_make_the_round() -> None:
    records = play(0, rounds=[5, 9, 5, 2**62, -3])
    assert np.array_equal(np.unique(records.round), [-3, 5, 9, 2**62])
    fives = records.observation[records.round == 5]
    assert np.array_equal(fives[::2], fives[1::2])
    assert not np.array_equal(play(10).observation[:50], play(10, seed=2).observation[:50])
    assert_same(play(5, seed=2**64 + 1), play(5, seed=1))


def replay(records: Records, number: int) -> Round:
    """Deal and play a round again from nothing but its records, comparing each with the table; the finished round."""
    rows = np.flatnonzero(records.round == number)
    hands: dict[int, list[int]] = {}
    for i in rows:
        known = decode(records.observation[i].tobytes())
        played = [card for trick in known.tricks for seat, card in trick if seat == 0]
        hands.setdefault(int(records.seat[i]), [*known.hand, *played])
    first = decode(records.observation[rows[0]].tobytes())
    dealer = (int(records.seat[rows[0]]) + first.dealer) % first.n_players
    table = Round([hands[seat] for seat in range(first.n_players)], dealer=dealer, trump=first.trump)

    pending = list(rows)
    n_moves = 0
    while not table.is_over:
        legal = table.legal_actions()
        action = legal[0]
        if len(legal) > 1:
            i = pending.pop(0)
            action = int(records.action[i])
            assert (records.decision[i], records.seat[i]) == (n_moves, table.seat_to_act)
            assert records.observation[i].tobytes() == observation(table)
            assert set(np.flatnonzero(records.policy[i])) <= set(legal)
            assert records.policy[i].sum() == pytest.approx(1.0, abs=1e-6)
            assert records.policy[i, action] > 0
        table.apply(action)
        n_moves += 1
    assert not pending
    for i in rows:
        turned = np.roll(table.scores(), -int(records.seat[i])) / (10 + table.n_cards)
        assert records.value[i, : table.n_players] == pytest.approx(turned)
        assert not records.value[i, table.n_players :].any()
    return table


def test_records_replay_to_their_values() -> None:
    """Hands of one card are left out: a forced seat leaves no record to deal its card from."""
    records = play(200, deal=DealConfig(players=(3, 4, 5, 6, 7, 8), cards=tuple(range(2, 14))), search=CHEAP)
    tables = [replay(records, number) for number in range(200)]
    assert {table.n_players for table in tables} == {3, 4, 5, 6, 7, 8}
    assert any(sum(table.scores()) for table in tables)


def test_deals_are_uniform() -> None:
    deal = DealConfig(players=(3, 8), cards=(2, 7, 13))
    assert deal.pairs() == [(3, 2), (3, 7), (3, 13), (8, 2)]
    records = play(3000, uniform, deal=deal, search=CHEAP)
    firsts = [int(i) for i in np.flatnonzero(records.decision == 0)]
    known = [decode(records.observation[i].tobytes()) for i in firsts]

    def p_value(found: list[Any], n_kinds: int) -> float:
        counts = np.unique(np.array(found), axis=0, return_counts=True)[1]
        assert len(counts) == n_kinds
        return float(chisquare(counts).pvalue)

    assert len(known) == 3000
    assert p_value([(k.n_players, k.n_cards) for k in known], 4) > 1e-4
    assert p_value([-1 if k.trump is None else k.trump for k in known], 5) > 1e-4
    seats = [int(records.seat[i]) for i in firsts]
    for n_players in (3, 8):
        dealt = [seat for seat, k in zip(seats, known, strict=True) if k.n_players == n_players]
        assert p_value(dealt, n_players) > 1e-4
    assert p_value([card for k in known if k.n_cards == 2 for card in k.hand], 52) > 1e-4


def test_records_are_taken_in_whole_rounds() -> None:
    pool = make_pool(40, n_games=6)
    parts = []
    while pool.n_unfinished:
        for group in range(pool.n_groups):
            if pool.collect(group):
                pool.apply(group, *hashed(pool.observations(group)))
        parts.append(pool.take_records())
    assert sum(len(part) > 0 for part in parts) > 10
    rounds = [set(part.round.tolist()) for part in parts]
    assert sum(map(len, rounds)) == len(set().union(*rounds)) == 40
    assert_same(in_order(*parts), play(40))
    assert len(pool.take_records()) == 0


def test_stats_add_up() -> None:
    pool = make_pool(50, search=replace(QUICK, leaves_per_tree=3))
    n_rows = 0

    def counted(observations: Any) -> Any:
        nonlocal n_rows
        n_rows += len(observations)
        return hashed(observations)

    records = run_pool(pool, counted)
    stats = pool.stats
    assert (stats["rounds"], stats["decisions"], pool.n_unfinished) == (50, len(records), 0)
    assert stats["simulations"] == len(records) * 2 * 13
    assert stats["evaluations"] == n_rows <= stats["leaves"] <= stats["simulations"]


def test_the_same_leaves_of_one_batch_share_a_row() -> None:
    """One round five times, side by side: rows for one where a batch holds all, for five where each has its own."""

    def n_evaluations(n_rounds: int, n_groups: int) -> int:
        pool = make_pool(0, rounds=[3] * n_rounds, n_games=n_rounds, n_groups=n_groups)
        run_pool(pool, hashed)
        return pool.stats["evaluations"]

    assert n_evaluations(5, n_groups=1) == n_evaluations(1, n_groups=1) == n_evaluations(5, n_groups=5) / 5


def test_temperature_0_plays_the_most_visited_move() -> None:
    records = play(60, search=replace(QUICK, temperature=0.0, temperature_final=0.0))
    assert np.array_equal(records.action, records.policy.argmax(axis=1))


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (1.0, 0.25), (0.3, 2.0)])
def test_moves_are_drawn_by_temperature(start: float, end: float) -> None:
    """Over many decisions the most visited move is played as often as its share, sharpened, says: within 4 sigma."""
    records = play(250, deal=DealConfig(), search=replace(QUICK, temperature=start, temperature_final=end))
    temperature = start + (end - start) * records.decision / (4 * 6)
    sharpened = records.policy.astype(np.float64) ** (1 / temperature[:, None])
    share = (sharpened / sharpened.sum(axis=1, keepdims=True)).max(axis=1)
    best = records.policy[np.arange(len(records)), records.action] == records.policy.max(axis=1)
    ties = (records.policy == records.policy.max(axis=1, keepdims=True)).sum(axis=1)
    chance = share * ties
    assert abs(best.sum() - chance.sum()) < 4 * np.sqrt((chance * (1 - chance)).sum())


def test_root_noise_is_drawn_for_every_decision() -> None:
    assert not np.array_equal(
        play(10, search=replace(QUICK, dirichlet_fraction=0.0)).policy[:20],
        play(10, search=replace(QUICK, dirichlet_fraction=0.25)).policy[:20],
    )


def test_model_version_is_the_one_that_answered_last() -> None:
    pool = make_pool(3, n_games=1, n_groups=1)
    version, ends = 0, []
    while pool.n_unfinished:
        n_decisions = pool.stats["decisions"]
        n_rows = pool.collect(0)
        ends += [version] * (pool.stats["decisions"] - n_decisions)
        if n_rows:
            version += 1
            pool.apply(0, *hashed(pool.observations(0)), model_version=version)
    records = in_order(pool.take_records())
    assert records.model_version.tolist() == ends
    assert len(set(ends)) > 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_an_unsound_answer_is_refused_and_a_sound_one_goes_on(bad: float, which: int) -> None:
    pool = make_pool(12, n_games=4)
    while pool.n_unfinished:
        for group in range(2):
            if pool.collect(group):
                rows = pool.observations(group).copy()
                answer = hashed(rows)
                answer[which][len(rows) // 2] = bad
                with pytest.raises(InvalidEvaluation, match="expected finite logits and values"):
                    pool.apply(group, *answer)
                assert np.array_equal(pool.observations(group), rows)
                pool.apply(group, *hashed(rows))
    pool.check()
    assert_same(in_order(pool.take_records()), play(12))


def test_an_answer_of_another_shape_is_refused() -> None:
    pool = make_pool(4)
    n = pool.collect(0)
    wrong = [((n + 1, 66), (n + 1, 8)), ((n, 65), (n, 8)), ((n, 66), (n, 9)), ((n, 66), (n - 1, 8)), ((0, 66), (0, 8))]
    for shapes in wrong:
        with pytest.raises(InvalidEvaluation, match=rf"expected logits \[{n}, 66\] and values \[{n}, 8\]"):
            pool.apply(0, *(np.zeros(shape, dtype=np.float32) for shape in shapes))
    answer = hashed(pool.observations(0))
    pool.apply(0, *answer)
    with pytest.raises(InvalidEvaluation, match=r"expected logits \[0, 66\]"):
        pool.apply(0, *answer)


def test_collecting_again_asks_the_same() -> None:
    """A client whose request failed may start over: nothing is lost and nothing goes wrong."""
    pool = make_pool(10, n_games=4)
    while pool.n_unfinished:
        for group in range(2):
            n_rows = pool.collect(group)
            rows = pool.observations(group).copy()
            assert pool.collect(group) == n_rows
            assert np.array_equal(pool.observations(group), rows)
            if n_rows:
                pool.apply(group, *hashed(rows))
    assert_same(in_order(pool.take_records()), play(10))


def test_settings_out_of_range_are_refused() -> None:
    for settings in [{"n_games": 0}, {"n_games": -1}, {"n_groups": 0}]:
        with pytest.raises(InvalidConfig, match=r"expected (at least 1|1\.\.1000000)"):
            make_pool(1, **settings)
    for group in (-1, 2):
        with pytest.raises(InvalidConfig, match=r"expected a group in 0\.\.1"):
            make_pool(1).collect(group)
    for players, cards in [((9,), (5,)), ((2,), (5,)), ((4,), (14,)), ((4,), (0,)), ((5, 8), (11, 12)), ((), (5,))]:
        with pytest.raises(InvalidConfig, match="expected"):
            DealConfig(players=players, cards=cards)


def test_players_and_cards_named_twice_count_once() -> None:
    once, often = DealConfig(players=(3, 4), cards=(1, 2)), DealConfig(players=(4, 3) * 50, cards=(2, 1))
    assert once.pairs() == often.pairs() == [(3, 1), (3, 2), (4, 1), (4, 2)]
    assert_same(play(20, deal=often), play(20, deal=once))


def test_an_empty_pool_is_done() -> None:
    pool = make_pool(0)
    assert (pool.n_unfinished, pool.collect(0), pool.collect(1), len(pool.take_records())) == (0, 0, 0, 0)
    pool.check()


def test_fewer_games_than_groups() -> None:
    pool = make_pool(3, n_games=2, n_groups=5)
    assert (pool.n_games, pool.n_groups) == (2, 2)
    assert_same(run_pool(pool, hashed), play(3))


def rss_mib() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


@pytest.mark.slow
def test_memory_does_not_grow() -> None:
    """10,000 rounds in one pool, then hundreds of pools and searches made and dropped."""
    pool = make_pool(10_000, search=replace(CHEAP, determinizations=2), n_games=256)
    after_warm_up = None
    n_records = 0
    while pool.n_unfinished:
        for group in range(pool.n_groups):
            if pool.collect(group):
                pool.apply(group, *uniform(pool.observations(group)))
        n_records += len(pool.take_records())
        if after_warm_up is None and pool.stats["rounds"] >= 1500:
            after_warm_up = rss_mib()
    assert after_warm_up is not None
    assert n_records == pool.stats["decisions"] > 100_000
    assert rss_mib() - after_warm_up < 4

    table = Round.deal(4, 5, 0, None, 1)
    for i in range(400):
        if i == 100:
            after_warm_up = rss_mib()
        make_pool(2, n_games=16).collect(0)
        Search(table, SearchConfig(simulations=400), seed=i).collect()
    assert rss_mib() - after_warm_up < 4
