# SPDX-License-Identifier: Apache-2.0
"""The decisions that self-play leaves behind, one row each, as arrays of equal length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES


@dataclass(frozen=True)
class Records:
    """`n` decisions; forced moves leave no record. Axes: contract.py."""

    observation: NDArray[np.uint8]
    """`[n, F]` what the seat to act knew, and the hands that the others really held."""
    policy: NDArray[np.float32]
    """`[n, A]` the policy of the search over all determinizations; it sums to 1, and is 0 for illegal actions."""
    value: NDArray[np.float32]
    """`[n, S]` outcome by relative seat: final round score / (10 + N); 0 for seats that do not exist."""
    round: NDArray[np.int64]
    """`[n]` round number within the run: its deal is a function of the run's seed and this."""
    decision: NDArray[np.int16]
    """`[n]` moves made before this one in the round, forced ones included."""
    seat: NDArray[np.uint8]
    """`[n]` absolute seat that decided."""
    action: NDArray[np.uint8]
    """`[n]` action it played, drawn from the policy by temperature."""
    model_version: NDArray[np.int64]
    """`[n]` version of the network that answered last in this search."""

    def __len__(self) -> int:
        return len(self.round)

    @staticmethod
    def empty(n: int) -> "Records":
        """`n` rows of zeros."""
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
