# SPDX-License-Identifier: Apache-2.0
"""A small process between us and Triton that outlives a crash of either and cleans up after both.

Killed outright, Triton leaves its backend (stub) processes and its shared memory behind; and if we are killed, nothing
stops Triton. So: this script starts the server as the leader of a process group, waits, and whichever of the two ends
first, kills the group, then removes the server's temporary folder, the shared memory regions that bear the folder's
name, and the key that was drawn for it (KEY_FILE; empty for none). SIGTERM stops the server politely, SIGQUIT at once.
It runs as a bare script (`python -I -S guardian.py PARENT FOLDER KEY_FILE GRACE_S COMMAND...`), so it starts in
milliseconds; it writes the server's pid to its standard output and ends with the server's exit status.
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
    """Remove the temporary folder of a server that runs no more, and the shared memory that bears its name."""
    for region in SHARED_MEMORY.glob(f"{folder.name}*"):
        with suppress(FileNotFoundError):
            region.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def remove_key(path: Path | None, key: bytes) -> None:
    """Remove a drawn key, unless another server's lies there by now: one that was started on the same port."""
    with suppress(OSError):
        if path is not None and path.read_bytes() == key:
            path.unlink()


def kill_group(pgid: int) -> None:
    """Kill what is left of a server's process group: its stubs, and itself."""
    with suppress(ProcessLookupError):
        os.killpg(pgid, signal.SIGKILL)


def is_suspended(pid: int) -> bool:
    """Whether SIGSTOP or a debugger holds it: nothing but SIGKILL reaches it then."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")


def die_with(parent: int) -> None:
    """Ask Linux for SIGKILL should the guardian itself be killed (it has one thread, so this fork is safe)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was, before we asked
        os._exit(1)


def guard(parent: int, folder: Path, key_file: Path | None, grace_s: float, command: list[str]) -> int:
    """Run `command` until it ends, the parent ends, or a signal comes; leave nothing behind."""
    signals: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, _frame: signals.add(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server needs a file for each connection
    guardian = os.getpid()
    key = key_file.read_bytes() if key_file is not None else b""
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, process_group=0, preexec_fn=lambda: die_with(guardian)
    )
    try:
        print(server.pid, flush=True)
        # The parent is looked for; PR_SET_PDEATHSIG would fire when the *thread* that started us ends.
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
