# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a served model: the ONNX graph, its agreement with PyTorch, versions on disk, publishing."""
