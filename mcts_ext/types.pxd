# SPDX-License-Identifier: Apache-2.0
"""Limits and the layout of the observation for Cython; documented in `contract.py` (tests compare the two)."""

cdef enum:
    MAX_SEATS = 8
    MAX_HAND = 13
    MAX_LEGAL = 14          # bids 0..13
    N_SUITS = 4
    DECK = 52
    NO_TRUMP = 4
    N_ACTIONS = 66
    FIRST_CARD_ACTION = 14

cdef enum:
    OBSERVATION_BYTES = 96
    OBSERVATION_WORDS = 12  # of 8 bytes
    AT_N_PLAYERS = 0
    AT_N_CARDS = 1
    AT_TRUMP = 2
    AT_DEALER = 3
    AT_N_TRICKS = 4
    AT_LEADER = 5
    AT_GAME_ROUND = 6
    AT_START_CARDS = 7
    AT_BIDS = 8
    AT_TRICKS = 16
    AT_VOIDS = 24
    AT_TOTALS = 28
    AT_CARDS = 44
    BID_PENDING = 14
    BID_NO_SEAT = 15
    CARD_UNSEEN = 0
    CARD_OWN = 1
    CARD_ON_TABLE = 8
    CARD_PLAYED = 16
    CARD_HELD = 208
