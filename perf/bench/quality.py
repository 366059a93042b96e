# SPDX-License-Identifier: Apache-2.0
"""What several leaves in flight cost: how far the search's visits move away from those of one leaf at a time.

With L leaves of a tree in flight the search chooses L times before it learns anything. Every decision of seeded rounds
is searched with each L on the same determinizations, without root noise, and compared with the sequential search,
whose visits also draw the move that is played. Two controls: the sequential search once more (it must differ in
nothing), and on other determinizations (what chance alone does).

A network that has learnt nothing values all moves about alike, and then it matters little how a search goes about it.
So everything is compared with a second evaluator too: HashEvaluator, whose opinions are strong and arbitrary.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from statistics import fmean
from threading import Event
from typing import Final, NamedTuple

from rich.table import Table

from clients.evaluator import Evaluator, HashEvaluator
from clients.local import LocalEvaluator, latest_model_file
from clients.searching import finish
from clients.selfplay.worker import play
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import MODEL_NAME
from mcts_ext.pool import SelfPlayPool
from mcts_ext.rules import Round
from mcts_ext.search import Search
from perf.bench.deals import CARDS, PLAYERS, deals
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result, interleave
from perf.bench.served import served_repository

SEED: Final = 20
LEAVES: Final = (1, 4, 8, 30)
SEQUENTIAL: Final = SearchConfig(determinizations=3, simulations=30, leaves_per_tree=1)


@dataclass(frozen=True)
class Sizes:
    """How much is searched, in each repeat."""

    repeats: int
    compared_rounds: int
    """Whose decisions are searched in every way."""
    played_rounds: int
    """Side by side in self-play, for each number of leaves: the rate."""


FULL: Final = Sizes(repeats=MIN_REPEATS, compared_rounds=16, played_rounds=96)
QUICK: Final = Sizes(repeats=MIN_REPEATS, compared_rounds=3, played_rounds=6)


class Difference(NamedTuple):
    """One search beside the sequential one of the same decision."""

    same_move: bool
    """The most visited action is the same; the first of equals."""
    distance: float
    """Total variation between the visit distributions: 0 where alike, 1 where disjoint."""
    evaluations: int
    """Positions that the search asked the network about."""


Way = int | str
"""Leaves in flight, or the control."""
CONTROL: Final = "control"
WAYS: Final[tuple[Way, ...]] = (*LEAVES, CONTROL)


def run(plan: Plan) -> Result:
    """Measure with the repository's latest network."""
    with served_repository(plan.say) as repository:
        path = latest_model_file(repository, MODEL_NAME)
        with LocalEvaluator(path, on_event=plan.say) as evaluator:
            return measure(plan, QUICK if plan.quick else FULL, evaluator, network=str(path))


def measure(plan: Plan, sizes: Sizes, evaluator: Evaluator, *, network: str) -> Result:
    """Compare the searches and time self-play with each, on one core."""
    judges = {"": evaluator, "opinionated_": HashEvaluator()}
    found: dict[Way, dict[str, list[list[Difference]]]] = {way: {judge: [] for judge in judges} for way in WAYS}
    for repeat in range(sizes.repeats):
        for judge, asked in judges.items():
            for way, some in compare(asked, rounds=sizes.compared_rounds, seed=SEED + 1000 * repeat).items():
                found[way][judge].append(some)
        plan.say(f"compared {sizes.compared_rounds} rounds, {repeat + 1} of {sizes.repeats}")
    rates = interleave(
        {n: partial(_rounds_per_min, evaluator, leaves=n, rounds=sizes.played_rounds) for n in LEAVES},
        repeats=sizes.repeats,
    )
    cases = {way: _figures(some) for way, some in found.items()}
    for leaves in LEAVES:
        cases[leaves]["rounds_per_min"] = Figure.of(rates[leaves])
    return Result(
        level="quality",
        config={
            "players": PLAYERS, "cards": CARDS, "determinizations": SEQUENTIAL.determinizations,
            "simulations": SEQUENTIAL.simulations, "network": network, "seed": SEED,
            "decisions": sum(map(len, found[CONTROL][""])), "played_rounds": sizes.played_rounds,
        },
        repeats=sizes.repeats,
        figures={f"control_{name}": figure for name, figure in cases[CONTROL].items()},
        points=[
            {"leaves_per_tree": leaves, **{name: figure.median for name, figure in cases[leaves].items()}}
            for leaves in LEAVES
        ],
        tables=[_table(cases)],
        notes=[
            "control_*: the sequential search beside itself on other determinizations",
            "opinionated_*: with HashEvaluator; measure again with the network you train before you trade on this",
            f"with {SEQUENTIAL.simulations} leaves in flight of {SEQUENTIAL.simulations} simulations the search never "
            "leaves the root: see the positions evaluated",
            f"rounds/min of one core, search and network together, {sizes.played_rounds} rounds side by side"
            + ("; few rows a batch, which favours more leaves" if plan.quick else ""),
        ],
    )  # fmt: skip


