# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an observation to what the first layer reads: float features and rows of the pattern tables.

Two kinds of input, because a CPU pays for them differently:

- *features*, which enter matrix products: a column for every (byte, value) of header, bids and tricks, 24 columns a
  card, voids, totals and counts.
- *patterns*, which pick rows of a table: for each suit, which of its top ranks are own, gone or unseen, and how the
  suit stands to the trump, as one number. Four rows are read for a position, whatever the size of the table: the
  2.2M parameters of preset `reference` take 1 to 2% of its time on a CPU; with wider blocks in their
  place it is 1.7 times slower. (The tuple network of Lucas 2008, "Learning to Play Othello with N-Tuple Systems".)

Only values that a valid observation can hold get a column or a row, so every parameter behind them can be reached.
Indices are computed in int32: in bfloat16, which an engine may choose for floats, whole numbers are exact to 256 only.

Axes: `B` rows, `F` = 96 bytes; seats are relative to the seat to act.
"""

from typing import Final

import torch
from torch import Tensor, nn

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
    BID_PENDING,
    CARD_HELD,
    CARD_ON_TABLE,
    CARD_OWN,
    CARD_PLAYED,
    CARD_UNSEEN,
    MAX_HAND,
    N_CARDS_IN_DECK,
    N_SEATS,
    N_SUITS,
    NO_TRUMP,
)

N_RANKS: Final = N_CARDS_IN_DECK // N_SUITS
MIN_PLAYERS: Final = 3
CARD_COLUMNS: Final = 24  # own, on the table from seat 1..7, played by seat 0..7, how late, held by seat 1..7
RELATIONS: Final = 3  # of a suit to the trump: it is the trump, another suit is, none is
PLACES: Final = 3  # of a card in a pattern: unseen, own, gone


def most_cards(seat: int) -> int:
    """The largest hand in a round that has this relative seat: it takes `seat + 1` players, and never fewer than 3."""
    return min(MAX_HAND, N_CARDS_IN_DECK // max(MIN_PLAYERS, seat + 1))


def one_hot_columns() -> list[tuple[int, int]]:
    """(byte, value) pairs of header, bids and tricks that a valid observation can hold; one column each."""
    columns = [(AT_N_PLAYERS, n) for n in range(MIN_PLAYERS, N_SEATS + 1)]
    columns += [(AT_N_CARDS, n) for n in range(1, MAX_HAND + 1)]
    columns += [(AT_TRUMP, suit) for suit in range(NO_TRUMP + 1)]
    columns += [(AT_DEALER, seat) for seat in range(N_SEATS)]
    columns += [(AT_N_TRICKS, n) for n in range(MAX_HAND)]
    columns += [(AT_LEADER, seat) for seat in range(N_SEATS)]
    for seat in range(N_SEATS):
        columns += [(AT_BIDS + seat, bid) for bid in [*range(most_cards(seat) + 1), BID_PENDING]]
        columns += [(AT_TRICKS + seat, n) for n in range(most_cards(seat))]
    return columns


def need_columns() -> list[tuple[int, int]]:
    """(seat, bid - tricks won) pairs; -1 stands for every bid overshot. A pending bid has no column."""
    return [(seat, need) for seat in range(N_SEATS) for need in range(-1, most_cards(seat) + 1)]


def _card_columns() -> Tensor:
    """`[256, 17]` float32: the columns of a card by its code; any other byte reads as an unseen card."""
    table = torch.zeros(256, CARD_COLUMNS)
    table[CARD_OWN, 0] = 1
    for seat in range(1, N_SEATS):
        table[CARD_ON_TABLE + seat, seat] = 1
        table[CARD_HELD + seat, 2 * N_SEATS + seat] = 1
    for trick in range(MAX_HAND - 1):
        for seat in range(N_SEATS):
            table[CARD_PLAYED * (1 + trick) + seat, N_SEATS + seat] = 1
            table[CARD_PLAYED * (1 + trick) + seat, 2 * N_SEATS] = (1 + trick) / MAX_HAND
    return table


def _places() -> Tensor:
    """`[256, 1]` int32: the place of a card in a pattern by its code."""
    places = torch.full((256, 1), 2, dtype=torch.int32)
    places[CARD_UNSEEN], places[CARD_OWN] = 0, 1
    places[CARD_HELD + 1 :] = 0
    return places


def _relation_rows(n_patterns: int) -> Tensor:
    """`[256, 4]` int32: the first row of each suit's table, by the trump byte; a byte that is no suit is no trump."""
    relation = torch.full((256, N_SUITS), 2, dtype=torch.int32)
    relation[:NO_TRUMP] = 1
    relation[range(NO_TRUMP), range(NO_TRUMP)] = 0
    return (relation + RELATIONS * torch.arange(N_SUITS, dtype=torch.int32)) * n_patterns


