# SPDX-License-Identifier: Apache-2.0
"""What the tree costs: nanoseconds per simulation with an evaluator that costs nothing, beside OpenSpiel's MCTSBot.

Both search all hands open from the deal with PUCT and the same exploration. OpenSpiel's wheel has no evaluator in C++
but a random rollout, so its simulations are given twice: whole, and less the rollouts. These are timed on the very
positions that its search evaluated, right after it. The ratio is that of the smaller figure to ours: above 1 ours is
faster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any, Final, NamedTuple

from rich.table import Table

from mcts_ext._bench import FreeSearch
from mcts_ext.config import SearchConfig
from perf.bench import openspiel
from perf.bench.deals import CARDS, PLAYERS, deals
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result, interleave, rate

SEED: Final = 20
ROLLOUTS: Final = 8
"""From each evaluated position when rollouts are timed. Repeated ones find their memory warm and take less than those
of a search, but the call from Python counts among them: fewer would subtract too much, more too little."""
POSITIONS: Final = 100
"""Evaluated positions that rollouts are timed on, at most, after each search."""


@dataclass(frozen=True)
class Sizes:
    """How much is timed."""

    repeats: int
    seconds: float
    """Of each case in each repeat."""
    simulations: tuple[int, ...] = (100, 800)
    trees: tuple[int, ...] = (1, 256)
    deals: int = 16


FULL: Final = Sizes(repeats=11, seconds=1.0)
QUICK: Final = Sizes(repeats=MIN_REPEATS, seconds=0.25)


class Case(NamedTuple):
    """What our search does."""

    evaluator: str
    simulations: int
    trees: int


class Peer(NamedTuple):
    """OpenSpiel's nanoseconds per simulation."""

    whole: float
    without_rollout: float


def run(plan: Plan, sizes: Sizes | None = None) -> Result:
    """Every case, and OpenSpiel at the same numbers of simulations, in turns; processor time of one thread."""
    sizes = sizes or (QUICK if plan.quick else FULL)
    plan.say(f"searches of {PLAYERS} x {CARDS} cards from the deal, all hands open, beside OpenSpiel's")
    cases = [Case(e, k, t) for e in ("constant", "random") for k in sizes.simulations for t in sizes.trees]
    runs: dict[Case | int, Callable[[], Peer | float]] = {case: _ours(case, sizes) for case in cases}
    runs |= {simulations: _openspiel(simulations, sizes) for simulations in sizes.simulations}
    found: Any = interleave(runs, repeats=sizes.repeats)
    peers: dict[int, list[Peer]] = {simulations: found[simulations] for simulations in sizes.simulations}
    all_figures = {case: _figures(found[case], peers[case.simulations]) for case in cases}

    def slowest(trees: int) -> Case:
        some = [case for case in cases if case.trees == trees]
        return max(some, key=lambda case: all_figures[case]["ns_per_simulation"].median)

    alone, side_by_side = (slowest(trees) for trees in (min(sizes.trees), max(sizes.trees)))
    search = SearchConfig()
    return Result(
        level="search",
        config={
            "players": PLAYERS, "cards": CARDS, "deals": sizes.deals, "seed": SEED, "c_puct": search.c_puct,
            "fpu_reduction": search.fpu_reduction, "headline": alone._asdict(),
            f"headline_{side_by_side.trees}_trees": side_by_side._asdict(),
        },
        repeats=sizes.repeats,
        figures={
            **all_figures[alone],
            f"ns_per_simulation_{side_by_side.trees}_trees": all_figures[side_by_side]["ns_per_simulation"],
        },
        points=[
            {**case._asdict(), **{name: figure.median for name, figure in figures.items()}}
            for case, figures in all_figures.items()
        ],
        tables=[_table(all_figures)],
        notes=[
            "OpenSpiel's wheel evaluates by a random rollout only; the ratio compares its time less that of rollouts "
            "from the same positions, a small difference of two large times: trust it to a factor of 2, and see the "
            "medians rather than the ranges",
            "OpenSpiel searches one tree at a time; cases of several trees are compared with that",
        ],
    )  # fmt: skip


def _figures(ours: list[float], peers: list[Peer]) -> dict[str, Figure]:
    """By the names that scripts read."""
    return {
        "ns_per_simulation": Figure.of(ours),
        "openspiel_ns_per_simulation": Figure.of([peer.whole for peer in peers]),
        "openspiel_without_rollout_ns": Figure.of([peer.without_rollout for peer in peers]),
        "ratio": Figure.of([peer.without_rollout / own for own, peer in zip(ours, peers, strict=True)]),
    }


def _ours(case: Case, sizes: Sizes) -> Callable[[], float]:
    """Times one case."""
    search = SearchConfig()
    trees = FreeSearch(
        deals(sizes.deals, seed=SEED),
        n_trees=case.trees,
        simulations=case.simulations,
        seed=SEED,
        random=case.evaluator == "random",
        c_puct=search.c_puct,
        fpu_reduction=search.fpu_reduction,
    )
    trees.run(1)  # touches its memory

    def timed() -> float:
        return 1e9 / rate(lambda: trees.run(1 if case.trees > 1 else 10), seconds=sizes.seconds)

    return timed


def _openspiel(simulations: int, sizes: Sizes) -> Callable[[], Peer]:
    """Times searches, and after each one the rollouts from positions that it evaluated."""
    states = [openspiel.dealt(table) for table in deals(sizes.deals, seed=SEED)]
    order = cycle(states)
    random = Random(SEED)
    c_puct = SearchConfig().c_puct
    bot = openspiel.searcher(states[0], simulations=simulations, c_puct=c_puct, seed=SEED)
    rollouts = openspiel.searcher(states[0], simulations=1, c_puct=c_puct, seed=SEED, rollouts=ROLLOUTS)

    def timed() -> Peer:
        in_search = in_rollouts = 0.0
        n_searches = n_evaluated = n_rollouts = 0
        while in_search + in_rollouts < sizes.seconds:
            state = next(order)
            start = time.thread_time()
            root = bot.mcts_search(state)
            in_search += time.thread_time() - start
            n_searches += 1
            found = openspiel.evaluated(root, state)
            n_evaluated += len(found)
            some = random.sample(found, min(POSITIONS, len(found)))
            start = time.thread_time()
            for position in some:
                rollouts.mcts_search(position)
            in_rollouts += time.thread_time() - start
            n_rollouts += len(some) * ROLLOUTS
        n_simulations = n_searches * simulations
        share = n_evaluated / n_simulations  # a simulation that ends the round has no rollout
        whole = in_search / n_simulations
        return Peer(1e9 * whole, 1e9 * (whole - share * in_rollouts / n_rollouts))

    return timed


def _table(all_figures: dict[Case, dict[str, Figure]]) -> Table:
    table = Table(
        "evaluator", "simulations", "trees", "ours", "OpenSpiel", "less rollouts", "ratio",
        title="Nanoseconds per simulation with a free evaluator, one core",
        caption="medians; ratio: OpenSpiel's less its rollouts to ours",
    )  # fmt: skip
    for case, figures in all_figures.items():
        ours, whole, without, ratio = (figure.median for figure in figures.values())
        table.add_row(
            case.evaluator, str(case.simulations), str(case.trees),
            f"{ours:.0f}", f"{whole:,.0f}", f"{without:,.0f}", f"{ratio:.1f}",
        )  # fmt: skip
    return table
