# SPDX-License-Identifier: Apache-2.0
"""The benchmarks do the work that they count, and leave the keys that scripts read."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from clients.evaluator import HashEvaluator
from mcts_ext._bench import FreeSearch, random_playouts
from mcts_ext.contract import FIRST_CARD_ACTION
from mcts_ext.rules import Round
from perf.bench import engine, openspiel, quality, search
from perf.bench.deals import N_MOVES, deals, mid_round
from perf.bench.measure import FULL, MIN_REPEATS, Figure, Plan, Result, interleave, rate


def silent(text: str) -> None:
    """Nobody reads the progress."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(quick=True, say=silent, out=tmp_path)


def read_back(result: Result) -> dict[str, Any]:
    """As scripts see it."""
    found: dict[str, Any] = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert found["machine"]["cores"] >= 1
    assert found["commit"]
    assert found["repeats"] == result.repeats
    for name, (low, high) in found["spread"].items():
        assert low <= found[name] <= high
    return found


def test_figures_are_medians_with_their_range() -> None:
    assert Figure.of([3.0, 1.0, 2.0, 10.0, 2.5]) == Figure(2.5, 1.0, 10.0)


def test_cases_take_turns() -> None:
    order: list[str] = []
    cases = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert interleave(cases, repeats=3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert order == ["a", "b"] * 3


def test_a_rate_counts_what_the_work_says() -> None:
    assert rate(lambda: 1000.0, seconds=0.01) == pytest.approx(1000 * rate(lambda: 1.0, seconds=0.01), rel=0.9)


@pytest.mark.parametrize(("players", "cards"), [(4, 5), (3, 1), (8, 6)])
def test_a_playout_makes_every_move(players: int, cards: int) -> None:
    table = Round.deal(players, cards, 1, 2, 3)
    assert random_playouts(table, 7, seed=4) == 7 * players * (1 + cards)
    table.apply(table.legal_actions()[0])
    assert random_playouts(table, 7, seed=4) == 7 * (players * (1 + cards) - 1)


def test_positions_in_mid_round() -> None:
    tables = mid_round(64, seed=5)
    assert all(not table.is_bidding and not table.is_over for table in tables)
    n_tricks = {len(table.tricks) for table in tables}
    assert n_tricks <= {1, 2, 3, 4, 5}
    assert len(n_tricks) > 2


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(("n_trees", "simulations"), [(1, 1), (1, 300), (5, 40)])
def test_a_free_search_makes_its_simulations(random: bool, n_trees: int, simulations: int) -> None:
    trees = FreeSearch(
        deals(3, seed=6),
        n_trees=n_trees,
        simulations=simulations,
        seed=7,
        random=random,
        c_puct=1.5,
        fpu_reduction=0.1,
    )
    for n in (1, 4):
        assert trees.run(n) == n * n_trees * simulations
        trees.check()


def test_openspiel_has_the_same_deal() -> None:
    random = Random(8)
    for table in deals(40, seed=9):
        state = openspiel.dealt(table)
        while not table.is_over:
            assert state.current_player() == table.seat_to_act
            ours = {their_action(action): action for action in table.legal_actions()}
            assert sorted(state.legal_actions()) == sorted(ours)
            chosen = random.choice(sorted(ours))
            state.apply_action(chosen)
            table.apply(ours[chosen])
        assert state.is_terminal()


def their_action(action: int) -> int:
    """Bids after the cards, cards by rank first, suits as clubs, diamonds, spades, hearts."""
    if action < FIRST_CARD_ACTION:
        return 52 + action
    suit, rank = divmod(action - FIRST_CARD_ACTION, 13)
    return 4 * rank + (2, 3, 0, 1)[suit]


def test_openspiel_evaluates_every_simulation_once() -> None:
    state = openspiel.dealt(deals(1, seed=10)[0])
    root = openspiel.searcher(state, simulations=60, c_puct=1.5, seed=11).mcts_search(state)
    assert root.explore_count == 60
    assert len(openspiel.evaluated(root, state)) == 60
    one = openspiel.searcher(state, simulations=1, c_puct=1.5, seed=11, rollouts=30).mcts_search(state)
    assert len(openspiel.evaluated(one, state)) == 1


def test_engine(plan: Plan) -> None:
    found = read_back(engine.run(replace(plan, seconds=0.01)))
    for name in ("playouts_per_s", "openspiel_playouts_per_s", "ratio", "determinization_us"):
        assert 0 < found[name] < math.inf
    assert [set(point) for point in found["points"]] == [
        {"players", "cards", "playouts_per_s", "openspiel_playouts_per_s", "ratio"}
    ]
    assert found["config"]["moves"] == N_MOVES == 24
    assert found["ratio"] > 1  # 14 measured


def test_search(plan: Plan) -> None:
    found = read_back(search.run(replace(plan, seconds=0.01), simulations=(10, 40), trees=(1, 8)))
    cases = {(point["evaluator"], point["simulations"], point["trees"]): point for point in found["points"]}
    assert set(cases) == {(e, k, t) for e in ("constant", "random") for k in (10, 40) for t in (1, 8)}
    for point in cases.values():
        assert 0 < point["ns_per_simulation"] < point["openspiel_ns_per_simulation"] < math.inf
        assert point["openspiel_without_rollout_ns"] < point["openspiel_ns_per_simulation"]
        assert math.isfinite(point["ratio"])
    headline = cases[tuple(found["config"]["headline"].values())]
    assert headline["trees"] == 1
    alone = [point["ns_per_simulation"] for point in cases.values() if point["trees"] == 1]
    assert found["ns_per_simulation"] == headline["ns_per_simulation"] == max(alone)
    assert found["ratio"] == headline["ratio"]
    assert found["openspiel_ns_per_simulation"] == headline["openspiel_ns_per_simulation"]
    together = [point["ns_per_simulation"] for point in cases.values() if point["trees"] == 8]
    assert found["ns_per_simulation_8_trees"] == max(together)


def test_the_sizes_that_scripts_know() -> None:
    assert (search.SIMULATIONS, search.TREES) == ((100, 800), (1, 256))
    assert min(plan.repeats for plan in (FULL, Plan(quick=True))) >= 5
    assert MIN_REPEATS >= 5


def test_quality(plan: Plan) -> None:
    found = read_back(quality.measure(plan, HashEvaluator(), network="none", n_compared=1, n_played=2))
    points = {point["leaves_per_tree"]: point for point in found["points"]}
    assert list(points) == [1, 4, 8, 30]
    assert (points[1]["move_agreement"], points[1]["policy_tv"]) == (1.0, 0.0)
    for point in found["points"]:
        assert 0 < point["rounds_per_min"] < math.inf
        assert 0 <= point["policy_tv"] <= 1
        assert 0 <= point["move_agreement"] <= 1
    assert points[4]["policy_tv"] > 0
    assert found["control_policy_tv"] > 0
    # Sequentially most of 3 x 30 simulations ask for a row; 30 leaves at once can ask for the root's children only.
    assert points[1]["evaluations_per_decision"] > 2 * points[30]["evaluations_per_decision"]
    assert points[30]["evaluations_per_decision"] <= 1 + 3 * 6
    assert found["config"]["decisions"] > 5 * 10


def test_the_same_decisions_are_compared_again() -> None:
    once, again, other = (quality.compare(HashEvaluator(), rounds=2, seed=seed) for seed in (1, 1, 2))
    assert once == again != other
    assert len({len(differences) for differences in once.values()}) == 1
    assert all(one == quality.Difference(True, 0.0, one.evaluations) for one in once[1])


def test_bench_writes_what_it_prints(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "blobzero.cli", "bench", "engine", "--quick", "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "engine.json").read_text())
    assert {"level", "machine", "commit", "config", "repeats", "spread", "playouts_per_s", "ratio"} <= set(printed)
    assert printed["repeats"] >= 5


def test_bench_names_a_folder_it_cannot_write() -> None:
    command = [sys.executable, "-m", "blobzero.cli", "bench", "engine", "--out", "/proc/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("blobzero: expected a folder to write at /proc/nowhere")
