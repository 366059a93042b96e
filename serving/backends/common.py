# SPDX-License-Identifier: Apache-2.0
"""Common code of the backends: check every request of a batch, run the valid ones together, split the outputs.

Triton's stub process imports this module with `model.py`; `triton_python_backend_utils` exists only there, so it is
imported when the model is initialized. Axes: `B` rows of all requests together, `b` rows of one request.
"""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import VERSION_KEY

SERVER_CHECK_S = 0.5


class Network(Protocol):
    """Loaded network with one input, and named outputs with a row per input row."""

    properties: Mapping[str, str]  # metadata of the file

    input_name: str
    row_shape: tuple[int, ...]  # shape of one row
    dtype: np.dtype[Any]
    output_names: tuple[str, ...]

    def run(self, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Map `[B, *row_shape]` to `[B, ...]` per output; the next call may overwrite the arrays."""


def check_rows(rows: NDArray[Any], network: Network, *, max_rows: int) -> str | None:
    """Return what is wrong with the rows of a request, or None.

    Triton accepts some invalid shapes, for example a batch of 2^32 with the bytes of one row. Unchecked, such a request
    would fail every other request of its dynamic batch.
    """
    fits = rows.dtype == network.dtype and rows.shape[1:] == network.row_shape
    if fits and 1 <= rows.shape[0] <= max_rows:
        return None
    shape = ", ".join(map(str, ("b", *network.row_shape)))
    return (
        f"expected {network.input_name} [{shape}] {network.dtype} with b in 1..{max_rows}, "
        f"got {list(rows.shape)} {rows.dtype}"
    )


def check_network(network: Network, config: Mapping[str, Any]) -> None:
    """Reject a network that does not match `config.pbtxt`, or whose outputs are not finite.

    Triton checks neither for a Python-based backend, and NaN weights must not replace a working version.
    """
    stated = config.get("parameters", {}).get(VERSION_KEY, {}).get("string_value")
    actual = network.properties.get(VERSION_KEY)
    if None not in (stated, actual) and stated != actual:
        raise ValueError(f"expected {VERSION_KEY} {stated} as in config.pbtxt, got {actual}; export the model again")
    declared = {entry["name"]: tuple(int(d) for d in entry["dims"]) for entry in config["input"]}
    expected = {network.input_name: network.row_shape}
    if declared != expected:
        raise ValueError(f"expected the input {expected} in config.pbtxt, got {declared}; export the model again")
    # Rows of ones are valid for every decoder; zero players might divide by zero.
    answers = network.run(np.ones((2, *network.row_shape), network.dtype))
    for entry in config["output"]:
        name, shape = entry["name"], [2, *(int(d) for d in entry["dims"])]
        if name not in answers:
            raise ValueError(f"expected an output {name}, got {', '.join(answers)}; export the model again")
        answer = answers[name]
        n_bad = int(np.count_nonzero(~np.isfinite(answer)))
        if list(answer.shape) != shape or n_bad:
            raise ValueError(
                f"expected {name} {shape}, all finite, for a probe of two rows, got {list(answer.shape)} "
                f"with {n_bad} numbers not finite; export the model again"
            )


def parameter(config: Mapping[str, Any], key: str, default: str, *, choices: Sequence[str] = ()) -> str:
    """Return one `parameters` entry of `config.pbtxt`."""
    value = str(config.get("parameters", {}).get(key, {}).get("string_value", default)).strip()
    if choices and value not in choices:
        known = ", ".join(choices)
        raise ValueError(f"expected parameter {key} to be one of {known}, got {value!r}; correct config.pbtxt")
    return value


def thread_count(config: Mapping[str, Any]) -> int:
    """Return the parameter `threads`; 0, the default, divides the available cores among the instances."""
    text = parameter(config, "threads", "0")
    if not text.isdecimal():
        raise ValueError(f"expected parameter threads to be a whole number, got {text!r}; correct config.pbtxt")
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", []))
    return int(text) or max(1, len(os.sched_getaffinity(0)) // max(1, instances))


def end_with_server() -> None:
    """Fork a child that kills this process within a second after the server has died.

    A killed server can leave this process waiting for a semaphore in shared memory while it holds the GIL: then no
    thread of this process runs, including Triton's own watchdog.
    """
    server, stub = os.getppid(), os.getpid()
    if os.fork() != 0:
        return
    try:  # no exception may propagate into Triton's code
        Path("/proc/self/comm").write_text("blobzero-watch")  # the process name
        while os.getppid() == stub and parent_of(stub) == server:
            time.sleep(SERVER_CHECK_S)
        if os.getppid() == stub:
            os.kill(stub, signal.SIGKILL)
    finally:
        os._exit(0)


def parent_of(pid: int) -> int:
    """Return the parent of a process (proc(5): fourth field of `stat`, after the name in parentheses)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class BatchingModel:
    """Base of the Python-based backends: Triton calls `initialize` once, `execute` per dynamic batch."""

    FILE = "model.onnx"
    """Name of a version's file."""

    def load(self, path: Path, config: Mapping[str, Any], n_threads: int) -> tuple[Network, str]:
        """Load the file; return the network and a description of its arithmetic. Defined by each backend."""
        raise NotImplementedError

    def sizes(self) -> Sequence[int]:
        """Return the batch sizes to warm up; overridden by backends that cache something per shape."""
        return (self.max_rows,)

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load and check the network; on an exception Triton rejects the version and keeps the old one."""
        import triton_python_backend_utils as pb

        end_with_server()
        self.pb = pb
        config = json.loads(args["model_config"])
        self.max_rows = max(1, int(config["max_batch_size"]))
        path = Path(args["model_repository"]) / args["model_version"] / self.FILE
        try:
            self.network, how = self.load(path, config, thread_count(config))
            check_network(self.network, config)
            # Warm up before serving, so that memory does not grow and no request pays for a new shape.
            for n_rows in self.sizes():
                self.network.run(np.zeros((n_rows, *self.network.row_shape), self.network.dtype))
        except Exception as error:  # Triton reports the first line only
            text = " ".join(str(error).split())
            # Without its parent folders, which may be links in the server's private folder.
            where = "/".join((args["model_name"], *path.parts[-2:]))
            raise ValueError(f"cannot serve {where}: {text}") from error
        self.known_outputs = frozenset(self.network.output_names)
        pb.Logger.log_info(f"{args['model_name']} version {args['model_version']}: {how}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response with outputs or an error for every request of a dynamic batch."""
        pb, network = self.pb, self.network
        responses: list[Any] = [None] * len(requests)
        valid: list[int] = []
        batches: list[NDArray[Any]] = []
        for i, request in enumerate(requests):
            fault = None
            try:
                rows = pb.get_input_tensor_by_name(request, network.input_name).as_numpy()
                fault = check_rows(rows, network, max_rows=self.max_rows)
            except Exception as error:  # an invalid request must not affect the others
                fault = f"cannot read {network.input_name}: {error}"
            if fault is None:
                valid.append(i)
                batches.append(rows)
            else:
                responses[i] = pb.InferenceResponse(error=pb.TritonError(fault, pb.TritonError.INVALID_ARG))
        if valid:
            answers = network.run(batches[0] if len(valid) == 1 else np.concatenate(batches))
            start = 0
            for i, rows in zip(valid, batches, strict=True):
                stop = start + len(rows)
                wanted = self.known_outputs.intersection(requests[i].requested_output_names())
                responses[i] = pb.InferenceResponse([pb.Tensor(name, answers[name][start:stop]) for name in wanted])
                start = stop
        return responses
