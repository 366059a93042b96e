# SPDX-License-Identifier: Apache-2.0
"""Export of checkpoints to ONNX and TorchScript, parity checks against PyTorch, and publishing of versions."""
