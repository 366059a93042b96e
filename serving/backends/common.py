# SPDX-License-Identifier: Apache-2.0
"""What the backends share: check each request of a batch alone, run the good ones together, split the answers.

Triton's stub process imports this module beside `model.py`; `triton_python_backend_utils` exists only there, so it is
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
    """A loaded network: one input of rows, named outputs with a row per input row."""

    properties: Mapping[str, str]  # what the file says about itself

    input_name: str
    row_shape: tuple[int, ...]  # shape of one row
    dtype: np.dtype[Any]
    output_names: tuple[str, ...]

    def run(self, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Answer `[B, *row_shape]` with `[B, ...]` per output; the arrays may be overwritten by the next call."""


def check_rows(rows: NDArray[Any], network: Network, *, max_rows: int) -> str | None:
    """Say what is wrong with one request's rows, or None.

    Triton lets some shapes through that the network can't take: a batch of 2^32 with the bytes of one row, for one.
    Put together with others unchecked, it would fail every request of the same dynamic batch.
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
    """Refuse a network that isn't the one `config.pbtxt` declares, or that answers with numbers that aren't finite.

    Triton checks neither for a Python-based backend, and NaN weights must not replace a version that works.
    """
    stated = config.get("parameters", {}).get(VERSION_KEY, {}).get("string_value")
    found = network.properties.get(VERSION_KEY)
    if None not in (stated, found) and stated != found:
        raise ValueError(f"expected {VERSION_KEY} {stated} as in config.pbtxt, got {found}; export the model again")
    declared = {entry["name"]: tuple(int(d) for d in entry["dims"]) for entry in config["input"]}
    expected = {network.input_name: network.row_shape}
    if declared != expected:
        raise ValueError(f"expected the input {expected} in config.pbtxt, got {declared}; export the model again")
    # Ones are a row every decoder can take: a count of zero players might divide by zero.
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


def parameter(args: Mapping[str, str], key: str, default: str, *, choices: Sequence[str] = ()) -> str:
    """Read one `parameters` entry of `config.pbtxt`."""
    entries = json.loads(args["model_config"]).get("parameters", {})
    value = str(entries.get(key, {}).get("string_value", default)).strip()
    if choices and value not in choices:
        known = ", ".join(choices)
        raise ValueError(f"expected parameter {key} to be one of {known}, got {value!r}; correct config.pbtxt")
    return value


def thread_count(args: Mapping[str, str]) -> int:
    """The parameter `threads`; 0, its default, shares the cores that this process may use among the instances."""
    text = parameter(args, "threads", "0")
    if not text.isdecimal():
        raise ValueError(f"expected parameter threads to be a whole number, got {text!r}; correct config.pbtxt")
    groups = json.loads(args["model_config"]).get("instance_group", [])
    instances = sum(int(group.get("count", 1)) for group in groups)
    return int(text) or max(1, len(os.sched_getaffinity(0)) // max(1, instances))


def end_with_server() -> None:
    """End this process within a second of its server, by a child that watches both.

    Killed outright, the server can leave this process waiting for a semaphore of their shared memory with Python's
    global lock held: then no thread of ours runs, and Triton's own watch, which wants that lock, waits forever.
    """
    server, stub = os.getppid(), os.getpid()
    if os.fork() != 0:
        return
    try:  # nothing may leave this block: above it lies Triton's own code
        Path("/proc/self/comm").write_text("blobzero-watch")  # its name in a list of processes
        while os.getppid() == stub and parent_of(stub) == server:
            time.sleep(SERVER_CHECK_S)
        if os.getppid() == stub:
            os.kill(stub, signal.SIGKILL)
    finally:
        os._exit(0)


def parent_of(pid: int) -> int:
    """The parent of a process that runs (proc(5): the fourth field of its `stat`, after a name in parentheses)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class BatchingModel:
    """The life of a Python-based backend: Triton calls `initialize` once, `execute` per dynamic batch."""

    FILE = "model.onnx"
    """The name of a version's file."""

    def load(self, path: Path, args: Mapping[str, str]) -> tuple[Network, str]:
        """Load the file; also say in words how it will run. Defined by each backend."""
        raise NotImplementedError

    def sizes(self) -> Sequence[int]:
        """Batches that were better computed once before; a backend that keeps something of every size has more."""
        return (self.max_rows,)

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load and check; whatever is raised here makes Triton refuse the version and keep the old one."""
        import triton_python_backend_utils as pb

        end_with_server()
        self.pb = pb
        config = json.loads(args["model_config"])
        self.max_rows = max(1, int(config["max_batch_size"]))
        path = Path(args["model_repository"]) / args["model_version"] / self.FILE
        try:
            self.network, how = self.load(path, args)
            check_network(self.network, config)
            # Before it serves: then its memory stays as it is, and nobody is the first to ask for a size.
            for n_rows in self.sizes():
                self.network.run(np.zeros((n_rows, *self.network.row_shape), self.network.dtype))
        except Exception as error:  # Triton reports the first line only
            text = " ".join(str(error).split())
            where = "/".join(
                (args["model_name"], *path.parts[-2:])
            )  # the folders above may be links of the server's own
            raise ValueError(f"cannot serve {where}: {text}") from error
        self.known_outputs = frozenset(self.network.output_names)
        pb.Logger.log_info(f"{args['model_name']} version {args['model_version']}: {how}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request of a dynamic batch, each with its own rows or its own error."""
        pb, network = self.pb, self.network
        responses: list[Any] = [None] * len(requests)
        good: list[int] = []
        batches: list[NDArray[Any]] = []
        for i, request in enumerate(requests):
            fault = None
            try:
                rows = pb.get_input_tensor_by_name(request, network.input_name).as_numpy()
                fault = check_rows(rows, network, max_rows=self.max_rows)
            except Exception as error:  # one request's damage must not reach the others
                fault = f"cannot read {network.input_name}: {error}"
            if fault is None:
                good.append(i)
                batches.append(rows)
            else:
                responses[i] = pb.InferenceResponse(error=pb.TritonError(fault, pb.TritonError.INVALID_ARG))
        if good:
            answers = network.run(batches[0] if len(good) == 1 else np.concatenate(batches))
            start = 0
            for i, rows in zip(good, batches, strict=True):
                stop = start + len(rows)
                wanted = self.known_outputs.intersection(requests[i].requested_output_names())
                responses[i] = pb.InferenceResponse([pb.Tensor(name, answers[name][start:stop]) for name in wanted])
                start = stop
        return responses
