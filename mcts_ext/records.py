# SPDX-License-Identifier: Apache-2.0
"""Records in memory: one row per decision of self-play, in arrays of equal length, and their valid values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES
from mcts_ext.decode import fault_in_observations
from mcts_ext.legal import legal_actions, seats_in_round

TOLERANCE: Final = 1e-3
"""Tolerance of the sum of a policy."""


@dataclass(frozen=True)
class Records:
    """`n` decisions; forced moves are not recorded. Axes: contract.py."""

    observation: NDArray[np.uint8]
    """`[n, F]` information set of the seat to act, and the true hands of the other seats."""
    policy: NDArray[np.float32]
    """`[n, A]` policy of the search over all determinizations; sums to 1, 0 for illegal actions."""
    value: NDArray[np.float32]
    """`[n, S]` outcome by relative seat: final round score / (10 + N); 0 for missing seats."""
    round: NDArray[np.int64]
    """`[n]` round number within the run; the deal is a function of the run's seed and this number."""
    decision: NDArray[np.int16]
    """`[n]` moves made earlier in the round, including forced ones."""
    seat: NDArray[np.uint8]
    """`[n]` absolute seat that made the decision."""
    action: NDArray[np.uint8]
    """`[n]` action played, drawn from the policy with temperature."""
    model_version: NDArray[np.int64]
    """`[n]` version of the network that gave the last evaluation of the search."""

    def __len__(self) -> int:
        return len(self.round)

    @staticmethod
    def empty(n: int) -> "Records":
        """Return `n` rows of zeros."""
        return Records(
            observation=np.zeros((n, OBSERVATION_BYTES), dtype=np.uint8),
            policy=np.zeros((n, N_ACTIONS), dtype=np.float32),
            value=np.zeros((n, N_SEATS), dtype=np.float32),
            round=np.zeros(n, dtype=np.int64),
            decision=np.zeros(n, dtype=np.int16),
            seat=np.zeros(n, dtype=np.uint8),
            action=np.zeros(n, dtype=np.uint8),
            model_version=np.zeros(n, dtype=np.int64),
        )


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
