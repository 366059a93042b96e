# SPDX-License-Identifier: Apache-2.0
"""Errors of the engine.

```
BlobError                     every error a user can cause or meet; its text is one line that says what to do
├── InvalidConfig             a setting outside its range
├── InvalidDeal               hands, dealer or trump that no deal of the rules produces
├── IllegalAction             an action the rules forbid here; the state is untouched
├── InvalidEvaluation         an evaluator answered with wrong shapes or with numbers that are not finite
└── NoMemory                  the system gives no more memory
```
"""

from collections.abc import Sequence


class BlobError(Exception):
    """Base of every error this project raises on purpose."""


class InvalidConfig(BlobError, ValueError):
    """A setting outside its range."""


class InvalidDeal(BlobError, ValueError):
    """Hands, dealer or trump that no deal of the rules produces."""


class IllegalAction(BlobError, ValueError):
    """An action the rules forbid in this state; nothing was applied.

    Attributes:
        action: the action asked for.
        seat: the seat to act, or None when the round is over.
        legal: the actions that are legal here.
    """

    def __init__(self, action: int, seat: int | None, legal: Sequence[int]) -> None:
        self.action = action
        self.seat = seat
        self.legal = list(legal)
        where = f"for seat {seat}" if seat is not None else "after the round is over"
        super().__init__(f"illegal action {action} {where}: expected one of {self.legal}")


class InvalidEvaluation(BlobError, ValueError):
    """An evaluator answered with wrong shapes or with numbers that are not finite."""


class NoMemory(BlobError, MemoryError):
    """The system gives no more memory."""
