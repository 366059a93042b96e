# SPDX-License-Identifier: Apache-2.0
"""Reader of observations: one decoded into a dataclass and text, or many checked against the contract.

Shards come from outside, and what reads them indexes by their bytes, so every byte is checked. Axes: contract.py.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcts_ext import names
from mcts_ext.contract import (
    AT_BIDS,
    AT_CARDS,
    AT_DEALER,
    AT_GAME_ROUND,
    AT_LEADER,
    AT_N_CARDS,
    AT_N_PLAYERS,
    AT_N_TRICKS,
    AT_START_CARDS,
    AT_TOTALS,
    AT_TRICKS,
    AT_TRUMP,
    AT_VOIDS,
    BID_NO_SEAT,
    BID_PENDING,
    CARD_HELD,
    CARD_ON_TABLE,
    CARD_OWN,
    CARD_PLAYED,
    CARD_UNSEEN,
    FIRST_CARD_ACTION,
    MAX_HAND,
    N_CARDS_IN_DECK,
    N_SEATS,
    N_SUITS,
    NO_TRUMP,
    OBSERVATION_BYTES,
)
from mcts_ext.errors import InvalidConfig
from mcts_ext.legal import seats_in_round
from mcts_ext.rules import Round

MOST_POINTS: Final = 10 + MAX_HAND
"""Maximum score of one round."""

Trick = tuple[tuple[int, int], ...]
"""(seat, card) pairs in order of play."""


@dataclass(frozen=True)
class InformationSet:
    """Information set of the seat to act; all seats are relative to it (0 = itself, 1 = the next clockwise)."""

    n_players: int
    n_cards: int
    trump: int | None
    dealer: int
    leader: int
    bids: tuple[int | None, ...]
    tricks_won: tuple[int, ...]
    voids: tuple[tuple[int, ...], ...]
    hand: tuple[int, ...]
    tricks: tuple[Trick, ...]
    """Every trick begun so far."""
    totals: tuple[int, ...]
    game_round: int
    start_cards: int
    others: tuple[tuple[int, ...], ...] = ()
    """Hands of seats 1.. in the determinization; empty if the observation leaves them out."""

    def round(self) -> Round:
        """Return the position with these hands, seat 0 to act.

        Raises:
            InvalidConfig: if the observation leaves the other hands out.
        """
        hands = [list(hand) for hand in (self.hand, *self.others)]
        plays = [play for trick in self.tricks for play in trick]
        if len(hands) != self.n_players:
            raise InvalidConfig(f"expected the hands of {self.n_players} seats, got {len(hands)}")
        for seat, card in plays:
            hands[seat].append(card)
        table = Round(
            hands, dealer=self.dealer, trump=self.trump, totals=self.totals, game_round=self.game_round,
            start_cards=self.start_cards,
        )  # fmt: skip
        for i in range(self.n_players):
            bid = self.bids[(self.dealer + 1 + i) % self.n_players]
            if bid is not None:
                table.apply(bid)
        for _, card in plays:
            table.apply(FIRST_CARD_ACTION + card)
        return table

    def __str__(self) -> str:
        bids = " ".join("-" if bid is None else str(bid) for bid in self.bids)
        lines = [
            f"{self.n_players} players, {self.n_cards} cards, trump {names.suit(self.trump)}, dealer +{self.dealer}",
            f"  bids {bids}  won {' '.join(map(str, self.tricks_won))}",
            f"  hand {' '.join(map(names.card, self.hand))}",
        ]
        for seat, cards in enumerate(self.others, start=1):
            lines.append(f"  +{seat} may hold {' '.join(map(names.card, cards)) or '-'}")
        for seat, suits in enumerate(self.voids):
            if suits:
                lines.append(f"  +{seat} holds no {' '.join(map(names.suit, suits))}")
        for number, trick in enumerate(self.tricks, start=1):
            lines.append(f"  trick {number:>2}  " + "  ".join(f"+{seat}:{names.card(c)}" for seat, c in trick))
        if self.start_cards:
            lines.append(f"  game of {self.start_cards}, round {self.game_round + 1}, totals {self.totals}")
        return "\n".join(lines)


def decode(row: bytes) -> InformationSet:
    """Decode one observation of `F` bytes."""
    if len(row) != OBSERVATION_BYTES:
        raise InvalidConfig(f"expected an observation of {OBSERVATION_BYTES} bytes, got {len(row)}")
    n = row[AT_N_PLAYERS]
    n_tricks = row[AT_N_TRICKS]
    tricks: list[list[tuple[int, int]]] = [[] for _ in range(n_tricks + 1)]
    hand = []
    others: list[list[int]] = [[] for _ in range(n - 1)]
    for card, code in enumerate(row[AT_CARDS : AT_CARDS + N_CARDS_IN_DECK]):
        if code == CARD_OWN:
            hand.append(card)
        elif code > CARD_HELD:
            others[code - CARD_HELD - 1].append(card)
        elif code >= CARD_PLAYED:
            tricks[code // CARD_PLAYED - 1].append((code % CARD_PLAYED, card))
        elif code >= CARD_ON_TABLE:
            tricks[n_tricks].append((code - CARD_ON_TABLE, card))
    trump = None if row[AT_TRUMP] == NO_TRUMP else row[AT_TRUMP]
    ordered: list[Trick] = []
    first = (row[AT_DEALER] + 1) % n  # leads the first trick; the winner of a trick leads the next
    for trick in tricks:
        if trick:
            ordered.append(_in_order(trick, first, n))
            first = _winner(ordered[-1], trump)
    return InformationSet(
        n_players=n,
        n_cards=row[AT_N_CARDS],
        trump=trump,
        dealer=row[AT_DEALER],
        leader=row[AT_LEADER],
        bids=tuple(None if b == BID_PENDING else b for b in row[AT_BIDS : AT_BIDS + n]),
        tricks_won=tuple(row[AT_TRICKS : AT_TRICKS + n]),
        voids=tuple(
            tuple(suit for suit in range(N_SUITS) if row[AT_VOIDS + seat // 2] >> (4 * (seat % 2) + suit) & 1)
            for seat in range(n)
        ),
        hand=tuple(hand),
        tricks=tuple(ordered),
        totals=tuple(
            int.from_bytes(row[AT_TOTALS + 2 * seat : AT_TOTALS + 2 * seat + 2], "little") for seat in range(n)
        ),
        game_round=row[AT_GAME_ROUND],
        start_cards=row[AT_START_CARDS],
        others=tuple(map(tuple, others)) if any(others) else (),
    )


def _in_order(plays: list[tuple[int, int]], first: int, n_players: int) -> Trick:
    return tuple(sorted(plays, key=lambda play: (play[0] - first) % n_players))


def _winner(trick: Trick, trump: int | None) -> int:
    """Return the seat that wins a trick: the highest trump, else the highest card of the led suit."""
    led = trick[0][1] // 13
    return max(trick, key=lambda play: ((play[1] // 13 == trump) * 2 + (play[1] // 13 == led), play[1] % 13))[0]


def fault_in_observations(rows: NDArray[np.uint8]) -> str:
    """Return why `[n, F]` rows are not all positions of rounds in progress; empty if they are."""
    header = rows[:, :AT_BIDS].astype(np.int16)
    players, cards, tricks = header[:, AT_N_PLAYERS], header[:, AT_N_CARDS], header[:, AT_N_TRICKS]
    leader = header[:, AT_LEADER]
    if ((players < 3) | (players > N_SEATS) | (cards < 1) | (cards > MAX_HAND)).any():
        return "invalid numbers of players or cards"
    if (players * cards > N_CARDS_IN_DECK).any():
        return "more cards than a deck has"
    if (header[:, AT_TRUMP] > NO_TRUMP).any():
        return "an invalid trump"
    if (header[:, AT_DEALER] >= players).any():
        return "an invalid dealer"
    if (leader >= players).any():
        return "an invalid leader"
    if (tricks >= cards).any():
        return "too many finished tricks for a round in progress"
    return _fault_in_seats(rows, header) or _fault_in_cards(rows, header)


def _fault_in_seats(rows: NDArray[np.uint8], header: NDArray[np.int16]) -> str:
    """Check bids, tricks won, voids and points, given a valid header."""
    cards, tricks, game_round, start = (
        header[:, at] for at in (AT_N_CARDS, AT_N_TRICKS, AT_GAME_ROUND, AT_START_CARDS)
    )
    exists = seats_in_round(rows)
    bids, won = rows[:, AT_BIDS : AT_BIDS + N_SEATS], rows[:, AT_TRICKS : AT_TRICKS + N_SEATS]
    may_pend = (rows[:, AT_BIDS] == BID_PENDING)[:, None] & (bids == BID_PENDING)
    if not np.where(exists, (bids <= rows[:, AT_N_CARDS, None]) | may_pend, bids == BID_NO_SEAT).all():
        return "invalid bids"
    if (won.sum(axis=1, dtype=np.int16) != tricks).any() or won[~exists].any():
        return "tricks won that do not add up to the finished tricks"
    shown = np.repeat(rows[:, AT_VOIDS : AT_VOIDS + N_SEATS // 2], 2, axis=1) & np.array([0x0F, 0xF0] * 4, np.uint8)
    if shown[~exists].any():
        return "voids of missing seats"
    totals = np.ascontiguousarray(rows[:, AT_TOTALS : AT_TOTALS + 2 * N_SEATS]).view("<u2")
    if totals[~exists].any() or (totals > MOST_POINTS * game_round[:, None]).any():
        return "impossible totals"
    # A game's hand sizes go from `start` down to 1 and up again; both numbers are 0 in an independent round.
    n_rounds = np.where(start > 0, 2 * (start - 1) + header[:, AT_N_PLAYERS], 1)
    if (game_round >= n_rounds).any() or ((start > 0) & ((start > MAX_HAND) | (start < cards))).any():
        return "an invalid round of a game"
    return ""


def _fault_in_cards(rows: NDArray[np.uint8], header: NDArray[np.int16]) -> str:
    """Check the codes of the cards, given a valid header."""
    codes = rows[:, AT_CARDS : AT_CARDS + N_CARDS_IN_DECK]
    players, cards, tricks, leader = (header[:, at] for at in (AT_N_PLAYERS, AT_N_CARDS, AT_N_TRICKS, AT_LEADER))
    if not _CODES[players[:, None], codes].all():
        return "invalid card codes"
    is_finished = (codes >= CARD_PLAYED) & (codes < CARD_HELD)
    is_on_table = (codes >= CARD_ON_TABLE) & (codes < CARD_PLAYED)
    if (is_finished & (codes >= (CARD_PLAYED * (1 + tricks[:, None])).astype(np.uint8))).any():
        return "cards of unfinished tricks"
    if (is_on_table & (codes < (CARD_ON_TABLE + leader[:, None]).astype(np.uint8))).any():
        return "cards on the table from seats still to play"
    on_table = np.where(rows[:, AT_BIDS] == BID_PENDING, 0, (players - leader) % players)
    counts = (
        (is_finished, tricks * players),
        (is_on_table, on_table),
        (codes == CARD_OWN, cards - tricks),
        (codes != CARD_UNSEEN, players * cards),
    )
    if any((np.count_nonzero(which, axis=1) != n).any() for which, n in counts):
        return "too many or too few cards"
    return ""


def _codes() -> NDArray[np.bool_]:
    """Return a `[9, 256]` mask of the card codes that are valid for each number of players."""
    valid = np.zeros((N_SEATS + 1, 256), dtype=np.bool_)
    for players in range(N_SEATS + 1):
        valid[players, [CARD_UNSEEN, CARD_OWN]] = True
        for first in (CARD_ON_TABLE, CARD_HELD):
            valid[players, first + 1 : first + players] = True
        for first in range(CARD_PLAYED, CARD_HELD, CARD_PLAYED):
            valid[players, first : first + players] = True
    return valid


_CODES: Final = _codes()
