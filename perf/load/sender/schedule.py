# SPDX-License-Identifier: Apache-2.0
"""Send times of an open loop: a Poisson process, drawn in advance.

Each of P processes draws its own arrivals at rate r / P; together they form a process of rate r. During the ramp the
rate grows linearly from 0.
"""

import math
from collections.abc import Iterator

import numpy as np


def arrivals(rate: float, *, ramp_s: float, seed: tuple[int, ...]) -> Iterator[float]:
    """Yield arrival times in seconds after the start, without end.

    Let L(t) be the expected number of requests by time t: rate t^2 / (2 ramp) during the ramp, rate (t - ramp / 2)
    afterwards. Then the times are L's inverse at the arrivals of a process of rate 1.
    """
    rng = np.random.default_rng((2, *seed))  # stream 1 draws the rows
    expected = 0.0
    in_ramp = rate * ramp_s / 2
    while True:
        for gap in rng.exponential(size=1024):
            expected += float(gap)
            yield math.sqrt(2 * ramp_s * expected / rate) if expected < in_ramp else expected / rate + ramp_s / 2
