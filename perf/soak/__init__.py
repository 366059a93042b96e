# SPDX-License-Identifier: Apache-2.0
"""A run of hours with faults, and an account of every round."""
