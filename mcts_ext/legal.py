# SPDX-License-Identifier: Apache-2.0
"""Legal actions computed from observations."""

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import (
    AT_BIDS,
    AT_CARDS,
    AT_DEALER,
    AT_LEADER,
    AT_N_CARDS,
    AT_N_PLAYERS,
    BID_PENDING,
    CARD_ON_TABLE,
    CARD_OWN,
    FIRST_CARD_ACTION,
    N_ACTIONS,
    N_CARDS_IN_DECK,
    N_SEATS,
    N_SUITS,
)


def legal_actions(observation: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a `[B, A]` mask of the legal actions of the seat to act; `observation` is `[B, F]`.

    While the seat's bid is pending: bids 0..N, except that the dealer may not make the bids sum to N (the hook).
    Afterwards: its cards, restricted to the led suit if it holds any.
    """
    n_cards = observation[:, AT_N_CARDS, None].astype(np.int16)
    bids = observation[:, AT_BIDS : AT_BIDS + N_SEATS].astype(np.int16)
    is_bidding = bids[:, :1] == BID_PENDING
    heard = np.where(bids < BID_PENDING, bids, 0).sum(axis=1, dtype=np.int16)[:, None]
    is_hooked = observation[:, AT_DEALER, None] == 0
    bid = np.arange(FIRST_CARD_ACTION, dtype=np.int16)

    cards = observation[:, AT_CARDS : AT_CARDS + N_CARDS_IN_DECK].reshape(-1, N_SUITS, N_CARDS_IN_DECK // N_SUITS)
    own = cards == CARD_OWN
    # CARD_ON_TABLE + 0 is never written, so no card matches if seat 0 is to lead.
    led = (cards == (CARD_ON_TABLE + observation[:, AT_LEADER])[:, None, None]).any(axis=2)
    must_follow = (led & own.any(axis=2)).any(axis=1)
    playable = own & (led | ~must_follow[:, None])[:, :, None]

    legal = np.empty((len(observation), N_ACTIONS), dtype=np.bool_)
    legal[:, :FIRST_CARD_ACTION] = is_bidding & (bid <= n_cards) & ~(is_hooked & (bid == n_cards - heard))
    legal[:, FIRST_CARD_ACTION:] = playable.reshape(-1, N_CARDS_IN_DECK) & ~is_bidding
    return legal


def seats_in_round(observation: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a `[B, S]` mask of the relative seats that exist."""
    return np.arange(N_SEATS) < observation[:, AT_N_PLAYERS, None]
