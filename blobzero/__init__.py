# SPDX-License-Identifier: Apache-2.0
"""The `blobzero` command: one verb a file."""
