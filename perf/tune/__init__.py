# SPDX-License-Identifier: Apache-2.0
"""Search for a better configuration of a server and its clients."""
