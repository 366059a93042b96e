# SPDX-License-Identifier: Apache-2.0
"""The network and how it learns: PyTorch, no server."""
