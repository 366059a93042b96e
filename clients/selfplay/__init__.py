# SPDX-License-Identifier: Apache-2.0
"""Self-play: worker processes, the fleet that supervises them, records on disk."""
