# SPDX-License-Identifier: Apache-2.0
"""Network and training in PyTorch; no server."""

import os

# Turns that a waiting thread of PyTorch's spins before it sleeps; without a bound, other processes on the cores slow
# training down ten times more than their share (docs/experiments/training-speed.md). Read when PyTorch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "100000")
