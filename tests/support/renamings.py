# SPDX-License-Identifier: Apache-2.0
"""Rename suits: the rules know no suit by name, so all 24 relabellings of a position are the same game.

A renaming sends suit s to `RENAMINGS[k][s]`. It moves the 52 card bytes and the 52 card actions, maps the trump byte,
and permutes the four bits of each seat's voids; bids, seats and outcomes stay as they are.

Axes: `B` rows, `F` = 96 bytes, `A` = 66 actions (contract.py).
"""

from itertools import permutations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import (
    AT_CARDS,
    AT_TRUMP,
    AT_VOIDS,
    FIRST_CARD_ACTION,
    N_ACTIONS,
    N_CARDS_IN_DECK,
    N_SEATS,
    N_SUITS,
    NO_TRUMP,
    OBSERVATION_BYTES,
)

N_RANKS: Final = N_CARDS_IN_DECK // N_SUITS
RENAMINGS: Final = np.array(list(permutations(range(N_SUITS))), dtype=np.uint8)
"""`[24, 4]`: the new suit of each old one; the first changes nothing."""

_OLD_SUIT: Final = np.argsort(RENAMINGS, axis=1)
_OLD_CARD: Final = (_OLD_SUIT[:, :, None] * N_RANKS + np.arange(N_RANKS)).reshape(len(RENAMINGS), N_CARDS_IN_DECK)
_TRUMP: Final = np.concatenate([RENAMINGS, np.full((len(RENAMINGS), 1), NO_TRUMP, dtype=np.uint8)], axis=1)


def _gather(n: int, first: int) -> NDArray[np.intp]:
    """`[24, n]`: which old column each new one comes from, where the cards stand from column `first` on."""
    source = np.tile(np.arange(n), (len(RENAMINGS), 1))
    source[:, first : first + N_CARDS_IN_DECK] = first + _OLD_CARD
    return source


def _voids() -> NDArray[np.uint8]:
    """`[24, 256]`: a byte of two seats' voids after the renaming."""
    old = np.arange(256)
    new = np.zeros((len(RENAMINGS), 256), dtype=np.int64)
    for suit in range(N_SUITS):
        for low in (0, N_SUITS):
            new |= ((old >> (low + suit)) & 1) << (low + RENAMINGS[:, suit, None].astype(np.int64))
    return new.astype(np.uint8)


_BYTE_SOURCE: Final = _gather(OBSERVATION_BYTES, AT_CARDS)
_ACTION_SOURCE: Final = _gather(N_ACTIONS, FIRST_CARD_ACTION)
_VOIDS: Final = _voids()


def rename_suits(
    observation: NDArray[np.uint8], policy: NDArray[np.float32], renaming: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Rename the suits of each row by its own renaming.

    Args:
        observation: `[B, F]`.
        policy: `[B, A]`, by action.
        renaming: `[B]` indices into `RENAMINGS`.

    Returns:
        New arrays of the same shapes.
    """
    renamed = np.take_along_axis(observation, _BYTE_SOURCE[renaming], axis=1)
    renamed[:, AT_TRUMP] = _TRUMP[renaming, observation[:, AT_TRUMP]]
    voids = slice(AT_VOIDS, AT_VOIDS + N_SEATS // 2)
    renamed[:, voids] = _VOIDS[renaming[:, None], observation[:, voids]]
    return renamed, np.take_along_axis(policy, _ACTION_SOURCE[renaming], axis=1)
