# SPDX-License-Identifier: Apache-2.0
"""Validation of the values in a shard against the contract.

Readers index by the bytes of a record and train on its numbers, so every value is checked here once, before use.
Axes: contract.py.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

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
    MAX_HAND,
    N_ACTIONS,
    N_CARDS_IN_DECK,
    N_SEATS,
    NO_TRUMP,
)
from mcts_ext.legal import legal_actions, seats_in_round

TOLERANCE: Final = 1e-3
"""Tolerance of the sum of a policy."""
MOST_POINTS: Final = 10 + MAX_HAND
"""Maximum score of one round."""


def fault_in(columns: Mapping[str, NDArray[Any]]) -> str:
    """Return a description of the first invalid value in columns of records; empty if all are valid."""
    for name in ("round", "decision", "model_version"):
        if name in columns and (columns[name] < 0).any():
            return f"{name}s below 0"
    for name, limit in (("seat", N_SEATS), ("action", N_ACTIONS)):
        if name in columns and (columns[name] >= limit).any():
            return f"{name}s beyond {limit - 1}"
    rows = columns.get("observation")
    if rows is not None and (fault := fault_in_observations(rows)):
        return fault
    policy, value = columns.get("policy"), columns.get("value")
    for numbers in (policy, value):
        if numbers is not None and not np.isfinite(numbers).all():
            return "NaN or infinity"
    if policy is not None:
        if (policy < 0).any() or (np.abs(policy.sum(axis=1) - 1) > TOLERANCE).any():
            return "policies that do not sum to 1"
        if rows is not None and policy[~legal_actions(rows)].any():
            return "policies with illegal actions"
    if value is not None:
        if (value < 0).any() or (value > 1).any():
            return "values outside 0..1"
        if rows is not None and value[~seats_in_round(rows)].any():
            return "values of missing seats"
    return ""


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
    codes = rows[:, AT_CARDS:]
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
