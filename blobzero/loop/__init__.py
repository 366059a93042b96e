# SPDX-License-Identifier: Apache-2.0
"""Learning loop: generations of self-play, training, publishing and matches, and the report."""
