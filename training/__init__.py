# SPDX-License-Identifier: Apache-2.0
"""Network and training in PyTorch; no server."""
