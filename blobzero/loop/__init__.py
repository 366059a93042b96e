# SPDX-License-Identifier: Apache-2.0
"""Generations of self-play, training, publishing and matches, and the page about them."""
