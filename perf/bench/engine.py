# SPDX-License-Identifier: Apache-2.0
"""Speed of the rules: random playouts on one core beside OpenSpiel's, and determinizations in mid-round."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Final, TypeVar

from mcts_ext._bench import random_playouts
from mcts_ext._testing import determinize_many
from mcts_ext.rules import Round
from perf.bench import openspiel
from perf.bench.deals import CARDS, N_MOVES, PLAYERS, SEED, deals, mid_round
from perf.bench.measure import Figure, Plan, Result, figure_table, interleave, rate

N_DEALS: Final = 16
N_PLAYOUTS: Final = 500
"""Playouts from one deal before the next deal's turn, and determinizations of one position."""
N_MID_ROUND: Final = 64
"""Number of positions that are determinized."""

Position = TypeVar("Position")


def run(plan: Plan) -> Result:
    """Measure the rates of one thread, in CPU time; both sides play the same deals."""
    plan.say(f"random playouts of {PLAYERS} x {CARDS} cards, {N_MOVES} moves each, beside OpenSpiel's")
    start = deals(N_DEALS, seed=SEED)
    states = [openspiel.dealt(one) for one in start]
    bot = openspiel.searcher(states[0], simulations=1, c_puct=1.0, seed=SEED, rollouts=N_PLAYOUTS)

    def openspiel_playouts(_seed: int, state: object) -> float:
        bot.mcts_search(state)
        return N_PLAYOUTS

    works = {
        "ours": _in_turns(_playouts, start),
        "openspiel": _in_turns(openspiel_playouts, states),
        "determinizations": _in_turns(_determinizations, mid_round(N_MID_ROUND, seed=SEED)),
    }
    found = interleave(
        {name: partial(rate, work, seconds=plan.seconds) for name, work in works.items()}, repeats=plan.repeats
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
        config={"players": PLAYERS, "cards": CARDS, "moves": N_MOVES, "deals": N_DEALS, "seed": SEED},
        repeats=plan.repeats,
        figures=figures,
        points=[{"players": PLAYERS, "cards": CARDS, **point}],
        tables=[figure_table("engine, one core", figures)],
        notes=["OpenSpiel's rollouts are those of its C++ RandomRolloutEvaluator, run by an MCTSBot of one simulation"],
    )


def _in_turns(work: Callable[[int, Position], float], positions: Sequence[Position]) -> Callable[[], float]:
    """Return a function that does one unit of work on the next position, seeded with the position's index."""
    turns = cycle(enumerate(positions))
    return lambda: work(*next(turns))


def _playouts(seed: int, position: Round) -> float:
    return random_playouts(position, N_PLAYOUTS, seed=seed) / N_MOVES


def _determinizations(seed: int, position: Round) -> float:
    assert position.seat_to_act is not None  # in mid-round
    determinize_many(position, position.seat_to_act, N_PLAYOUTS, seed=seed)
    return N_PLAYOUTS
