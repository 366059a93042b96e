# SPDX-License-Identifier: Apache-2.0
"""Records of self-play: one row per decision, in arrays of equal length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES


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
