# SPDX-License-Identifier: Apache-2.0
"""Sizes of the engine's arrays, from the numbers of `contract.py`."""

from mcts_ext.contract cimport MAX_HAND, N_CARDS_IN_DECK, N_SEATS

cdef enum:
    MAX_SEATS = N_SEATS
    MAX_LEGAL = MAX_HAND + 1    # bids 0..MAX_HAND
    DECK = N_CARDS_IN_DECK
