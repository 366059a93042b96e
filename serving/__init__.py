# SPDX-License-Identifier: Apache-2.0
"""The server itself: a real Triton run as a child process, its backends for a CPU, and what watches over it.

Triton's backend processes import this package too, so nothing is imported here: take names from `serving.embedded`.
"""
