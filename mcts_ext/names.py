# SPDX-License-Identifier: Apache-2.0
"""Cards, actions and tables as people write them: `SA` is the ace of spades, `H10` the ten of hearts."""

from typing import TYPE_CHECKING

from mcts_ext.contract import FIRST_CARD_ACTION

if TYPE_CHECKING:
    from mcts_ext.rules import Round

SUITS = "SHCD"
RANKS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "A")


def card(index: int) -> str:
    """The name of card index 13 * suit + rank."""
    return SUITS[index // 13] + RANKS[index % 13]


def suit(index: int | None) -> str:
    """The letter of a suit; `none` for a round without trump."""
    return "none" if index is None else SUITS[index]


def action(index: int) -> str:
    """`bid 3`, or the name of a card."""
    return card(index - FIRST_CARD_ACTION) if index >= FIRST_CARD_ACTION else f"bid {index}"


def draw(table: "Round") -> str:
    """The whole table, all hands open, one line a seat and one a trick."""
    lines = [f"{table.n_players} players, {table.n_cards} cards, trump {suit(table.trump)}, dealer seat {table.dealer}"]
    for seat in range(table.n_players):
        bid = table.bids[seat]
        mark = ">" if seat == table.seat_to_act else " "
        hand = " ".join(card(c) for c in table.hands[seat]) or "-"
        asked = "-" if bid is None else str(bid)
        lines.append(f"{mark} seat {seat}  bid {asked:>2}  won {table.tricks_won[seat]:>2}  {hand}")
    for number, trick in enumerate(table.tricks, start=1):
        played = "  ".join(f"{seat}:{card(c)}" for seat, c in trick)
        lines.append(f"  trick {number:>2}  {played}")
    if table.is_over:
        lines.append("  scores  " + " ".join(str(score) for score in table.scores()))
    return "\n".join(lines)
