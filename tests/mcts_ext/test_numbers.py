# SPDX-License-Identifier: Apache-2.0
"""Numbers at the edge of float32, and seeds given twice: priors, policies and records stay sound."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mcts_ext._testing import check_one
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.determinize import determinized
from mcts_ext.pool import SelfPlayPool
from mcts_ext.rules import Round
from mcts_ext.search import Search
from tests.support.evaluators import Answer, Evaluate, run_pool, run_search

EXTREMES = np.array(
    [-3.4e38, -1.1e30, -1e30, -1e4, -104.0, -1.0, -1e-38, -1e-45, 0.0, 1e-45, 1e-38, 1.0, 88.0, 1e4, 1e30, 3.4e38],
    np.float32,
)


def extreme(observations: NDArray[np.uint8], kind: int) -> Answer:
    """Fixed by the row: logits and values of one kind of edge."""
    random = np.random.default_rng(int(observations.astype(np.uint64).sum()))
    n = len(observations)
    values = random.choice(np.array([0.0, 1e-45, 1e-38, 0.5, 1.0, -3e38, 3e38], np.float32), (n, 8))
    if kind == 0:
        return random.choice(EXTREMES, (n, 66)), values
    if kind == 1:
        return np.full((n, 66), random.choice(EXTREMES), np.float32), values
    logits = np.full((n, 66), -3.4e38, np.float32)  # one action stands out, all others have no prior at all
    logits[np.arange(n), random.integers(0, 66, n)] = 3.4e38
    return logits, values


def flat(logit: float) -> Evaluate:
    """The same logit for every action, and no points for anybody."""
    return lambda rows: (np.full((len(rows), 66), logit, np.float32), np.zeros((len(rows), 8), np.float32))


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("c_puct", [0.0, 1.5, 100.0])
@pytest.mark.parametrize("q_scale", [0.0, 1e-30, 20.0, 10_000.0])
def test_no_finite_answer_makes_a_policy_that_is_none(kind: int, c_puct: float, q_scale: float) -> None:
    search = SearchConfig(
        determinizations=2, simulations=9, c_puct=c_puct, q_scale=q_scale, even_root=kind == 2, dirichlet_fraction=0.0
    )
    deal = DealConfig(players=(3, 5), cards=(1, 4, 9))
    pool = SelfPlayPool(range(12), seed=kind, deal=deal, search=search, n_games=5)
    records = run_pool(pool, lambda rows: extreme(rows, kind), check_every=1)
    assert len(records) > 100
    assert np.isfinite(records.policy).all()
    assert (records.policy >= 0).all()
    assert np.abs(records.policy.sum(axis=1) - 1).max() < 1e-5
    assert (records.policy[np.arange(len(records)), records.action] > 0).all()


def test_priors_are_the_softmax_whatever_the_size_of_the_logits() -> None:
    """One simulation goes to the likeliest action; with all logits equal, far down, it goes to the first."""
    table = Round.deal(4, 5, 0, 1, 3)
    config = SearchConfig(determinizations=1, simulations=1, dirichlet_fraction=0.0, q_scale=1e-6)
    for shift in (0.0, -1e30, -3e38, 3e38):
        search = Search(table, config, seed=1)
        run_search(search, flat(shift))
        assert list(search.policy().values()) == pytest.approx([1 / 6] * 6, rel=1e-4)


@pytest.mark.parametrize("q_scale", [0.0, 10.0])
def test_a_policy_before_the_first_visit_is_even(q_scale: float) -> None:
    table = Round.deal(4, 5, 0, 1, 3)
    search = Search(table, SearchConfig(q_scale=q_scale), seed=1)
    assert list(search.policy().values()) == pytest.approx([1 / 6] * 6)
    assert search.collect() == 3
    assert list(search.policy().values()) == pytest.approx([1 / 6] * 6)
    assert search.values() == {}


NAN = float("nan")
HALF, VALUES = [0.5, 0.5], [0.25] * 8


@pytest.mark.parametrize(
    ("priors", "value", "values", "says"),
    [
        ([NAN, 0.5], 0.5, VALUES, "prior nan"),
        ([NAN, NAN], 0.5, VALUES, "prior nan"),
        ([-0.5, 1.5], 0.5, VALUES, "prior -0.5"),
        ([float("inf"), 0.5], 0.5, VALUES, "prior inf"),
        ([0.5, 0.4], 0.5, VALUES, "sum to 0.9"),
        (HALF, NAN, VALUES, "value nan"),
        (HALF, 1.5, VALUES, "value 1.5"),
        (HALF, 0.5, [NAN] * 8, "value sum nan"),
        (HALF, 0.5, [2.0] * 8, "value sum 2"),
    ],
)
def test_check_tree_sees_what_is_no_number(priors: list[float], value: float, values: list[float], says: str) -> None:
    table = Round.deal(4, 1, 0, 1, 3)
    assert len(table.legal_actions()) == 2
    check_one(table, HALF, 0.5, VALUES)
    with pytest.raises(ValueError, match=says):
        check_one(table, priors, value, values)


@pytest.mark.parametrize("alpha", [0.001, 0.01])
def test_root_noise_of_a_small_alpha_falls_on_one_action(alpha: float) -> None:
    """All of it, nearly always: with nothing but noise at the root, every tree's visits go where the noise is."""
    table = Round.deal(4, 5, 0, 1, 3)
    config = SearchConfig(
        determinizations=1, simulations=40, dirichlet_fraction=1.0, dirichlet_alpha=alpha, c_puct=100.0
    )
    n_one = 0
    for seed in range(200):
        search = Search(table, config, seed=seed)
        visits = run_search(search, flat(0.0))
        n_one += max(visits.values()) >= 35
    assert n_one > 180


