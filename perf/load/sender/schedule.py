# SPDX-License-Identifier: Apache-2.0
"""When requests are sent: in a closed loop after an answer, in an open loop at times drawn beforehand.

Arrivals at rate r are a Poisson process. Each of P processes draws one of rate r / P of its own; together they are one
of rate r. While the load ramps up the rate grows linearly from 0.
"""

import math
from collections.abc import Iterator

import numpy as np


def arrivals(rate: float, *, ramp_s: float, seed: tuple[int, ...]) -> Iterator[float]:
    """Seconds after the start, without end.

    With L(t) requests expected by t, L = rate t^2 / (2 ramp) while it ramps up and rate (t - ramp / 2) after, the times
    are L's inverse at the arrivals of a process of rate 1.
    """
    rng = np.random.default_rng((2, *seed))  # 1 is of the rows
    expected = 0.0
    in_ramp = rate * ramp_s / 2
    while True:
        for gap in rng.exponential(size=1024):
            expected += float(gap)
            yield math.sqrt(2 * ramp_s * expected / rate) if expected < in_ramp else expected / rate + ramp_s / 2
