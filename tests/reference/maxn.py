# SPDX-License-Identifier: Apache-2.0
"""Brute-force max^n (Luckhardt and Irani 1986): the value of a position when every seat plays for its own points.

All hands are open. Where a seat has several equally good moves any of them may be played, so a position is worth a set
of outcomes, one for each way of breaking ties; a search that averages over them stays within the bounds they give.
A search of finite length also plays moves that are worse by little: `slack` counts them as ties.
"""

from mcts_ext.rules import Round

Scores = tuple[int, ...]
"""Round score per absolute seat."""


def outcomes(table: Round, *, slack: int = 0) -> frozenset[Scores]:
    """Every outcome of best play by all seats, whichever way ties (within `slack` points) are broken."""
    if table.is_over:
        return frozenset([tuple(table.scores())])
    seat = table.seat_to_act
    assert seat is not None
    moves = [(min(s[seat] for s in after), max(s[seat] for s in after), after) for after in _after_each(table, slack)]
    surest = max(low for low, _, _ in moves)
    # A move may be best under some way of breaking ties below it when it can reach what another one is sure of.
    return frozenset().union(*(after for _, high, after in moves if high >= surest - slack))


def own_bounds(table: Round, *, slack: int = 0) -> dict[int, tuple[int, int]]:
    """Per legal action the least and the most points it can bring the seat to act."""
    seat = table.seat_to_act
    assert seat is not None
    found = {}
    for action, after in zip(table.legal_actions(), _after_each(table, slack), strict=True):
        found[action] = (min(s[seat] for s in after), max(s[seat] for s in after))
    return found


def best_action(table: Round, *, slack: int = 0) -> tuple[int, int] | None:
    """The action that beats every other one whatever the ties, and by how many points; None if there is none."""
    bounds = own_bounds(table, slack=slack)
    best = max(bounds, key=lambda action: bounds[action][0])
    margin = bounds[best][0] - max(high for action, (_, high) in bounds.items() if action != best)
    return (best, margin) if margin > 0 else None


def _after_each(table: Round, slack: int) -> list[frozenset[Scores]]:
    after = []
    for action in table.legal_actions():
        child = table.copy()
        child.apply(action)
        after.append(outcomes(child, slack=slack))
    return after
