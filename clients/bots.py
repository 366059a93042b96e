# SPDX-License-Identifier: Apache-2.0
"""Players without a search: one that plays at random, and one that plays by rules, as fixed yardsticks.

Both see what their seat sees: its own hand, the bids, the tricks; never another hand.
"""

from random import Random
from typing import Protocol

from mcts_ext.contract import N_CARDS_IN_DECK, N_SUITS
from mcts_ext.rules import Round

N_RANKS = N_CARDS_IN_DECK // N_SUITS
FIRST_CARD = 14
"""Actions below it are bids, the others cards."""


class Bot(Protocol):
    """Chooses a legal action for the seat to act."""

    def choose(self, table: Round, random: Random) -> int:
        """The action; `random` is all that may make two calls differ."""


class RandomBot:
    """Any legal action, each as likely as the others."""

    def choose(self, table: Round, random: Random) -> int:
        """See `Bot`."""
        return random.choice(table.legal_actions())


class HeuristicBot:
    """Plays to make its bid exactly.

    - *Bid*: the sum over the hand of each card's chance to win a trick, drawn a quarter of the way towards the seat's
      share of the tricks that nobody has bid for yet; then the nearest legal bid.
    - *A trick is needed*: leads its likeliest winner; beats the best card on the table with the cheapest card that
      does it when it plays last, with the likeliest winner before that; if it can't, throws its unlikeliest winner.
    - *None is needed*: leads its unlikeliest winner; stays below the best card with the highest card that does; if it
      can't, takes the trick with its highest card when it plays last, and risks its lowest one before that.
    """

    def choose(self, table: Round, random: Random) -> int:
        """See `Bot`; nothing here is left to chance."""
        legal = table.legal_actions()
        return _bid(table, legal) if table.is_bidding else FIRST_CARD + _card(table, [a - FIRST_CARD for a in legal])


def _chance(card: int, table: Round, hand: list[int], gone: set[int]) -> float:
    """About how likely a card wins a trick: no opponent holds a higher one of its suit, and nobody ruffs.

    Each card not seen is with some opponent with probability q = cards in their hands / cards not seen. Of the
    higher ones only about 60% would be played to this very trick.
    """
    suit, rank = divmod(card, N_RANKS)
    unseen = N_CARDS_IN_DECK - len(hand) - len(gone)
    held = min(unseen, (table.n_players - 1) * len(hand))
    q = held / unseen if unseen else 0.0
    known = gone.union(hand)
    higher = sum(suit * N_RANKS + r not in known for r in range(rank + 1, N_RANKS))
    stands = (1 - 0.6 * q) ** higher
    if table.trump is None or suit == table.trump:
        return stands if table.trump is not None else stands * 0.9
    own = sum(c // N_RANKS == suit for c in hand)
    return stands * (1 - min(0.6, 0.06 * (table.n_players - 1) * (1 + own / 2)))


def _seen(table: Round) -> set[int]:
    return {card for trick in table.tricks for _, card in trick}


def _bid(table: Round, legal: list[int]) -> int:
    seat = table.seat_to_act
    assert seat is not None
    hand = table.hands[seat]
    own = sum(_chance(card, table, hand, set()) for card in hand)
    bids = [bid for bid in table.bids if bid is not None]
    left = (table.n_cards - sum(bids)) / (table.n_players - len(bids))
    wanted = own + 0.25 * (left - own)
    return min(legal, key=lambda bid: (abs(bid - wanted), bid))


def _card(table: Round, cards: list[int]) -> int:
    seat = table.seat_to_act
    assert seat is not None
    hand, gone = table.hands[seat], _seen(table)
    bid = table.bids[seat]
    assert bid is not None
    is_needed = bid > table.tricks_won[seat]

    def chance(card: int) -> float:
        return _chance(card, table, hand, gone)

    tricks = table.tricks
    trick = tricks[-1] if tricks and len(tricks[-1]) < table.n_players else []
    if not trick:
        return max(cards, key=chance) if is_needed else min(cards, key=chance)
    best = max((card for _, card in trick), key=lambda card: _strength(card, trick[0][1], table.trump))
    beating = [c for c in cards if _strength(c, trick[0][1], table.trump) > _strength(best, trick[0][1], table.trump)]
    losing = [c for c in cards if c not in beating]
    is_last = len(trick) == table.n_players - 1
    if is_needed:
        if not beating:
            return min(cards, key=chance)
        cheapest = min(beating, key=lambda card: _strength(card, trick[0][1], table.trump))
        return cheapest if is_last else max(beating, key=chance)
    if losing:
        return max(losing, key=chance)
    return max(cards, key=chance) if is_last else min(cards, key=chance)


def _strength(card: int, led: int, trump: int | None) -> int:
    """Higher wins the trick; a card of another suit than the one led or the trump never does."""
    suit, rank = divmod(card, N_RANKS)
    if suit == trump:
        return 2 * N_RANKS + rank
    return N_RANKS + rank if suit == led // N_RANKS else -1
