# SPDX-License-Identifier: Apache-2.0
"""gRPC client of a Triton server."""