SEEDS = 400


def n_same(one: Round, other: Round, seats: range) -> int:
    """Cards that both deals give to the same seat."""
    return sum(len(set(one.hands[seat]) & set(other.hands[seat])) for seat in seats)


def test_one_seed_for_deal_search_and_determinization_tells_nothing() -> None:
    """A search is given the seed that its round was dealt with: it finds the hidden cards no more often than chance.

    15 of the 47 cards that seat 1 cannot see lie with the others, five with each: one hidden hand has five in common
    with another draw of itself with a mean of 25 / 47. The counts are within 5 standard errors of that.
    """
    quiet = SearchConfig(determinizations=1, simulations=1, dirichlet_fraction=0.0)
    found: dict[str, list[int]] = {"search": [], "determinized": [], "both": [], "candidates": []}
    for seed in range(SEEDS):
        table = Round.deal(4, 5, 0, None, seed)
        drawn = Search(table, quiet, seed=seed).deals()[0]
        twin = determinized(table, 1, seed=seed)
        weighed = Search(table, SearchConfig(determinizations=1, candidates=1, dirichlet_fraction=0.0), seed=seed)
        weighed.collect()
        found["search"].append(n_same(table, drawn, range(2, 4)))
        found["determinized"].append(n_same(table, twin, range(2, 4)))
        found["both"].append(n_same(drawn, twin, range(2, 4)))
        found["candidates"].append(n_same(table, weighed.deals()[0], range(2, 4)))
    for counts in found.values():
        assert abs(np.mean(counts) - 2 * 25 / 47) < 5 * np.std(counts) / SEEDS**0.5


def test_one_seed_for_a_run_and_a_deal_gives_other_cards() -> None:
    """Round 0 of a run, of either unit, and `Round.deal` of the same seed."""
    n_equal = 0
    for seed in range(50):
        dealt = Round.deal(4, 5, 0, None, seed)
        hands = []
        for unit in ("round", "game"):
            deal = DealConfig(unit=unit)  # type: ignore[arg-type]
            pool = SelfPlayPool([0], seed=seed, deal=deal, search=SearchConfig(determinizations=1, simulations=1))
            pool.collect(0)
            row = pool.observations(0)[0]
            hands.append(sorted(np.flatnonzero(row[44:] == 1).tolist()))
        n_equal += hands[0] == hands[1] or any(hand in dealt.hands for hand in hands)
    assert n_equal == 0


def test_seeds_of_any_size_and_sign_are_taken_everywhere() -> None:
    table = Round.deal(4, 5, 0, 1, -(2**70) - 5)
    for seed in (-1, 2**64 - 1, 2**200, np.int64(-3), np.uint64(2**63)):
        search = Search(table, SearchConfig(determinizations=1), seed=int(seed))
        assert search.deals()[0].hands == Search(table, SearchConfig(determinizations=1), seed=seed).deals()[0].hands  # type: ignore[arg-type]
        assert determinized(table, 2, seed=int(seed)).hands == determinized(table, 2, seed=seed).hands  # type: ignore[arg-type]
    assert determinized(table, 2, seed=-1).hands == determinized(table, 2, seed=2**64 - 1).hands
