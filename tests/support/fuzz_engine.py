# SPDX-License-Identifier: Apache-2.0
"""Play the engine over extreme settings and answers: `python -m tests.support.fuzz_engine --seconds 60`.

A case is a function of its number: settings, rounds and every answer are drawn from it. It plays a pool to its end,
or for so many batches or simulations, and a search beside it; now and then the trees at rest are checked, and at the
end the records. A case that fails, or that its process dies of, is named, and is played again by `--case NUMBER`.
Under `make sanitize` any access out of bounds and any undefined arithmetic ends the process.
"""

import argparse
import ctypes
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

import mcts_ext.pool
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.decode import decode
from mcts_ext.determinize import determinized
from mcts_ext.errors import InvalidEvaluation
from mcts_ext.observe import observation
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records
from mcts_ext.rules import Round
from mcts_ext.search import Search
from tests.support.positions import SHAPES, position

MOST_STEPS = 2000
MOST_SIMULATIONS = 30_000
MOST_WORK = 20_000
"""Simulations and candidates of all games for one decision each: a case takes a tenth of a second."""

KINDS = ("normal", "huge", "extremes", "equal", "denormal", "one action", "refused first")
EXTREMES = np.array([-3.4e38, -1e30, -1e4, -1.0, -1e-45, 0.0, 1e-45, 1e-38, 1.0, 1e4, 1e30, 3.4e38], np.float32)


