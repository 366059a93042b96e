# SPDX-License-Identifier: Apache-2.0
"""Guardian process between us and Triton, which survives a crash of either and cleans up.

A killed Triton leaves its backend (stub) processes and shared memory behind, and if we are killed, nothing stops
Triton. So this script starts the server as the leader of a process group and waits until either ends. It then kills the
group and removes the server's temporary folder, the shared memory regions with the folder's name, and the generated key
(KEY_FILE; empty for none). SIGTERM stops the server gracefully, SIGQUIT at once. It runs as a bare script
(`python -I -S guardian.py PARENT FOLDER KEY_FILE GRACE_S COMMAND...`), so it starts in milliseconds; it prints the
server's pid to its standard output and exits with the server's status.
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
POLL_S = 0.05
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def remove_traces(folder: Path) -> None:
    """Remove the temporary folder of a stopped server, and the shared memory with its name."""
    for region in SHARED_MEMORY.glob(f"{folder.name}*"):
        with suppress(FileNotFoundError):
            region.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def remove_key(path: Path | None, key: bytes) -> None:
    """Remove a generated key, unless another server on the same port has replaced it."""
    with suppress(OSError):
        if path is not None and path.read_bytes() == key:
            path.unlink()


def kill_group(pgid: int) -> None:
    """Kill a server's process group: the server and its stubs."""
    with suppress(ProcessLookupError):
        os.killpg(pgid, signal.SIGKILL)


def is_suspended(pid: int) -> bool:
    """Return whether a process is stopped by SIGSTOP or a debugger, so that only SIGKILL reaches it."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")


def die_with(parent: int) -> None:
    """Request SIGKILL if the guardian itself is killed (it is single-threaded, so this is safe after fork)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before the request
        os._exit(1)


def guard(parent: int, folder: Path, key_file: Path | None, grace_s: float, command: list[str]) -> int:
    """Run `command` until it ends, the parent ends, or a signal arrives; then clean up."""
    signals: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, _frame: signals.add(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server needs a descriptor per connection
    guardian = os.getpid()
    key = key_file.read_bytes() if key_file is not None else b""
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, process_group=0, preexec_fn=lambda: die_with(guardian)
    )
    try:
        print(server.pid, flush=True)
        # Poll the parent: PR_SET_PDEATHSIG would fire when the *thread* that started us ends.
        while server.poll() is None and not signals and os.getppid() == parent:
            time.sleep(POLL_S)
        if signals == {signal.SIGTERM}:
            server.terminate()
            deadline = time.monotonic() + grace_s
            while server.poll() is None and signal.SIGQUIT not in signals and os.getppid() == parent:
                if time.monotonic() > deadline or is_suspended(server.pid):
                    break
                time.sleep(POLL_S)
    finally:
        kill_group(server.pid)
        status = server.wait()
        remove_traces(folder)
        remove_key(key_file, key)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    drawn = Path(sys.argv[3]) if sys.argv[3] else None
    sys.exit(guard(int(sys.argv[1]), Path(sys.argv[2]), drawn, float(sys.argv[4]), sys.argv[5:]))
