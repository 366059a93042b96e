# SPDX-License-Identifier: Apache-2.0
"""Cost of several leaves in flight: how far the visit distribution moves away from that of a sequential search.

With L leaves of a tree in flight, the search selects L times before it learns anything. Every decision of seeded rounds
is searched with each L on the same determinizations, without root noise, and compared with the sequential search, whose
visits also decide the moves. There are two controls: the sequential search once more, which must not differ at all, and
one on other determinizations, which shows the effect of chance alone.

To an untrained network all moves are about equal, so the search matters little. Therefore everything is also compared
with HashEvaluator, whose opinions are strong and arbitrary.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from random import Random
from statistics import fmean
from threading import Event
from typing import Final, NamedTuple

from rich.table import Table

from clients.arena.searching import finish
from clients.evaluator import Evaluator, HashEvaluator
from clients.local import LocalEvaluator, latest_model_file
from clients.selfplay.worker import play
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import MODEL_NAME
from mcts_ext.pool import SelfPlayPool
from mcts_ext.rules import Round
from mcts_ext.search import Search
from perf.bench.deals import CARDS, PLAYERS, SEED, deals
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result, interleave
from perf.bench.served import served_repository
from ui.console import new_table

LEAVES: Final = (1, 4, 8, 30)
SEQUENTIAL: Final = SearchConfig(determinizations=3, simulations=30, leaves_per_tree=1)


class Difference(NamedTuple):
    """Difference of one search from the sequential search of the same decision."""

    same_move: bool
    """Whether the most visited action is the same; ties go to the first."""
    distance: float
    """Total variation between the visit distributions: 0 if equal, 1 if disjoint."""
    evaluations: int
    """Number of positions evaluated."""


Way = int | str
"""Leaves in flight, or the control."""
CONTROL: Final = "control"
WAYS: Final[tuple[Way, ...]] = (*LEAVES, CONTROL)


def run(plan: Plan) -> Result:
    """Measure with the latest network of the repository."""
    with served_repository(plan.say) as repository:
        path = latest_model_file(repository, MODEL_NAME)
        with LocalEvaluator(path, on_event=plan.say) as evaluator:
            compared, played = (3, 6) if plan.quick else (16, 96)
            return measure(plan, evaluator, network=str(path), n_compared=compared, n_played=played)


def measure(plan: Plan, evaluator: Evaluator, *, network: str, n_compared: int, n_played: int) -> Result:
    """Compare the searches, and time self-play with each on one core.

    Args:
        n_compared: number of rounds per repeat whose decisions are searched in every way.
        n_played: number of concurrent rounds of self-play.
    """
    judges = {"": evaluator, "opinionated_": HashEvaluator()}
    found: dict[Way, dict[str, list[list[Difference]]]] = {way: {judge: [] for judge in judges} for way in WAYS}
    for repeat in range(MIN_REPEATS):
        for judge, network_of_judge in judges.items():
            seed = SEED + 1000 * repeat
            for way, some in compare(network_of_judge, rounds=n_compared, seed=seed).items():
                found[way][judge].append(some)
        plan.say(f"compared {n_compared} rounds, {repeat + 1} of {MIN_REPEATS}")
    rates = interleave(
        {n: partial(_rounds_per_min, evaluator, leaves=n, rounds=n_played) for n in LEAVES},
        repeats=MIN_REPEATS,
    )
    cases = {way: _figures(some) for way, some in found.items()}
    for leaves in LEAVES:
        cases[leaves]["rounds_per_min"] = Figure.of(rates[leaves])
    return Result(
        level="quality",
        config={
            "players": PLAYERS, "cards": CARDS, "determinizations": SEQUENTIAL.determinizations,
            "simulations": SEQUENTIAL.simulations, "network": network, "seed": SEED,
            "decisions": sum(map(len, found[CONTROL][""])), "played_rounds": n_played,
        },
        repeats=MIN_REPEATS,
        figures={f"control_{name}": figure for name, figure in cases[CONTROL].items()},
        points=[
            {"leaves_per_tree": leaves, **{name: figure.median for name, figure in cases[leaves].items()}}
            for leaves in LEAVES
        ],
        tables=[_table(cases)],
        notes=[
            "control_*: the sequential search compared with itself on other determinizations",
            "opinionated_*: with HashEvaluator; measure again with your own network before you rely on this",
            f"with {SEQUENTIAL.simulations} leaves in flight of {SEQUENTIAL.simulations} simulations the search never "
            "leaves the root: see the number of positions evaluated",
            f"rounds/min on one core, search and network together, {n_played} concurrent rounds"
            + ("; the batches are small, which favors more leaves" if plan.quick else ""),
        ],
    )  # fmt: skip


def compare(evaluator: Evaluator, *, rounds: int, seed: int) -> dict[Way, list[Difference]]:
    """Play concurrent rounds and search each decision in every way; return the differences by way, in order."""
    random = Random(seed)
    found: dict[Way, list[Difference]] = {way: [] for way in WAYS}
    positions = deals(rounds, seed=seed)
    while positions := [position for position in positions if _skip_forced(position)]:
        seeded = [(position, random.getrandbits(63)) for position in positions]
        searches = {way: [_search(*one, way) for one in seeded] for way in WAYS}
        sequential = [_search(*one, 1) for one in seeded]
        n_evaluated = finish(evaluator, [*sequential, *(search for some in searches.values() for search in some)])
        for way, some in searches.items():
            found[way] += [_difference(*pair, n_evaluated) for pair in zip(sequential, some, strict=True)]
        for position, search in zip(positions, sequential, strict=True):
            visits = search.visits()
            position.apply(random.choices(list(visits), weights=list(visits.values()))[0])
    return found


def _skip_forced(position: Round) -> bool:
    """Play forced moves up to a choice; return whether there is one."""
    while len(legal := position.legal_actions()) == 1:
        position.apply(legal[0])
    return bool(legal)


def _search(position: Round, seed: int, way: Way) -> Search:
    if isinstance(way, int):
        return Search(position, replace(SEQUENTIAL, leaves_per_tree=way, dirichlet_fraction=0.0), seed=seed)
    return _search(position, seed + 1, 1)


def _difference(sequential: Search, other: Search, n_evaluated: Mapping[Search, int]) -> Difference:
    expected, got = sequential.visits(), other.visits()
    total = sum(expected.values())
    return Difference(
        same_move=max(expected, key=expected.__getitem__) == max(got, key=got.__getitem__),
        distance=sum(abs(n - got[action]) for action, n in expected.items()) / (2 * total),
        evaluations=n_evaluated[other],
    )


def _rounds_per_min(evaluator: Evaluator, *, leaves: int, rounds: int) -> float:
    """Play whole concurrent rounds; return their rate in CPU time of this process."""
    pool = SelfPlayPool(
        range(rounds),
        seed=SEED,
        deal=DealConfig(players=(PLAYERS,), cards=(CARDS,)),
        search=replace(SEQUENTIAL, leaves_per_tree=leaves),
        n_games=rounds,
        n_groups=1,
    )
    start = time.process_time()
    play(pool, evaluator, stop=Event(), on_batch=lambda: None, on_version=lambda version: None)
    return 60 * rounds / (time.process_time() - start)


def _figures(found: Mapping[str, list[list[Difference]]]) -> dict[str, Figure]:
    """Return the figures of a way by the names that scripts read, over each repeat's mean."""
    figures = {}
    for judge, repeats in found.items():
        figures[f"{judge}move_agreement"] = Figure.of([fmean(one.same_move for one in some) for some in repeats])
        figures[f"{judge}policy_tv"] = Figure.of([fmean(one.distance for one in some) for some in repeats])
    evaluations = [fmean(one.evaluations for one in some) for some in found[""]]
    return figures | {"evaluations_per_decision": Figure.of(evaluations)}


def _table(cases: Mapping[Way, Mapping[str, Figure]]) -> Table:
    table = new_table(
        f"Search of {SEQUENTIAL.determinizations} x {SEQUENTIAL.simulations} compared with one leaf at a time",
        "leaves in flight", "same move", "distance", "same (hash)", "distance (hash)", "positions", "rounds/min",
    )  # fmt: skip
    table.caption = "medians; distance of the visits; (hash): with HashEvaluator; positions evaluated per decision"
    for way, figures in cases.items():
        agreement, distance, agreement_hash, distance_hash, evaluations, *rate = (f.median for f in figures.values())
        table.add_row(
            "1, other deals" if way == CONTROL else str(way),
            f"{agreement:.1%}", f"{distance:.3f}", f"{agreement_hash:.1%}", f"{distance_hash:.3f}",
            f"{evaluations:.1f}", "".join(f"{value:,.0f}" for value in rate),
        )  # fmt: skip
    return table
