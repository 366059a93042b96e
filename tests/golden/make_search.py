# SPDX-License-Identifier: Apache-2.0
"""Golden searches: visits of some under the hash evaluator; `python -m tests.golden.make_search` remakes them.

Remake them only for a change of the search that was meant, and say in the commit what changed.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from mcts_ext import names
from mcts_ext.config import SearchConfig
from mcts_ext.search import Search
from tests.support.evaluators import hashed, run_search
from tests.support.positions import SHAPES, position

GOLDEN = Path(__file__).parent / "search.json"

CONFIGS = [
    SearchConfig(),
    SearchConfig(determinizations=1, simulations=200, dirichlet_fraction=0.0),
    SearchConfig(determinizations=5, simulations=50, leaves_per_tree=4, c_puct=2.5, fpu_reduction=0.3),
    SearchConfig(determinizations=2, simulations=30, leaves_per_tree=30, dirichlet_alpha=0.3),
]


def searches() -> list[dict[str, Any]]:
    """Search positions of many shapes; what stands in the golden file."""
    random = Random(2024)
    found: list[dict[str, Any]] = []
    while len(found) < 24:
        table = position(random, *random.choice(SHAPES))
        if len(table.legal_actions()) < 2:
            continue
        seed = len(found)
        search = Search(table, CONFIGS[seed % len(CONFIGS)], seed=seed)
        visits = run_search(search, hashed)
        found.append(
            {
                "position": repr(table),
                "tricks": [[names.card(card) for _, card in trick] for trick in table.tricks],
                "config": seed % len(CONFIGS),
                "visits": {names.action(action): n for action, n in visits.items()},
                "evaluations": search.n_evaluations,
            }
        )
    return found


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(search) for search in searches())
    GOLDEN.write_text(f"[\n{lines}\n]\n")
