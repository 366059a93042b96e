# SPDX-License-Identifier: Apache-2.0
"""Monitoring: Prometheus metrics, the live display, `blobzero top`."""
