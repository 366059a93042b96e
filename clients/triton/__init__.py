# SPDX-License-Identifier: Apache-2.0
"""Asking a Triton server over gRPC."""
