# SPDX-License-Identifier: Apache-2.0
"""Load on a Triton server: client processes that send in a closed or an open loop, and what came of it.

`measure(target, traffic, load)` runs one point; `Generator` keeps its client processes from point to point.
"""

from clients.load.generator import Generator, measure
from clients.load.plan import Load, LoadError, NoAnswers, Patience, Target, Traffic
from clients.load.point import Point

__all__ = ["Generator", "Load", "LoadError", "NoAnswers", "Patience", "Point", "Target", "Traffic", "measure"]
