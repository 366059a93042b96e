# SPDX-License-Identifier: Apache-2.0
"""What every claim of speed rests on: one file a level, run by `blobzero bench`."""
