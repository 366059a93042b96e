# SPDX-License-Identifier: Apache-2.0
"""Text names of cards and actions: `SA` is the ace of spades, `H10` the ten of hearts."""

from mcts_ext.contract import FIRST_CARD_ACTION

SUITS = "SHCD"
RANKS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "A")


def card(index: int) -> str:
    """Return the name of card index 13 * suit + rank."""
    return SUITS[index // 13] + RANKS[index % 13]


def suit(index: int | None) -> str:
    """Return the letter of a suit, or `none` for no trump."""
    return "none" if index is None else SUITS[index]


def action(index: int) -> str:
    """Return the name of an action: `bid 3`, or the name of a card."""
    return card(index - FIRST_CARD_ACTION) if index >= FIRST_CARD_ACTION else f"bid {index}"
