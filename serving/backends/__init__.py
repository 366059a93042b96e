# SPDX-License-Identifier: Apache-2.0
"""Python-based Triton backends, named after NVIDIA's own so that the same configuration works with both."""
