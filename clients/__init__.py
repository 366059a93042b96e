# SPDX-License-Identifier: Apache-2.0
"""Everything that asks the network: evaluators, self-play workers and their fleet, records. No torch."""
