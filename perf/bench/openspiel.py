# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's C++ code for the same game, timed beside ours.

Its Python wheel has one C++ evaluator, random rollouts, which only MCTSBot can call; so both its rollouts and its
search run through MCTSBot.
"""

from typing import Any, Final

from clients.arena.ismcts import deal
from mcts_ext.rules import Round

MAX_MEMORY_MB: Final = 1000


def dealt(position: Round) -> Any:
    """Return OpenSpiel's state for a fresh deal."""
    return deal(position.hands, dealer=position.dealer, trump=position.trump)


def searcher(state: Any, *, simulations: int, c_puct: float, seed: int, rollouts: int = 1) -> Any:
    """Return a bot whose `mcts_search(state)` searches with PUCT and evaluates each leaf by random rollouts.

    A single simulation evaluates the given position, so it takes hardly more time than its rollouts.

    Args:
        c_puct: for values in [0, 1], as ours are; OpenSpiel's are points.
        rollouts: number of rollouts per leaf.
    """
    import pyspiel  # optional

    game = state.get_game()
    evaluator = pyspiel.RandomRolloutEvaluator(rollouts, seed)
    uct_c = c_puct * game.max_utility()
    policy = pyspiel.ChildSelectionPolicy.PUCT
    return pyspiel.MCTSBot(game, evaluator, uct_c, simulations, MAX_MEMORY_MB, False, seed, False, policy)


def evaluated(root: Any, state: Any) -> list[Any]:
    """Return the states evaluated by a search: each when first reached, unless the round was over."""
    found: list[Any] = []
    waiting = [(root, state)]
    while waiting:
        node, position = waiting.pop()
        if not position.is_terminal():
            found.append(position)
            waiting += [(child, position.child(child.action)) for child in node.children if child.explore_count]
    return found
