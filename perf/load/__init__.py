# SPDX-License-Identifier: Apache-2.0
"""Load tests of a Triton server: client processes that send in a closed or an open loop, and their results.

`measure(target, traffic, load)` measures one point; a `Generator` keeps its client processes from point to point.
"""

from perf.load.generator import Generator, measure
from perf.load.plan import Load, LoadError, NoAnswers, Patience, Target, Traffic
from perf.load.point import Point
from perf.load.sweep import Slo, highest_rate, knee, parse_sweep

__all__ = [
    "Generator", "Load", "LoadError", "NoAnswers", "Patience", "Point", "Slo", "Target", "Traffic",
    "highest_rate", "knee", "measure", "parse_sweep",
]  # fmt: skip