def compare(evaluator: Evaluator, *, rounds: int, seed: int) -> dict[Way, list[Difference]]:
    """Play rounds side by side and search each decision in every way; differences by way, a decision in each place."""
    random = Random(seed)
    found: dict[Way, list[Difference]] = {way: [] for way in WAYS}
    tables = deals(rounds, seed=seed)
    while tables := [table for table in tables if _skip_forced(table)]:
        seeds = [random.getrandbits(63) for _ in tables]
        searches = {way: [_search(table, way, n) for table, n in zip(tables, seeds, strict=True)] for way in found}
        sequential = [_search(table, 1, n) for table, n in zip(tables, seeds, strict=True)]
        asked = finish(evaluator, [*sequential, *(search for some in searches.values() for search in some)])
        for way, some in searches.items():
            found[way] += [_difference(*pair, asked) for pair in zip(sequential, some, strict=True)]
        for table, search in zip(tables, sequential, strict=True):
            visits = search.visits()
            table.apply(random.choices(list(visits), weights=list(visits.values()))[0])
    return found


def _skip_forced(table: Round) -> bool:
    """Play on to a choice; False where the round ends before one."""
    while len(legal := table.legal_actions()) == 1:
        table.apply(legal[0])
    return bool(legal)


def _search(table: Round, way: Way, seed: int) -> Search:
    if isinstance(way, int):
        return Search(table, replace(SEQUENTIAL, leaves_per_tree=way, dirichlet_fraction=0.0), seed=seed)
    return _search(table, 1, seed + 1)


def _difference(sequential: Search, other: Search, asked: Mapping[Search, int]) -> Difference:
    expected, got = sequential.visits(), other.visits()
    total = sum(expected.values())
    return Difference(
        same_move=max(expected, key=expected.__getitem__) == max(got, key=got.__getitem__),
        distance=sum(abs(n - got[action]) for action, n in expected.items()) / (2 * total),
        evaluations=asked[other],
    )


def _rounds_per_min(evaluator: Evaluator, *, leaves: int, rounds: int) -> float:
    """Whole rounds of self-play, all side by side, by the processor time of this process."""
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
    """By the names that scripts read; each repeat's mean over its decisions."""
    figures = {}
    for judge, repeats in found.items():
        figures[f"{judge}move_agreement"] = Figure.of([fmean(one.same_move for one in some) for some in repeats])
        figures[f"{judge}policy_tv"] = Figure.of([fmean(one.distance for one in some) for some in repeats])
    evaluations = [fmean(one.evaluations for one in some) for some in found[""]]
    return figures | {"evaluations_per_decision": Figure.of(evaluations)}


def _table(cases: Mapping[Way, Mapping[str, Figure]]) -> Table:
    table = Table(
        "leaves in flight", "same move", "distance", "same (hash)", "distance (hash)", "positions", "rounds a minute",
        title=f"Search of {SEQUENTIAL.determinizations} x {SEQUENTIAL.simulations} beside one leaf at a time",
        caption="medians; distance of the visits; (hash): an arbitrary evaluator in place of the network; positions "
        "evaluated for a decision",
    )  # fmt: skip
    for way, figures in cases.items():
        agreement, distance, agreement_hash, distance_hash, evaluations, *rate = (f.median for f in figures.values())
        table.add_row(
            "1, other deals" if way == CONTROL else str(way),
            f"{agreement:.1%}", f"{distance:.3f}", f"{agreement_hash:.1%}", f"{distance_hash:.3f}",
            f"{evaluations:.1f}", "".join(f"{value:,.0f}" for value in rate),
        )  # fmt: skip
    return table
