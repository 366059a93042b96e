# SPDX-License-Identifier: Apache-2.0
"""Parser of the player's input."""

import re
from typing import Final

from mcts_ext.contract import FIRST_CARD_ACTION
from mcts_ext.errors import BlobError
from mcts_ext.names import RANKS, SUITS
from mcts_ext.rules import Round

SYMBOLS: Final = "♠♥♣♦"
SUIT_NAMES: Final = ("spades", "hearts", "clubs", "diamonds")
_RANK: Final = "10|[2-9TJQKA]"
_CARD: Final = re.compile(rf"({_RANK})\s*([{SUITS}{SYMBOLS}])|([{SUITS}{SYMBOLS}])\s*({_RANK})")


class Unreadable(BlobError):
    """The input is not a legal action; the message says why."""


def sorted_hand(hand: list[int]) -> list[int]:
    """Sort by suit, spades first, and by rank, high cards first."""
    return sorted(hand, key=lambda card: (card // 13, -(card % 13)))


def parse_card(text: str) -> int | None:
    """Return the index of a card written as `AS`, `10h`, `sA`, `T♥`, in either case; None if it is not a card."""
    match = _CARD.fullmatch(text.strip().upper())
    if match is None:
        return None
    rank, suit = (match[1], match[2]) if match[1] else (match[4], match[3])
    suits = SUITS if suit in SUITS else SYMBOLS
    return 13 * suits.index(suit) + RANKS.index("10" if rank == "T" else rank)


def card_name(card: int, symbols: str = SYMBOLS) -> str:
    """Return rank and suit: `10♥`."""
    return RANKS[card % 13] + symbols[card // 13]


def forbidden_bid(table: Round) -> int | None:
    """Return the bid forbidden by the hook to the seat to act, or None."""
    left = set(range(table.n_cards + 1)) - set(table.legal_actions())
    return left.pop() if table.is_bidding and left else None


def read_bid(text: str, table: Round) -> int:
    """Parse a bid such as `2`.

    Raises:
        Unreadable: if it is not a number, out of range, or the dealer's forbidden bid.
    """
    bid = int(text) if re.fullmatch("[0-9]{1,3}", text) else -1
    if not 0 <= bid <= table.n_cards:
        raise Unreadable(f"expected a bid from 0 to {table.n_cards}, got {text!r}; type how many tricks you will take")
    if bid == forbidden_bid(table):
        raise Unreadable(
            f"you may not bid {bid}: you are the dealer, and the bids would add up to {table.n_cards}, "
            "the number of tricks; bid more or fewer"
        )
    return bid


def read_card(text: str, table: Round, symbols: str = SYMBOLS) -> int:
    """Parse a card, or its number in the sorted hand from 1, of the seat to act.

    Raises:
        Unreadable: if it is not a card, not in the hand, or does not follow suit.
    """
    hand = sorted_hand(table.hands[table.seat_to_act or 0])
    card = parse_card(text)
    if card is None:
        place = int(text) if re.fullmatch("[0-9]{1,3}", text) else 0
        if not 1 <= place <= len(hand):
            raise Unreadable(
                f"expected a card of your hand such as {card_name(hand[0], SUITS)}, or its number from 1 to "
                f"{len(hand)}, got {text!r}"
            )
        card = hand[place - 1]
    if card not in hand:
        raise Unreadable(f"you do not hold {card_name(card, symbols)}; play a card of your hand")
    legal = [action - FIRST_CARD_ACTION for action in table.legal_actions()]
    if card not in legal:
        led = SUIT_NAMES[legal[0] // 13]
        playable = " ".join(card_name(card, symbols) for card in sorted_hand(legal))
        raise Unreadable(
            f"you must follow suit: {led} were led and you hold {led}; play {'one of ' if len(legal) > 1 else ''}"
            f"{playable}"
        )
    return FIRST_CARD_ACTION + card
