# SPDX-License-Identifier: Apache-2.0
"""Python-based Triton backends, named after NVIDIA's own so that one `config.pbtxt` serves both here and there."""
