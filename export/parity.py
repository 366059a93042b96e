# SPDX-License-Identifier: Apache-2.0
"""Parity of two evaluations of the same network on the same positions.

Axes: `n` rows, `F` bytes of an observation, `A` = 66 actions, `S` = 8 seats.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import kl_div

from export.errors import ParityFailed
from export.precisions import Tolerance

Floats = NDArray[np.float32]
BATCH: Final = 512


class Answers(NamedTuple):
    """Outputs of an evaluation."""

    policy: Floats  # [n, A] logits
    value: Floats  # [n, S] in [0, 1]

    @classmethod
    def of_batches(cls, batches: Iterable[tuple[Floats, Floats]]) -> Self:
        """Join the outputs of consecutive batches."""
        return cls(*map(np.concatenate, zip(*batches, strict=True)))


@dataclass(frozen=True)
class ParityReport:
    """Differences between two evaluations."""

    n_rows: int
    max_logit_difference: float
    mean_policy_kl: float
    """Mean KL divergence of softmax(got) from softmax(expected), over all 66 actions, in nats."""
    p99_policy_kl: float
    """99th percentile over the rows."""
    max_policy_kl: float
    same_top_action: float
    """Fraction of rows with the same best action of all 66."""
    max_value_difference: float
    mean_value_difference: float

    def __str__(self) -> str:
        return (
            f"{self.n_rows:,} rows, logits within {self.max_logit_difference:.1g}, values within "
            f"{self.max_value_difference:.1g} ({self.mean_value_difference:.1g} on average), "
            f"mean policy KL {self.mean_policy_kl:.1g}, "
            f"same top action {100 * self.same_top_action:.1f}%"
        )

    def require(self, tolerance: Tolerance, *, what: str) -> None:
        """Raise `ParityFailed` unless within `tolerance`; `what` names the compared evaluation."""
        pairs = (
            ("logit difference", self.max_logit_difference, tolerance.logit),
            ("mean policy KL", self.mean_policy_kl, tolerance.kl),
            ("value difference", self.max_value_difference, tolerance.value),
            ("mean value difference", self.mean_value_difference, tolerance.mean_value),
        )
        for name, got, allowed in pairs:
            if not got <= allowed:  # so that NaN fails
                raise ParityFailed(
                    f"expected {what} within {allowed:g} of PyTorch in {name}, got {got:.3g} over {self.n_rows} rows; "
                    "nothing was published: check for large weights, or an engine with low precision"
                )


def compare(expected: Answers, got: Answers) -> ParityReport:
    """Compare two evaluations of the same rows."""
    kl = policy_kl(expected.policy, got.policy)
    return ParityReport(
        n_rows=len(expected.policy),
        max_logit_difference=float(np.abs(expected.policy - got.policy).max()),
        mean_policy_kl=float(kl.mean()),
        p99_policy_kl=float(np.percentile(kl, 99)),
        max_policy_kl=float(kl.max()),
        same_top_action=float((expected.policy.argmax(1) == got.policy.argmax(1)).mean()),
        max_value_difference=float(np.abs(expected.value - got.value).max()),
        mean_value_difference=float(np.abs(expected.value - got.value).mean()),
    )


def policy_kl(expected: Floats, got: Floats) -> NDArray[np.float64]:
    """Return the KL divergence `[n]` KL(softmax(expected) || softmax(got)) in nats."""
    log_p, log_q = (torch.tensor(logits, dtype=torch.float64).log_softmax(-1) for logits in (expected, got))
    result: NDArray[np.float64] = kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1).numpy()
    return result
