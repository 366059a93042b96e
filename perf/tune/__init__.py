# SPDX-License-Identifier: Apache-2.0
"""The search for a better configuration of a server and its clients."""
