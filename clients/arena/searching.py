# SPDX-License-Identifier: Apache-2.0
"""Many searches of single decisions, their rows evaluated in common batches."""

from collections.abc import Sequence

import numpy as np

from clients.evaluator import Evaluator, evaluate
from mcts_ext.search import Search

ROWS_AT_ONCE = 4096
"""Rows per batch, at most: what the networks of this size evaluate at full speed."""


def finish(evaluator: Evaluator, searches: Sequence[Search]) -> dict[Search, int]:
    """Run searches to their end; return the number of rows that each asked for.

    Raises:
        EvaluatorError: if the evaluator fails.
    """
    asked = dict.fromkeys(searches, 0)
    while waiting := [(search, n) for search in searches if (n := search.collect())]:
        rows = np.concatenate([search.observations for search, _ in waiting])
        answers = [evaluate(evaluator, rows[at : at + ROWS_AT_ONCE]) for at in range(0, len(rows), ROWS_AT_ONCE)]
        logits = np.concatenate([answer.logits for answer in answers])
        values = np.concatenate([answer.values for answer in answers])
        start = 0
        for search, n in waiting:
            search.apply(logits[start : start + n], values[start : start + n])
            asked[search] += n
            start += n
    return asked
