# SPDX-License-Identifier: Apache-2.0
"""Cost of the tree: nanoseconds per simulation with an evaluator that costs nothing, beside OpenSpiel's MCTSBot.

Both search all hands open from the deal with PUCT and the same exploration. OpenSpiel's wheel has no C++ evaluator but
a random rollout, so the time of its simulations is given with and without rollouts. The rollouts are timed right after
the search, on the positions that it evaluated. The ratio is that of the time without rollouts to ours: above 1, ours is
faster.
"""

import time
from collections.abc import Callable
from itertools import cycle
from random import Random
from typing import Any, Final, NamedTuple

from rich.table import Table

from mcts_ext._bench import FreeSearch
from mcts_ext.config import SearchConfig
from perf.bench import openspiel
from perf.bench.deals import CARDS, PLAYERS, SEED, deals
from perf.bench.measure import Figure, Plan, Result, interleave, rate
from ui.console import new_table

SIMULATIONS: Final = (100, 800)
TREES: Final = (1, 256)
N_DEALS: Final = 16
ROLLOUTS: Final = 8
"""Rollouts per timed position. Repeated ones find their memory warm and take less time than those of a search, but the
call from Python counts as well: with fewer, too much would be subtracted, with more, too little."""
MAX_POSITIONS: Final = 100
"""Number of positions, at most, whose rollouts are timed after each search."""


class SearchCase(NamedTuple):
    """Our search in one case."""

    evaluator: str
    simulations: int
    trees: int


class Peer(NamedTuple):
    """OpenSpiel's nanoseconds per simulation."""

    whole: float
    without_rollout: float


def run(plan: Plan, *, simulations: tuple[int, ...] = SIMULATIONS, trees: tuple[int, ...] = TREES) -> Result:
    """Time every case in turns with OpenSpiel at the same numbers of simulations, in CPU time of one thread."""
    plan.say(f"searches of {PLAYERS} x {CARDS} cards from the deal, all hands open, beside OpenSpiel's")
    cases = [SearchCase(e, k, t) for e in ("constant", "random") for k in simulations for t in trees]
    runs: dict[SearchCase | int, Callable[[], Peer | float]] = {case: _ours(case, plan.seconds) for case in cases}
    runs |= {k: _openspiel(k, plan.seconds) for k in simulations}
    found: Any = interleave(runs, repeats=plan.repeats)
    all_figures = {case: _figures(found[case], found[case.simulations]) for case in cases}

    def slowest(n_trees: int) -> SearchCase:
        some = [case for case in cases if case.trees == n_trees]
        return max(some, key=lambda case: all_figures[case]["ns_per_simulation"].median)

    alone, side_by_side = slowest(min(trees)), slowest(max(trees))
    search = SearchConfig()
    return Result(
        level="search",
        config={
            "players": PLAYERS, "cards": CARDS, "deals": N_DEALS, "seed": SEED, "c_puct": search.c_puct,
            "fpu_reduction": search.fpu_reduction, "headline": alone._asdict(),
            f"headline_{side_by_side.trees}_trees": side_by_side._asdict(),
        },
        repeats=plan.repeats,
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
            "OpenSpiel's wheel evaluates by a random rollout only; the ratio compares its time without rollouts, the "
            "small difference of two large times: trust it to a factor of 2, and the medians rather than the ranges",
            "OpenSpiel searches one tree at a time; cases of several trees are compared with that",
        ],
    )  # fmt: skip


def _figures(ours: list[float], peers: list[Peer]) -> dict[str, Figure]:
    """Return the figures of a case by the names that scripts read."""
    return {
        "ns_per_simulation": Figure.of(ours),
        "openspiel_ns_per_simulation": Figure.of([peer.whole for peer in peers]),
        "openspiel_without_rollout_ns": Figure.of([peer.without_rollout for peer in peers]),
        "ratio": Figure.of([peer.without_rollout / own for own, peer in zip(ours, peers, strict=True)]),
    }


def _ours(case: SearchCase, seconds: float) -> Callable[[], float]:
    """Return a function that times one case."""
    search = SearchConfig()
    trees = FreeSearch(
        deals(N_DEALS, seed=SEED),
        n_trees=case.trees,
        simulations=case.simulations,
        seed=SEED,
        random=case.evaluator == "random",
        c_puct=search.c_puct,
        fpu_reduction=search.fpu_reduction,
    )
    trees.run(1)  # touches its memory
    return lambda: 1e9 / rate(lambda: trees.run(1 if case.trees > 1 else 10), seconds=seconds)


def _openspiel(simulations: int, seconds: float) -> Callable[[], Peer]:
    """Return a function that times searches and, after each, rollouts from positions that it evaluated."""
    states = [openspiel.dealt(one) for one in deals(N_DEALS, seed=SEED)]
    order = cycle(states)
    random = Random(SEED)
    c_puct = SearchConfig().c_puct
    bot = openspiel.searcher(states[0], simulations=simulations, c_puct=c_puct, seed=SEED)
    rollouts = openspiel.searcher(states[0], simulations=1, c_puct=c_puct, seed=SEED, rollouts=ROLLOUTS)

    def timed() -> Peer:
        in_search = in_rollouts = 0.0
        n_simulations = n_evaluated = n_rollouts = 0
        while in_search + in_rollouts < seconds:
            state = next(order)
            start = time.thread_time()
            root = bot.mcts_search(state)
            in_search += time.thread_time() - start
            n_simulations += simulations
            found = openspiel.evaluated(root, state)
            n_evaluated += len(found)
            some = random.sample(found, min(MAX_POSITIONS, len(found)))
            start = time.thread_time()
            for position in some:
                rollouts.mcts_search(position)
            in_rollouts += time.thread_time() - start
            n_rollouts += len(some) * ROLLOUTS
        share = n_evaluated / n_simulations  # a simulation that ends the round has no rollout
        whole = in_search / n_simulations
        return Peer(1e9 * whole, 1e9 * (whole - share * in_rollouts / n_rollouts))

    return timed


def _table(all_figures: dict[SearchCase, dict[str, Figure]]) -> Table:
    table = new_table(
        "Nanoseconds per simulation with a free evaluator, one core",
        "evaluator", "simulations", "trees", "ours", "OpenSpiel", "less rollouts", "ratio", left=("evaluator",),
    )  # fmt: skip
    table.caption = "medians; ratio: OpenSpiel's less its rollouts to ours"
    for case, figures in all_figures.items():
        ours, whole, without, ratio = (figure.median for figure in figures.values())
        table.add_row(*map(str, case), f"{ours:.0f}", f"{whole:,.0f}", f"{without:,.0f}", f"{ratio:.1f}")
    return table
