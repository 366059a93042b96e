# SPDX-License-Identifier: Apache-2.0
"""Triton as a child process: NVIDIA's server from the wheel, started, checked with an inference, and stopped.

```
this process ── guardian.py ── tritonserver ── triton_python_backend_stub (one per model version and instance)
                               └────────── one process group ───────────┘
```
However this process ends, the guardian ends the group and removes its shared memory.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

import psutil
from rich.console import Console

from clients.address import join_url
from mcts_ext.contract import MODEL_NAME
from serving.command import server_command
from serving.config import ServerConfig
from serving.doors import Doors
from serving.errors import ProbeFailed, ProbeTimeout, ProbeUnreachable, ServerStartFailed, ServingError
from serving.folders import ROOM, lay_out, new_folder
from serving.guardian import kill_group, remove_traces
from serving.install import check_open_files, find_installation
from serving.probe import Probe
from serving.repository import check_repository
from serving.watch import Watch

GUARDIAN = Path(__file__).resolve().with_name("guardian.py")
STOP_GRACE_S = 4.0  # then SIGKILL; Triton takes 2.6 s, and 30 s with a dead stub
POLL_S = 0.05
N_PORT_TRIES = 3
DEAD_BACKEND_S = 2.0  # Triton itself waits 90 s and more for a stub that ended before it was ready
HARMLESS = "CudaDriverHelper"  # logged as an error on every machine without a GPU


@dataclass(frozen=True)
class ServerCpu:
    """CPU time (user + system) so far, including earlier starts."""

    server_s: float  # tritonserver
    backend_s: float  # its stub processes, which run the network


class EmbeddedTriton:
    """Owns one server: its processes, ports, shared memory and temporary folder.

    After `start`, the attributes `url` (gRPC, HOST:PORT), `http_url` (None if off), `metrics_url`, `key_file`,
    `log_file` and `pid` are set; a restart changes only `pid`.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._lock = threading.RLock()
        self._guardian: subprocess.Popen[str] | None = None
        self._probe: Probe | None = None
        self.pid = 0  # process id of the server; 0 before the start
        self.keeps_log = True  # set by code that shows the log's path to the user
        self._cpu_of: dict[tuple[int, float], tuple[str, float]] = {}  # (pid, started) -> (kind, CPU seconds)

    def start(self) -> None:
        """Validate, start, and return after the first successful inference.

        Raises:
            ServingError: with a subclass for the cause; no process is left running.
        """
        with self._lock:
            if self._guardian is not None:
                raise ServingError("expected a stopped server, got a running one; call restart()")
            self._installation = find_installation()
            check_open_files()
            check_repository(self.config.repository, model=self.config.model, config_name=self.config.config_name)
            self.log_file = self.config.log_file or _new_log_file()
            self.keeps_log = self.config.log_file is not None
            try:
                self._launch_at_free_ports()
            except BaseException:
                self._drop_log()
                raise

    def restart(self) -> None:
        """Kill the server if it still runs, start it on the same ports, and wait for an inference."""
        with self._lock:
            self._end(signal.SIGQUIT)
            self._launch()

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the server and its processes; does nothing if it is not running.

        Triton takes about three seconds to end, in which it answers what is in flight; `at_once` drops that.
        """
        with self._lock:
            self._end(signal.SIGQUIT if at_once else signal.SIGTERM)
            self._drop_log()

    def is_alive(self) -> bool:
        """Return whether the server's process runs, which does not mean that it responds."""
        return self._guardian is not None and self._guardian.poll() is None

    def dead_backends(self) -> set[int]:
        """Return the backend processes that have died unnoticed: Triton reaps them only when it unloads the model."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children() if self.pid else []
            return {child.pid for child in children if _is_zombie(child)}
        return set()

    def infer_once(self, *, timeout_s: float) -> None:
        """Run one inference; raises `ProbeFailed` or a subclass."""
        self._require_probe().infer(timeout_s=timeout_s)

    def n_executions(self, *, timeout_s: float) -> int:
        """Return the number of batches executed since the server started."""
        return self._require_probe().n_executions(timeout_s=timeout_s)

    def cpu_seconds(self) -> ServerCpu:
        """Return the CPU time of the server and its backends; a dead process counts up to the last call before."""
        if self.is_alive():
            with suppress(psutil.NoSuchProcess):
                server = psutil.Process(self.pid)
                for process in (server, *server.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        times = process.cpu_times()
                        kind = "server" if process.pid == self.pid else "backend"
                        self._cpu_of[process.pid, process.create_time()] = (kind, times.user + times.system)
        used = {"server": 0.0, "backend": 0.0}
        for kind, seconds in list(self._cpu_of.values()):
            used[kind] += seconds
        return ServerCpu(server_s=used["server"], backend_s=used["backend"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(at_once=True)  # its owner is done, so nothing that anybody waits for is in flight

    def _launch_at_free_ports(self) -> None:
        requested = (self.config.grpc_port, self.config.metrics_port)
        for tries_left in reversed(range(N_PORT_TRIES)):
            self.doors = Doors.choose(self.config)
            try:
                self._launch()
                return
            except ServerStartFailed:
                # Another process can take a free port before Triton listens on it.
                if not tries_left or "already in use" not in self._log_of_this_start() or None not in requested:
                    raise

    def _launch(self) -> None:
        """Start the server at `self.doors` and wait until it responds; on failure end everything."""
        config, doors = self.config, self.doors
        self.pid = 0
        self.url, self.http_url, self.metrics_url = doors.url, doors.http_url, doors.metrics_url
        self.key_file = doors.key_file
        self.folder = folder = new_folder()  # the guardian removes it
        try:
            doors.leave_key()  # the guardian removes it
            environment = lay_out(folder, self._installation, config.repository)
            command = [
                sys.executable, "-I", "-S", str(GUARDIAN), str(os.getpid()), str(folder),
                str(doors.key_file) if doors.is_drawn else "", str(STOP_GRACE_S),
                *server_command(config, doors, folder, self._installation.server, grace_s=STOP_GRACE_S),
            ]  # fmt: skip
            with self.log_file.open("ab") as log:
                self._log_start = log.tell()
                self._guardian = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # Ctrl-C must reach this process only
                )
            assert self._guardian.stdout is not None
            line = self._guardian.stdout.readline()
            if not line.strip().isdecimal():
                raise ServerStartFailed(f"expected Triton to start, got: {self._why_it_failed()}")
            self.pid = int(line)
            self._probe = Probe(self.url, model=config.model)
            self._wait_until_ready()
        except BaseException as error:
            self._end(signal.SIGQUIT)
            remove_traces(folder)  # the guardian may not have started
            doors.remove_key()
            if isinstance(error, OSError):
                raise ServingError(f"expected to write {folder} and {self.log_file}, got: {error}; {ROOM}") from error
            self.keeps_log |= str(self.log_file) in str(error)
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.config.start_timeout_s
        last: ProbeFailed | None = None
        died_at: float | None = None
        while time.monotonic() < deadline:
            if not self.is_alive():
                raise ServerStartFailed(f"expected Triton to start, got: {self._why_it_failed()}")
            if not self.dead_backends():
                died_at = None
            elif died_at is None:
                died_at = time.monotonic()
            elif time.monotonic() - died_at > DEAD_BACKEND_S:
                raise ServerStartFailed(f"expected Triton's backend to start, but it has died: {self._why_it_failed()}")
            try:
                self.infer_once(timeout_s=max(0.1, min(5.0, deadline - time.monotonic())))
                if self._listens():
                    return
            except (ProbeUnreachable, ProbeTimeout) as error:
                last = error
            except ProbeFailed as error:  # Triton listens only after the model is loaded, so retries cannot help
                raise ServerStartFailed(
                    f"expected {self.config.model} to answer, got: {error}; see {self.log_file}"
                ) from error
            time.sleep(POLL_S)
        raise ServerStartFailed(
            f"expected Triton to respond within {self.config.start_timeout_s:g} s, got: {last}; see {self.log_file}"
        )

    def _end(self, how: signal.Signals) -> None:
        """End the server: gracefully for SIGTERM, at once for SIGQUIT."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        if self._guardian is None:
            return
        self.cpu_seconds()
        self._guardian.send_signal(how)
        if self._guardian.wait() < 0 and self.pid:  # the guardian was killed and could not clean up
            kill_group(self.pid)
        remove_traces(self.folder)
        self.doors.remove_key()
        if self._guardian.stdout is not None:
            self._guardian.stdout.close()
        self._guardian = None

    def _drop_log(self) -> None:
        if not self.keeps_log:
            self.log_file.unlink(missing_ok=True)

    def _require_probe(self) -> Probe:
        if self._probe is None:
            raise ServingError("expected a running server, got a stopped one; call start()")
        return self._probe

    def _listens(self) -> bool:
        """Return whether all endpoints listen: Triton serves gRPC before it finds its HTTP port taken, and exits."""
        with suppress(psutil.NoSuchProcess):
            sockets = psutil.Process(self.pid).net_connections(kind="tcp")
            listening = {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN}
            return {port for _, port in self.doors.endpoints.values()} <= listening
        return False

    def _log_of_this_start(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _why_it_failed(self) -> str:
        """Return the most informative lines of the log as one: errors of this start, then the final verdict."""
        lines = [line.strip() for line in self._log_of_this_start().splitlines() if line.strip()]
        faults = [m[1] for line in lines if (m := re.match(r'E\d{4} .*?\] "?(.*?)"?$', line)) and HARMLESS not in m[1]]
        verdicts = [line for line in lines if line.startswith("error:")]
        if verdicts and "failed to load all models" not in verdicts[-1]:
            faults = []  # the verdict is enough
        bare = [line for line in lines if not re.match(r"[A-Z]\d{4} |[+|]", line)]  # from a shell or an aborting stub
        telling = [*faults[-1:], *verdicts[-1:]] or bare[-1:] or lines[-1:] or ["an empty log"]
        why = "; ".join(line.rstrip("; ")[:400] for line in telling)
        return f"{why.replace(str(self.folder / 'models'), str(self.config.repository))}; see {self.log_file}"


def serve(config: ServerConfig) -> int:
    """Serve until Ctrl-C or SIGTERM: the body of `blobzero serve`.

    Returns:
        The exit status: 0, or 128 + the signal's number if stopped before the server was ready.
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    stop = threading.Event()
    is_up = False
    stopped_by = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = number
        stop.set()
        if not is_up:
            raise KeyboardInterrupt  # do not wait for the start

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedTriton(config) as server:
            is_up = True
            console.print(f"Triton serves {config.model} from {config.repository}")
            details: dict[str, object] = {"gRPC": server.url, "HTTP": server.http_url, "metrics": server.metrics_url}
            server.keeps_log = True
            details |= {"key": server.key_file, "log": server.log_file, "open": server.doors.open_to_others()}
            details["watch"] = f"blobzero top --url {join_url(*server.doors.endpoints['metrics'])}"
            for name, detail in details.items():
                if detail is not None:
                    console.print(f"  {name:8} {detail}")
            console.print("Ctrl-C stops it.")
            with Watch(server, on_event=lambda text: console.print(text, style="yellow")):
                stop.wait()
            console.print("stopping")
            server.stop()  # others may wait for answers
    except KeyboardInterrupt:
        if not stopped_by:  # raised by another handler
            raise
        return 128 + stopped_by
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


@contextmanager
def own_server(
    repository: Path,
    *,
    say: Callable[[str], None],
    model: str = MODEL_NAME,
    config_name: str | None = None,
    key_file: Path | None = None,
    log_file: Path | None = None,
    is_watched: bool = True,
) -> Iterator[EmbeddedTriton]:
    """Start a Triton on `repository`, watch and cure it, and end it.

    Args:
        repository, model, config_name, key_file, log_file: as in `ServerConfig`.
        say: told, a line each, what the server and its watch do.
        is_watched: whether it is cured; not where its failure is what is to be seen.

    Raises:
        ServingError: it does not start.
    """
    config = ServerConfig(repository, model=model, config_name=config_name, key_file=key_file, log_file=log_file)
    triton = EmbeddedTriton(config)
    say(f"starting Triton on {repository}" + (f" (log {log_file})" if log_file else ""))
    with triton, Watch(triton, on_event=say) if is_watched else nullcontext():
        yield triton


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _new_log_file() -> Path:
    try:
        handle, name = tempfile.mkstemp(prefix="blobzero-triton-", suffix=".log")
    except OSError as error:
        raise ServingError(f"expected a temporary file, got: {error}; {ROOM}") from error
    os.close(handle)
    return Path(name)
