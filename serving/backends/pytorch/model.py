# SPDX-License-Identifier: Apache-2.0
"""Backend `pytorch`: TorchScript (`model.pt`) in PyTorch on the CPU, in the file's precision.

Parameter in `config.pbtxt`: `threads`, 0 for all cores. Names, types and shapes of the tensors come from the
configuration, since TorchScript has none; outputs are in its order. `torch.jit.load` accepts only TorchScript archives
and rejects a pickle without executing it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import PRECISION_KEY
from serving.backends.common import BatchingModel, Network

METADATA_FILE = "metadata.json"
"""File in the archive with the properties as a JSON object."""

DTYPES = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}


class TorchNetwork:
    """TorchScript module.

    It is not frozen or optimized for inference: this was no faster (17.1k to 17.3k rows/s per thread, preset reference,
    512 rows; nor with preset small), because the network has no norm to fold into a matrix product.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any], n_threads: int) -> None:
        try:
            import torch
        except ImportError as error:
            raise ValueError(
                "expected the package torch for the backend pytorch, got none; install it with: "
                "pip install 'blobzero[train]', or serve another configuration"
            ) from error
        torch.set_num_threads(n_threads)  # this process is one instance
        self.torch = torch
        extra = {METADATA_FILE: ""}
        self.module: Any = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
        self.module.eval()
        self.properties: Mapping[str, str] = json.loads(extra[METADATA_FILE] or "{}")
        (source,) = config["input"]
        self.input_name: str = source["name"]
        self.row_shape = tuple(int(d) for d in source["dims"])
        self.dtype: np.dtype[Any] = np.dtype(DTYPES[source["data_type"]])
        self.output_names = tuple(entry["name"] for entry in config["output"])

    def run(self, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Network`."""
        with self.torch.inference_mode():
            answers = self.module(self.torch.from_numpy(rows))
        return {name: answer.numpy() for name, answer in zip(self.output_names, answers, strict=True)}


class TritonPythonModel(BatchingModel):
    """Class expected by Triton."""

    FILE = "model.pt"

    def load(self, path: Path, config: Mapping[str, Any], n_threads: int) -> tuple[Network, str]:
        """See `BatchingModel`."""
        network = TorchNetwork(path, config=config, n_threads=n_threads)
        stored = network.properties.get(PRECISION_KEY, "float32")
        return network, f"PyTorch {network.torch.__version__}, {stored} file, {n_threads} threads"
