# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's C++ code on the same game, to be timed beside ours.

Its Python wheel offers one evaluator in C++, random rollouts, and no way to call it but through MCTSBot; so both its
rollouts and its search are driven by that.
"""

from collections.abc import Sequence
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
    return deal(table.hands, dealer=table.dealer, trump=table.trump)


def deal(hands: Sequence[Sequence[int]], *, dealer: int, trump: int | None) -> Any:
    """OpenSpiel's state with these cards of ours dealt, the bids to come (docs/rules.md says how the two map)."""
    n_cards = len(hands[0])
    rules = {
        "players": len(hands),
        "num_tricks_fixed": n_cards,
        "off_bid_penalty": False,
        "points_per_trick": 1,
    }
    state = _pyspiel().load_game("oh_hell", rules).new_initial_state()
    state.apply_action(n_cards)  # the number of tricks
    state.apply_action(dealer)
    for i in range(n_cards):  # one by one, from seat 0 whatever the dealer
        for hand in hands:
            state.apply_action(their_card(hand[i]))
    # Its suit alone matters, and apply_action takes any card: even one in a hand.
    state.apply_action(NO_CARD_TURNED_UP if trump is None else their_card(13 * trump))
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


def their_card(card: int) -> int:
    """OpenSpiel's index of our card: rank * 4 + suit."""
    suit, rank = divmod(card, 13)
    return rank * 4 + SUITS.index("SHCD"[suit])


def _pyspiel() -> Any:
    try:
        import pyspiel
    except ImportError as error:
        raise PeerMissing("expected OpenSpiel to measure beside, got none; pip install -e .[dev]") from error
    return pyspiel
