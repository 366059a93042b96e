# SPDX-License-Identifier: Apache-2.0
"""How fast the rules are: random playouts on one core beside OpenSpiel's, and determinizations in mid-round."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Final

from mcts_ext._bench import random_playouts
from mcts_ext._testing import determinize_many
from perf.bench import openspiel
from perf.bench.deals import CARDS, N_MOVES, PLAYERS, deals, mid_round
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result, figure_table, interleave, rate

SEED: Final = 20


@dataclass(frozen=True)
class Sizes:
    """How much is timed."""

    repeats: int
    seconds: float
    """Of each case in each repeat."""
    deals: int = 16
    playouts: int = 500
    """From one deal before the next deal's turn."""
    mid_round: int = 64
    """Positions that determinizations start from."""


FULL: Final = Sizes(repeats=11, seconds=1.0)
QUICK: Final = Sizes(repeats=MIN_REPEATS, seconds=0.4)


def run(plan: Plan, sizes: Sizes | None = None) -> Result:
    """Rates of one thread, in processor time, over the same deals on both sides."""
    sizes = sizes or (QUICK if plan.quick else FULL)
    plan.say(f"random playouts of {PLAYERS} x {CARDS} cards, {N_MOVES} moves each, beside OpenSpiel's")
    found = interleave(
        {
            "ours": partial(rate, _playouts(sizes), seconds=sizes.seconds),
            "openspiel": partial(rate, _openspiel_playouts(sizes), seconds=sizes.seconds),
            "determinizations": partial(rate, _determinizations(sizes), seconds=sizes.seconds),
        },
        repeats=sizes.repeats,
    )
    ours, theirs = found["ours"], found["openspiel"]
    figures = {
        "playouts_per_s": Figure.of(ours),
        "openspiel_playouts_per_s": Figure.of(theirs),
        "ratio": Figure.of([a / b for a, b in zip(ours, theirs, strict=True)]),
        "determinization_us": Figure.of([1e6 / value for value in found["determinizations"]]),
    }
    point = {name: figures[name].median for name in ("playouts_per_s", "openspiel_playouts_per_s", "ratio")}
    return Result(
        level="engine",
        config={"players": PLAYERS, "cards": CARDS, "moves": N_MOVES, "deals": sizes.deals, "seed": SEED},
        repeats=sizes.repeats,
        figures=figures,
        points=[{"players": PLAYERS, "cards": CARDS, **point}],
        tables=[figure_table("engine, one core", figures)],
        notes=["OpenSpiel's rollouts are those of its C++ RandomRolloutEvaluator, run by an MCTSBot of one simulation"],
    )


def _playouts(sizes: Sizes) -> Callable[[], float]:
    """Playouts from the next deal; returns how many."""
    tables = cycle(enumerate(deals(sizes.deals, seed=SEED)))

    def work() -> float:
        seed, table = next(tables)
        return random_playouts(table, sizes.playouts, seed=seed) / N_MOVES

    return work


def _openspiel_playouts(sizes: Sizes) -> Callable[[], float]:
    states = [openspiel.dealt(table) for table in deals(sizes.deals, seed=SEED)]
    bot = openspiel.searcher(states[0], simulations=1, c_puct=1.0, seed=SEED, rollouts=sizes.playouts)
    order = cycle(states)

    def work() -> float:
        bot.mcts_search(next(order))
        return sizes.playouts

    return work


def _determinizations(sizes: Sizes) -> Callable[[], float]:
    tables = cycle(enumerate(mid_round(sizes.mid_round, seed=SEED)))

    def work() -> float:
        seed, table = next(tables)
        assert table.seat_to_act is not None  # in mid-round
        determinize_many(table, table.seat_to_act, sizes.playouts, seed=seed)
        return sizes.playouts

    return work
