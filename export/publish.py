# SPDX-License-Identifier: Apache-2.0
"""Publishing a network: export, compare, put on disk, load, compare again.

```
checkpoint -> ONNX -> agrees with PyTorch? -> version folder -> server loads it? -> its answers agree? -> current
                 \\____________ no: nothing on disk           \\______________ no: withdrawn, the old one serves on
```
The ONNX file is float32, or int8 made from it; each is compared.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from clients.local import read_cpuinfo
from export.config import MAX_BATCH_SIZE, ensure_config
from export.errors import ParityFailed, PublishFailed
from export.graph import export_onnx, metadata_of, read_metadata
from export.parity import (
    FLOAT32,
    INT8,
    SERVED,
    Answers,
    ParityReport,
    Tolerance,
    compare,
    run_onnx,
    run_torch,
)
from export.positions import sample_rows
from export.quantize import int8_pays, quantize
from export.repository import (
    MODEL_FILE,
    model_path,
    publish_version,
    versions,
    withdraw_version,
)
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, POLICY_NAME, VALUE_NAME
from training.checkpoint import CheckpointInfo, describe, load_checkpoint
from training.network import BlobNet, create_network

N_PARITY_ROWS: Final = 4096
PARITY_SEED: Final = 20
N_CALIBRATION_ROWS: Final = 1024
CALIBRATION_SEED: Final = 21
SERVER_TIMEOUT_S: Final = 60.0

Precision = Literal["auto", "float32", "int8"]


@dataclass(frozen=True)
class PublishReport:
    """What was published, and how well it agrees with PyTorch."""

    version: int
    path: Path
    info: CheckpointInfo
    precision: str
    """Of the published file: float32 or int8."""
    why: str
    """That precision, in words."""
    exported: ParityReport
    """The float32 graph."""
    quantized: ParityReport | None
    """The int8 graph; none where none was wanted."""
    served: ParityReport | None
    """The server's answers, in the precision it chose; none where no server was asked."""


def publish(
    network: Path | BlobNet, *, repository: Path, url: str | None = None, precision: Precision = "auto"
) -> PublishReport:
    """Publish a checkpoint, or a network as it stands, as the next version.

    Args:
        network: a checkpoint's path, or a network.
        repository: the model repository; its configuration is written where it is missing.
        precision: of the matrix products; `auto` takes int8 where this processor multiplies it in hardware, does not
            do as well in bfloat16, and the answers stay within `INT8` of PyTorch's.
        url: `host:port` of the gRPC endpoint of a server that serves `repository`; it loads the new version.

    Raises:
        BlobError: a subclass says what failed; the old version serves on and no new one is left on disk.
    """
    if isinstance(network, Path):
        return _publish(*load_checkpoint(network), repository=repository, url=url, precision=precision)
    return _publish(network, describe(network), repository=repository, url=url, precision=precision)


def ensure_model(repository: Path, *, preset: str = "reference", seed: int = 0) -> int:
    """The latest version, after publishing an untrained network as version 1 where there is none.

    Raises:
        BlobError: a subclass says why the latest version can't be served by this code, or none could be published.
    """
    ensure_config(repository)
    present = versions(repository)
    if not present:
        network = create_network(preset, seed=seed)
        info = describe(network, seed=seed)
        return _publish(network, info, repository=repository, url=None, precision="auto").version
    read_metadata(model_path(repository, present[-1]))
    return present[-1]


def _publish(
    network: BlobNet, info: CheckpointInfo, *, repository: Path, url: str | None, precision: Precision
) -> PublishReport:
    rows = sample_rows(N_PARITY_ROWS, seed=PARITY_SEED)
    expected = run_torch(network, rows)
    ensure_config(repository)
    with tempfile.TemporaryDirectory(prefix="blobzero-publish-") as folder:
        onnx_file, int8_file = Path(folder) / MODEL_FILE, Path(folder) / "int8.onnx"
        export_onnx(network, onnx_file, metadata=metadata_of(info))
        read_metadata(onnx_file)
        exported = compare(expected, run_onnx(onnx_file, rows))
        exported.require(FLOAT32, what="the exported graph")
        quantized, chosen, why = None, onnx_file, "asked for"
        if precision == "auto" and not int8_pays(read_cpuinfo()):
            why = "int8 does not pay on this processor"
        elif precision != "float32":
            quantize(onnx_file, int8_file, rows=sample_rows(N_CALIBRATION_ROWS, seed=CALIBRATION_SEED))
            read_metadata(int8_file)
            quantized = compare(expected, run_onnx(int8_file, rows))
            try:
                quantized.require(INT8, what="the int8 graph")
                chosen = int8_file
                why = why if precision == "int8" else "this processor multiplies int8 in hardware, and not bfloat16"
            except ParityFailed as error:
                if precision == "int8":
                    raise
                why = str(error).partition("; ")[0]
        version = publish_version(repository, chosen)
    name, tolerance = ("int8", INT8) if chosen is int8_file else ("float32", SERVED)
    served = None if url is None else _load_and_compare(repository, version, url, rows, expected, tolerance)
    return PublishReport(version, model_path(repository, version), info, name, why, exported, quantized, served)


def _load_and_compare(
    repository: Path, version: int, url: str, rows: NDArray[np.uint8], expected: Answers, tolerance: Tolerance
) -> ParityReport:
    """Let the server load `version` and compare its answers; withdraw the version if anything fails."""
    try:
        with triton.InferenceServerClient(url) as client:
            try:
                client.load_model(MODEL_NAME, client_timeout=SERVER_TIMEOUT_S)
                served = compare(expected, _ask(client, version, rows))
                served.require(tolerance, what="the server's answers")
                return served
            except BaseException:
                withdraw_version(repository, version)
                _load_quietly(client)
                raise
    except InferenceServerException as error:
        reason = " ".join(str(error.message()).split())
        raise PublishFailed(
            f"expected the server at {url} to load and answer {MODEL_NAME} version {version}, got: {reason}; "
            "the version was withdrawn: check the server's log and that it serves this repository"
        ) from error


def _load_quietly(client: triton.InferenceServerClient) -> None:
    """Make the server look again, so that it goes back to the version before."""
    try:
        client.load_model(MODEL_NAME, client_timeout=SERVER_TIMEOUT_S)
    except InferenceServerException:
        return  # the failure that led here is the one to tell


def _ask(client: triton.InferenceServerClient, version: int, rows: NDArray[np.uint8]) -> Answers:
    answers = []
    for start in range(0, len(rows), MAX_BATCH_SIZE):
        chunk = rows[start : start + MAX_BATCH_SIZE]
        tensor = triton.InferInput(INPUT_NAME, list(chunk.shape), "UINT8")
        tensor.set_data_from_numpy(chunk)
        result = client.infer(MODEL_NAME, [tensor], model_version=str(version), client_timeout=SERVER_TIMEOUT_S)
        answers.append((result.as_numpy(POLICY_NAME), result.as_numpy(VALUE_NAME)))
    return Answers(np.concatenate([policy for policy, _ in answers]), np.concatenate([value for _, value in answers]))
