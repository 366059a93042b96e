# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's C++ code on the same game, to be timed beside ours.

Its Python wheel offers one evaluator in C++, random rollouts, and no way to call it but through MCTSBot; so both its
rollouts and its search are driven by that.
"""

from typing import Any, Final

from clients.arena.ismcts import deal
from mcts_ext.rules import Round

MAX_MEMORY_MB: Final = 1000


def dealt(table: Round) -> Any:
    """OpenSpiel's state at a round of ours that has just been dealt."""
    return deal(table.hands, dealer=table.dealer, trump=table.trump)


def searcher(state: Any, *, simulations: int, c_puct: float, seed: int, rollouts: int = 1) -> Any:
    """A bot whose `mcts_search(state)` searches with PUCT and evaluates each leaf by `rollouts` random rollouts.

    One simulation evaluates the position it is given: then it is so many rollouts and next to nothing else.

    Args:
        c_puct: for values in [0, 1], as ours are; OpenSpiel's are points.
    """
    import pyspiel  # optional

    game = state.get_game()
    evaluator = pyspiel.RandomRolloutEvaluator(rollouts, seed)
    uct_c = c_puct * game.max_utility()
    policy = pyspiel.ChildSelectionPolicy.PUCT
    return pyspiel.MCTSBot(game, evaluator, uct_c, simulations, MAX_MEMORY_MB, False, seed, False, policy)


def evaluated(root: Any, state: Any) -> list[Any]:
    """The states that a search has evaluated: each once, when it was first reached, unless the round was over."""
    found: list[Any] = []
    waiting = [(root, state)]
    while waiting:
        node, position = waiting.pop()
        if position.is_terminal():
            continue
        found.append(position)
        waiting += [(child, position.child(child.action)) for child in node.children if child.explore_count]
    return found
