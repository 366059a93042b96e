# SPDX-License-Identifier: Apache-2.0
"""Benchmarks behind every claim of speed: one module per level, run by `blobzero bench`."""
