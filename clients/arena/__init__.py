# SPDX-License-Identifier: Apache-2.0
"""Who meets whom, and who is better: players, duplicate deals, ratings."""
