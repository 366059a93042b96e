# SPDX-License-Identifier: Apache-2.0
"""Triton server as a child process, its CPU backends, and its supervision.

Triton's backend processes import this package too, so this module imports nothing; use `serving.embedded`.
"""
