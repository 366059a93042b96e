# SPDX-License-Identifier: Apache-2.0
"""Decoder in the network's graph: from the bytes of an observation to float features and embedding indices.

Features of the whole round (header, bids, tricks, totals) form the *context*. All other features belong to one of the
four suits and have the same layout for each: the rules are symmetric in the suits, so the network reads all four with
shared weights. Per suit there are

- *suits*, float features: ranks that are own or gone, the suit's relation to the trump, voids shown in it, counts.
- *orders*: the holder of the suit's highest card in contest, of its second highest, and so on, as one embedding index
  per card. In contest are the cards on the table and in the hands of the determinization: what matters is that the jack
  is the best heart left, not who played the ace two tricks ago.
- *patterns*: which of the suit's top ranks are own, gone or unseen, as a single embedding index. The cost of a lookup
  does not depend on the table size. (Tuple network of Lucas 2008, "Learning to Play Othello with N-Tuple Systems".)

Who played which card, and when, is not decoded: the voids carry the relevant part, and it added nothing in an
experiment (docs/experiments/network.md). Only values that a valid observation can hold get a column or a row, so every
parameter is reachable. Indices are int32: bfloat16, which an engine may choose for floats, represents integers exactly
only to 256.

Axes: `B` rows, `F` bytes of an observation, 4 suits; seats are relative to the seat to act.
"""

from typing import Final

import torch
from torch import Tensor, nn

from mcts_ext import contract
from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS, N_SUITS, NO_TRUMP

CARDS: Final = slice(contract.AT_CARDS, contract.AT_CARDS + N_CARDS_IN_DECK)  # bytes of an observation
N_RANKS: Final = N_CARDS_IN_DECK // N_SUITS
MIN_PLAYERS: Final = 3
HOLDERS: Final = 2 * N_SEATS - 1  # own, held by seat 1..7, on the table from seat 1..7
RELATIONS: Final = 3  # a suit's relation to the trump: it is the trump, another suit is, no trump
PLACES: Final = 3  # a card's state in a pattern: unseen, own, gone