class Decoder(nn.Module):
    """Unpack rows; it holds constants only, which the exported graph carries and a checkpoint does not."""

    def __init__(self, n_pattern_ranks: int) -> None:
        super().__init__()
        columns, needs = one_hot_columns(), need_columns()
        n_patterns = PLACES**n_pattern_ranks
        constants = {
            "column_byte": torch.tensor([byte for byte, _ in columns], dtype=torch.int32),
            "column_value": torch.tensor([float(value) for _, value in columns]),
            "need_seat": torch.tensor([seat for seat, _ in needs], dtype=torch.int32),
            "need_value": torch.tensor([float(value) for _, value in needs]),
            "card_columns": _card_columns(),
            "bits": ((torch.arange(256).unsqueeze(1) >> torch.arange(8)) & 1).to(torch.float32),
            "places": _places(),
            "place_value": PLACES ** torch.arange(n_pattern_ranks, dtype=torch.int32),
            "relation_rows": _relation_rows(n_patterns),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        self.n_pattern_ranks = n_pattern_ranks
        self.n_rows = N_SUITS * RELATIONS * n_patterns
        n_counts = N_SEATS + 2 + 3 * N_SUITS
        self.n_context = len(columns) + len(needs) + N_SEATS * N_SUITS + n_counts
        self.n_cards = N_CARDS_IN_DECK * CARD_COLUMNS

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unpack a batch.

        Args:
            observation: `[B, F]` uint8.

        Returns:
            `context` `[B, n_context]` and `cards` `[B, n_cards]` float32, about 0 to 1; `rows` `[B, 4]` int32, one
            pattern a suit. Two feature tensors, because concatenating them costs as much as all the rest here.
        """
        indices = observation.to(torch.int32)
        cards = nn.functional.embedding(indices[:, AT_CARDS:], self.get_buffer("card_columns")).flatten(1)
        return self._context(observation.to(torch.float32), indices), cards, self._rows(indices)

    def _context(self, numbers: Tensor, indices: Tensor) -> Tensor:
        columns = numbers.index_select(1, self.get_buffer("column_byte")) == self.get_buffer("column_value")
        bids = numbers[:, AT_BIDS : AT_BIDS + N_SEATS]
        tricks = numbers[:, AT_TRICKS : AT_TRICKS + N_SEATS]
        need = (bids - tricks).clamp(min=-1.0).index_select(1, self.get_buffer("need_seat"))
        void_bytes = indices[:, AT_VOIDS : AT_VOIDS + N_SEATS // 2]
        totals = numbers[:, AT_TOTALS : AT_TOTALS + 2 * N_SEATS].reshape(-1, N_SEATS, 2)
        by_suit = numbers[:, AT_CARDS:].reshape(-1, N_SUITS, N_RANKS)
        leader = numbers[:, AT_LEADER : AT_LEADER + 1].unsqueeze(2)
        return torch.cat(
            [
                columns.to(torch.float32),
                (need == self.get_buffer("need_value")).to(torch.float32),
                nn.functional.embedding(void_bytes, self.get_buffer("bits")).flatten(1),
                totals[:, :, 0] / 256 + totals[:, :, 1],
                numbers[:, AT_GAME_ROUND : AT_START_CARDS + 1] / 16,
                (by_suit == CARD_OWN).to(torch.float32).sum(2) / 4,
                ((by_suit == CARD_UNSEEN) | (by_suit > CARD_HELD)).to(torch.float32).sum(2) / N_RANKS,
                (by_suit == CARD_ON_TABLE + leader).to(torch.float32).sum(2),  # the led suit; none when leading
            ],
            dim=1,
        )

    def _rows(self, indices: Tensor) -> Tensor:
        top = indices[:, AT_CARDS:].reshape(-1, N_SUITS, N_RANKS)[:, :, N_RANKS - self.n_pattern_ranks :]
        places = nn.functional.embedding(top, self.get_buffer("places")).squeeze(3)
        pattern = (places * self.get_buffer("place_value")).sum(2, dtype=torch.int32)
        first = nn.functional.embedding(indices[:, AT_TRUMP], self.get_buffer("relation_rows"))
        return first + pattern
