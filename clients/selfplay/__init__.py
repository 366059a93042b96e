# SPDX-License-Identifier: Apache-2.0
"""Self-play: workers that play rounds, the fleet that keeps them running, records of what was played."""