class Answers:
    """Logits and values of one kind, drawn anew for every batch."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.kind = KINDS[seed % len(KINDS)]

    def __call__(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        random = self._random
        values = random.random((n, 8), np.float32)
        logits = random.standard_normal((n, 66), np.float32)
        if self.kind == "huge":
            logits *= np.float32(1e30)
            values = (values * 2 - 1) * np.float32(3.4e38)
        elif self.kind == "extremes":
            logits, values = random.choice(EXTREMES, (n, 66)), random.choice(EXTREMES, (n, 8))
        elif self.kind == "equal":
            logits, values = np.full((n, 66), random.choice(EXTREMES)), np.full((n, 8), random.choice(EXTREMES))
        elif self.kind == "denormal":
            logits, values = logits * np.float32(1e-44), values * np.float32(1e-44)
        elif self.kind == "one action":
            logits = np.full((n, 66), -3.4e38, np.float32)
            logits[np.arange(n), random.integers(0, 66, n)] = 3.4e38
        return logits, values


def settings(random: Random, n_cards: int) -> tuple[SearchConfig, int]:
    """A search and a number of games whose work is bounded."""
    search = SearchConfig(
        determinizations=random.choice([1, 1, 2, 3, 10, 50, 200]),
        simulations=random.choice([1, 2, 12, 30, 200, 1000, 5000]),
        leaves_per_tree=random.choice([1, 1, 2, 4, 17, 64]),
        c_puct=random.choice([0.0, 1e-30, 0.5, 1.5, 100.0]),
        fpu_reduction=random.choice([0.0, 0.1, 1.0]),
        even_root=random.random() < 0.3,
        dirichlet_alpha=random.choice([0.001, 0.03, 0.3, 1.0, 1000.0]),
        dirichlet_fraction=random.choice([0.0, 0.25, 1.0]),
        q_scale=random.choice([0.0, 0.0, 1e-30, 1.0, 100.0, 10_000.0]),
        temperature=random.choice([0.0, 0.01, 0.02, 1.0, 100.0]),
        temperature_final=random.choice([0.0, 0.01, 0.25, 100.0]),
    )
    candidates = random.choice([0, 0, 1, 7, 60, 500])
    if candidates >= search.determinizations:
        search = replace(search, candidates=candidates)
    while search.determinizations * search.simulations > MOST_WORK:
        search = replace(search, simulations=search.simulations // 5)
    work = search.determinizations * search.simulations + candidates * n_cards
    return search, max(1, min(random.choice([1, 2, 5, 30, 200]), MOST_WORK // work))


def play(case: int) -> Counter[str]:
    """Play one case; raises where something is wrong. What was done, counted."""
    random = Random(case)
    answers = Answers(case)
    n_players, n_cards = random.choice(SHAPES)
    unit = random.choice(["round", "round", "game"])
    deal = DealConfig(
        players=(n_players, *random.sample(range(3, 9), random.randrange(3))), cards=(n_cards, 1), unit=unit  # type: ignore[arg-type]
    )  # fmt: skip
    search, n_games = settings(random, n_cards)
    pool = SelfPlayPool(
        [32 * random.randrange(2**40) for _ in range(2 * n_games + 1)],
        seed=case,
        deal=deal,
        search=search,
        n_games=n_games,
        n_groups=random.choice([1, 2, 3, 7]),
    )
    parts: list[Records] = []
    for step in range(MOST_STEPS):
        if not pool.n_unfinished or pool.stats["simulations"] > MOST_SIMULATIONS:
            break
        for group in range(pool.n_groups):
            if n := pool.collect(group):
                if answers.kind == "refused first" and random.random() < 0.3:
                    refuse(pool, group, answers(n))
                pool.apply(group, *answers(n), model_version=random.randrange(2**63))
            if step in (1, 2, 5, 20, 80, 300, 1000):
                pool.check()
        if random.random() < 0.1:
            parts.append(pool.take_records())
    pool.check()
    parts.append(pool.take_records())
    for records in parts:
        check_records(records)
    one_search(random, search, answers)
    stats = pool.stats
    return Counter({"rounds": stats["rounds"], "decisions": stats["decisions"], "simulations": stats["simulations"]})


def refuse(pool: SelfPlayPool, group: int, answer: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    """Hand in a NaN somewhere: it is refused, and nothing has changed."""
    answer[0][-1] = np.nan
    try:
        pool.apply(group, *answer)
    except InvalidEvaluation:
        return
    raise AssertionError("expected NaN to be refused")


def check_records(records: Records) -> None:
    """Policies sum to 1 over actions among which is the one played; values are shares; observations can be read."""
    rows = np.arange(len(records))
    assert np.isfinite(records.policy).all()
    assert (records.policy >= 0).all()
    assert np.abs(records.policy.sum(axis=1) - 1).max(initial=0) < 1e-4
    assert (records.policy[rows, records.action] > 0).all()
    assert ((records.value >= 0) & (records.value <= 1)).all()
    for row in rows[:50]:
        known = decode(records.observation[row].tobytes())
        assert 3 <= known.n_players <= 8
        assert len(known.hand) >= 1


def one_search(random: Random, config: SearchConfig, answers: Answers) -> None:
    """A search of any position, forced moves included, over deals that the seat thinks possible."""
    table = position(random, *random.choice(SHAPES))
    config = replace(config, simulations=min(config.simulations, 200))
    search = Search(table, config, seed=random.getrandbits(64))
    while n := search.collect():
        search.apply(*answers(n))
    search.check()
    policy = search.policy()
    assert list(policy) == table.legal_actions()
    assert abs(sum(policy.values()) - 1) < 1e-4
    assert table.seat_to_act is not None
    for deal in [*search.deals()[:5], determinized(table, table.seat_to_act, seed=1, constructed=True)]:
        assert observation(deal, with_others=False) == observation(table, with_others=False)
        finish(deal, random)


def finish(table: Round, random: Random) -> None:
    while not table.is_over:
        table.apply(random.choice(table.legal_actions()))
    assert len(table.scores()) == table.n_players


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--case", type=int, help="play this one alone")
    given = parser.parse_args()
    print(f"engine: {mcts_ext.pool.__file__}", flush=True)
    numbers = range(given.first, given.first + given.cases) if given.case is None else range(given.case, given.case + 1)
    context = multiprocessing.get_context("fork")
    case = context.Value("q", -1, lock=False)  # it outlives the child, however that ends
    child = context.Process(target=play_all, args=(numbers, given.seconds, case))
    child.start()
    child.join()
    if child.exitcode:
        again = f"python -m tests.support.fuzz_engine --case {case.value}"
        print(f"case {case.value} failed (status {child.exitcode}); play it again: {again}", file=sys.stderr)
    return 1 if child.exitcode else 0


def play_all(numbers: range, seconds: float, case: ctypes.c_longlong) -> None:
    """Play one case after the other, and leave in `case` which it is."""
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > end:
            break
        case.value = number
        if sys.stderr.isatty():
            print(f"\rcase {number} ", end="", file=sys.stderr, flush=True)
        done += play(number) + Counter(cases=1)
    print(("\n" if sys.stderr.isatty() else "") + ", ".join(f"{n:,} {name}" for name, n in done.items()))


if __name__ == "__main__":
    sys.exit(main())
