# SPDX-License-Identifier: Apache-2.0
"""What a run does at this moment: metrics, the live display, `blobzero top`."""
