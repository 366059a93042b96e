# SPDX-License-Identifier: Apache-2.0
"""Evaluators as plain functions, and the loops that drive a search or a pool with one."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clients.evaluator import HashEvaluator, UniformEvaluator, evaluate
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records
from mcts_ext.search import Search

Answer = tuple[NDArray[np.float32], NDArray[np.float32]]
Evaluate = Callable[[NDArray[np.uint8]], Answer]


def hashed(observations: NDArray[np.uint8]) -> Answer:
    """Arbitrary but fixed: every number is a hash of its row alone. Logits in [-2, 2), values in [0, 1)."""
    evaluation = evaluate(HashEvaluator(), observations)
    return evaluation.logits, evaluation.values


def uniform(observations: NDArray[np.uint8]) -> Answer:
    """Every action alike, every seat half its points."""
    evaluation = evaluate(UniformEvaluator(), observations)
    return evaluation.logits, evaluation.values


def one_by_one(evaluate: Evaluate) -> Evaluate:
    """The same answers, each row evaluated alone and in backward order."""

    def alone(observations: NDArray[np.uint8]) -> Answer:
        answers = [evaluate(observations[i : i + 1].copy()) for i in reversed(range(len(observations)))][::-1]
        return np.concatenate([logits for logits, _ in answers]), np.concatenate([values for _, values in answers])

    return alone


def run_search(search: Search, evaluate: Evaluate) -> dict[int, int]:
    """Drive a search to its end, check its trees and return the visits."""
    while search.collect():
        search.apply(*evaluate(search.observations))
    search.check()
    return search.visits()


def run_pool(pool: SelfPlayPool, evaluate: Evaluate, *, model_version: int = 0, check_every: int = 0) -> Records:
    """Play all rounds of a pool and return the records in order of (round, decision)."""
    n_steps = 0
    while pool.n_unfinished:
        for group in range(pool.n_groups):
            if pool.collect(group):
                pool.apply(group, *evaluate(pool.observations(group)), model_version=model_version)
            n_steps += 1
            if check_every and n_steps % check_every == 0:
                pool.check()
    pool.check()
    return in_order(pool.take_records())


def in_order(*parts: Records) -> Records:
    """All records of `parts`, sorted by round and decision."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    order = np.lexsort((joined["decision"], joined["round"]))
    return Records(**{name: column[order] for name, column in joined.items()})
