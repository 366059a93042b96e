# SPDX-License-Identifier: Apache-2.0
"""Contract between the search and the network: tensor names, types, shapes and the layout of one observation.

This module states the layout once; the Cython writer, the network's decoder, Triton's `config.pbtxt` and the schema of
the records derive from it. Cython reads the numbers in `contract.pxd`, which `setup.py` writes.

Axes: `B` rows of a batch, `F` = 96 bytes of an observation, `A` = 66 actions, `S` = 8 seats.

One observation holds the information set of the seat to act and, with separate codes, the other seats' hands in the
determinization. All seats are relative (0 = the seat to act, 1 = the next clockwise). The search only knows hands that
it has dealt itself, so no hidden card leaks; without them, a seat's value could not depend on its hand.

```
byte   0        8         16           24       28            44                         96
       | header | bids[8] | tricks[8]  | voids  | totals[8]   | cards[52]                |
       | 8 x u8 | u8      | u8         | 2/byte | u16 LE      | u8, by card index        |
```
"""

from typing import Final

OBSERVATION_VERSION: Final = 2
"""Incremented whenever the meaning of a byte changes; exported models carry it and clients reject any other."""

VERSION_KEY: Final = "observation_version"
"""Metadata key in exported files and parameter in `config.pbtxt`; checked wherever present."""
PRECISION_KEY: Final = "precision"
"""Metadata key in exported files; a file without it is float32."""

MODEL_NAME: Final = "blobnet"
INPUT_NAME: Final = "observation"  # UINT8 [B, F]
POLICY_NAME: Final = "policy"  # FP32 [B, A] logits, unmasked: the client knows the legal actions
VALUE_NAME: Final = "value"  # FP32 [B, S] expected round score per relative seat / (10 + N), in [0, 1]

OBSERVATION_BYTES: Final = 96  # a multiple of 16, which its hash takes at a time
N_ACTIONS: Final = 66
N_SEATS: Final = 8
N_CARDS_IN_DECK: Final = 52
N_SUITS: Final = 4
MAX_HAND: Final = 13

INPUTS: Final = {INPUT_NAME: ("uint8", OBSERVATION_BYTES)}
OUTPUTS: Final = {POLICY_NAME: ("float32", N_ACTIONS), VALUE_NAME: ("float32", N_SEATS)}
"""Type and width of each tensor of a network, `[B, width]`: what a file, a server and an answer are compared with."""

FIRST_CARD_ACTION: Final = 14
"""Actions 0..13 are bids, 14 + card index are cards."""

NO_TRUMP: Final = 4

# Header bytes.
AT_N_PLAYERS: Final = 0  # 3..8
AT_N_CARDS: Final = 1  # cards dealt to each seat, 1..13
AT_TRUMP: Final = 2  # suit 0..3, or NO_TRUMP
AT_DEALER: Final = 3  # relative seat
AT_N_TRICKS: Final = 4  # finished tricks
AT_LEADER: Final = 5  # relative seat that leads the current trick (during the bidding: the first trick)
AT_GAME_ROUND: Final = 6  # rounds of the game already finished; 0 in an independent round
AT_START_CARDS: Final = 7  # C of the game's sequence of rounds; 0 in an independent round

AT_BIDS: Final = 8  # per relative seat: 0..13, or one of the two below
BID_PENDING: Final = 14
BID_NO_SEAT: Final = 15
AT_TRICKS: Final = 16  # per relative seat: tricks won
AT_VOIDS: Final = 24  # relative seat s: byte s // 2, bits 4 * (s % 2) + suit, set when it has shown void in suit
AT_TOTALS: Final = 28  # per relative seat: game points before this round, uint16 little-endian
AT_CARDS: Final = 44  # per card index, one of the codes below

CARD_UNSEEN: Final = 0  # undealt, or location not stated
CARD_OWN: Final = 1  # in the hand of the seat to act
CARD_ON_TABLE: Final = 8  # + relative seat 1..7 that played it to the current trick
CARD_PLAYED: Final = 16  # * (1 + trick) + relative seat that played it, for a finished trick 0..11
CARD_HELD: Final = CARD_PLAYED * 13  # + relative seat 1..7 that holds it: the last trick's cards are never CARD_PLAYED
