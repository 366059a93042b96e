# SPDX-License-Identifier: Apache-2.0
"""Long runs with injected faults, and an account of every round."""
