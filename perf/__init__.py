# SPDX-License-Identifier: Apache-2.0
"""Measurements: benchmarks of every level, load on a server, better settings, long runs with faults."""
