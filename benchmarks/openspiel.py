# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's C++ code on the same game, to be timed beside ours.

Its Python wheel offers one evaluator in C++, random rollouts, and no way to call it but through MCTSBot; so both its
rollouts and its search are driven by that.
"""

from typing import Any, Final

from mcts_ext.errors import BlobError
from mcts_ext.rules import Round

SUITS: Final = "CDSH"
"""OpenSpiel's order; ours is SHCD."""
NO_CARD_TURNED_UP: Final = -5
MAX_MEMORY_MB: Final = 1000


class PeerMissing(BlobError):
    """OpenSpiel is not installed."""


def dealt(table: Round) -> Any:
    """OpenSpiel's state at a round of ours that has just been dealt."""
    pyspiel = _pyspiel()
    rules = {
        "players": table.n_players,
        "num_tricks_fixed": table.n_cards,
        "off_bid_penalty": False,
        "points_per_trick": 1,
    }
    state = pyspiel.load_game("oh_hell", rules).new_initial_state()
    state.apply_action(table.n_cards)
    state.apply_action(table.dealer)
    for i in range(table.n_cards):
        for seat in range(table.n_players):
            state.apply_action(_theirs(table.hands[seat][i]))
    # Only the suit of the card turned up matters; it may be one that is in a hand.
    state.apply_action(NO_CARD_TURNED_UP if table.trump is None else _theirs(13 * table.trump))
    return state


def searcher(state: Any, *, simulations: int, c_puct: float, seed: int, rollouts: int = 1) -> Any:
    """A bot whose `mcts_search(state)` searches with PUCT and evaluates each leaf by `rollouts` random rollouts.

    One simulation evaluates the position it is given: then it is so many rollouts and next to nothing else.

    Args:
        c_puct: for values in [0, 1], as ours are; OpenSpiel's are points.
    """
    pyspiel = _pyspiel()
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


def _theirs(card: int) -> int:
    """OpenSpiel's index of our card: rank * 4 + suit."""
    suit, rank = divmod(card, 13)
    return rank * 4 + SUITS.index("SHCD"[suit])


def _pyspiel() -> Any:
    try:
        import pyspiel
    except ImportError as error:
        raise PeerMissing("expected OpenSpiel to measure beside, got none; pip install -e .[dev]") from error
    return pyspiel