def most_cards(seat: int) -> int:
    """Return the largest hand in a round with this relative seat, which needs max(3, seat + 1) players."""
    return min(MAX_HAND, N_CARDS_IN_DECK // max(MIN_PLAYERS, seat + 1))


def one_hot_columns() -> list[tuple[int, int]]:
    """Return the (byte, value) pairs of header, bids and tricks in valid observations; each is one column."""
    columns = [(contract.AT_N_PLAYERS, n) for n in range(MIN_PLAYERS, N_SEATS + 1)]
    columns += [(contract.AT_N_CARDS, n) for n in range(1, MAX_HAND + 1)]
    columns += [(contract.AT_DEALER, seat) for seat in range(N_SEATS)]
    columns += [(contract.AT_N_TRICKS, n) for n in range(MAX_HAND)]
    columns += [(contract.AT_LEADER, seat) for seat in range(N_SEATS)]
    for seat in range(N_SEATS):
        columns += [(contract.AT_BIDS + seat, bid) for bid in [*range(most_cards(seat) + 1), contract.BID_PENDING]]
        columns += [(contract.AT_TRICKS + seat, n) for n in range(most_cards(seat))]
    return columns


def need_columns() -> list[tuple[int, int]]:
    """Return the (seat, bid - tricks won) pairs; -1 means any overshot bid. A pending bid has no column."""
    return [(seat, need) for seat in range(N_SEATS) for need in range(-1, most_cards(seat) + 1)]


def _holders() -> Tensor:
    """Return `[256, 1]` int32: by card code, the first row of its holder, or the last row if it is not in contest."""
    table = torch.full((256, 1), HOLDERS * N_RANKS, dtype=torch.int32)
    table[contract.CARD_OWN] = 0
    for seat in range(1, N_SEATS):
        table[contract.CARD_HELD + seat] = seat * N_RANKS
        table[contract.CARD_ON_TABLE + seat] = (N_SEATS - 1 + seat) * N_RANKS
    return table


def _places() -> Tensor:
    """Return `[256, 1]` int32: the state of a card in a pattern, by its code."""
    places = torch.full((256, 1), 2, dtype=torch.int32)
    places[contract.CARD_UNSEEN], places[contract.CARD_OWN] = 0, 1
    places[contract.CARD_HELD + 1 :] = 0
    return places


def _relations() -> Tensor:
    """Return `[256, 4]` int32: the relation of each suit to the trump, by the trump byte; other bytes mean no trump."""
    relation = torch.full((256, N_SUITS), 2, dtype=torch.int32)
    relation[:NO_TRUMP] = 1
    relation[range(NO_TRUMP), range(NO_TRUMP)] = 0
    return relation


class Decoder(nn.Module):
    """Decodes observations; has only constants, which are part of the exported graph but not of a checkpoint."""

    def __init__(self, n_pattern_ranks: int) -> None:
        super().__init__()
        columns, needs = one_hot_columns(), need_columns()
        n_patterns = PLACES**n_pattern_ranks
        constants = {
            "column_byte": torch.tensor([byte for byte, _ in columns], dtype=torch.int32),
            "column_value": torch.tensor([float(value) for _, value in columns]),
            "need_seat": torch.tensor([seat for seat, _ in needs], dtype=torch.int32),
            "need_value": torch.tensor([float(value) for _, value in needs]),
            "holders": _holders(),
            "higher": torch.ones(N_RANKS, N_RANKS).tril(-1),
            "bits": ((torch.arange(256).unsqueeze(1) >> torch.arange(8)) & 1).to(torch.float32),
            "places": _places(),
            "place_value": PLACES ** torch.arange(n_pattern_ranks, dtype=torch.int32),
            "relation_columns": nn.functional.one_hot(_relations().long(), RELATIONS).to(torch.float32).flatten(1),
            "relation_rows": _relations() * n_patterns,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        self.n_pattern_ranks = n_pattern_ranks
        self.n_context = len(columns) + len(needs) + N_SEATS + 2
        self.n_suits = 2 * N_RANKS + RELATIONS + N_SEATS + 3
        self.n_orders = HOLDERS * N_RANKS + 1
        self.n_patterns = RELATIONS * n_patterns

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode a batch.

        Args:
            observation: `[B, F]` uint8.

        Returns:
            `context` `[B, n_context]` and `suits` `[B, 4, n_suits]` float32, about 0 to 1; `orders` `[B, 4, 13]` int32,
            one index per card, the last for a card not in contest; `patterns` `[B, 4]` int32, one index per suit.
        """
        indices, numbers = observation.to(torch.int32), observation.to(torch.float32)
        return self._context(numbers), self._suits(numbers, indices), self._orders(indices), self._patterns(indices)

    def _context(self, numbers: Tensor) -> Tensor:
        columns = numbers.index_select(1, self.get_buffer("column_byte")) == self.get_buffer("column_value")
        bids = numbers[:, contract.AT_BIDS : contract.AT_BIDS + N_SEATS]
        tricks = numbers[:, contract.AT_TRICKS : contract.AT_TRICKS + N_SEATS]
        need = (bids - tricks).clamp(min=-1.0).index_select(1, self.get_buffer("need_seat"))
        totals = numbers[:, contract.AT_TOTALS : contract.AT_TOTALS + 2 * N_SEATS].reshape(-1, N_SEATS, 2)
        return torch.cat(
            [
                columns.to(torch.float32),
                (need == self.get_buffer("need_value")).to(torch.float32),
                totals[:, :, 0] / 256 + totals[:, :, 1],
                numbers[:, contract.AT_GAME_ROUND : contract.AT_START_CARDS + 1] / 16,
            ],
            dim=1,
        )

    def _suits(self, numbers: Tensor, indices: Tensor) -> Tensor:
        void_bytes = indices[:, contract.AT_VOIDS : contract.AT_VOIDS + N_SEATS // 2]
        voids = nn.functional.embedding(void_bytes, self.get_buffer("bits")).reshape(-1, N_SEATS, N_SUITS)
        relations = nn.functional.embedding(indices[:, contract.AT_TRUMP], self.get_buffer("relation_columns"))
        by_suit = numbers[:, CARDS].reshape(-1, N_SUITS, N_RANKS)
        leader = numbers[:, contract.AT_LEADER : contract.AT_LEADER + 1].unsqueeze(2)
        own = (by_suit == contract.CARD_OWN).to(torch.float32)
        unseen = ((by_suit == contract.CARD_UNSEEN) | (by_suit > contract.CARD_HELD)).to(torch.float32)
        counts = [
            own.sum(2) / 4,
            unseen.sum(2) / N_RANKS,
            (by_suit == contract.CARD_ON_TABLE + leader).to(torch.float32).sum(2),  # the led suit; none when leading
        ]
        return torch.cat(
            [
                own,
                1 - own - unseen,
                relations.reshape(-1, N_SUITS, RELATIONS),
                voids.transpose(1, 2),
                torch.stack(counts, 2),
            ],
            dim=2,
        )

    def _orders(self, indices: Tensor) -> Tensor:
        first = nn.functional.embedding(indices[:, CARDS], self.get_buffer("holders"))
        first = first.reshape(-1, N_SUITS, N_RANKS)
        in_contest = (first < self.n_orders - 1).to(torch.float32)
        higher = (in_contest @ self.get_buffer("higher")) * in_contest
        return first + higher.to(torch.int32)

    def _patterns(self, indices: Tensor) -> Tensor:
        top = indices[:, CARDS].reshape(-1, N_SUITS, N_RANKS)[:, :, N_RANKS - self.n_pattern_ranks :]
        places = nn.functional.embedding(top, self.get_buffer("places")).squeeze(3)
        pattern = (places * self.get_buffer("place_value")).sum(2, dtype=torch.int32)
        first = nn.functional.embedding(indices[:, contract.AT_TRUMP], self.get_buffer("relation_rows"))
        return first + pattern
