# SPDX-License-Identifier: Apache-2.0
"""Errors of the engine, and the base of all errors of the project."""

from collections.abc import Sequence


class BlobError(Exception):
    """Base of all errors raised deliberately by this project; the message is one line that says what to do."""


class InvalidConfig(BlobError, ValueError):
    """A setting is outside its range."""


class InvalidDeal(BlobError, ValueError):
    """The rules allow no such hands, dealer or trump."""


class IllegalAction(BlobError, ValueError):
    """The rules forbid the action in this state; the state is unchanged.

    Attributes:
        action: the rejected action.
        seat: the seat to act, or None if the round is over.
        legal: the legal actions.
    """

    def __init__(self, action: int, seat: int | None, legal: Sequence[int]) -> None:
        self.action = action
        self.seat = seat
        self.legal = list(legal)
        where = f"for seat {seat}" if seat is not None else "after the round is over"
        super().__init__(f"illegal action {action} {where}: expected one of {self.legal}")


class InvalidEvaluation(BlobError, ValueError):
    """An evaluation has wrong shapes or non-finite numbers."""


class NoMemory(BlobError, MemoryError):
    """Memory allocation failed."""
