# SPDX-License-Identifier: Apache-2.0
"""A verb that was started as part of another ends with it, and cleans up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTER = """
import subprocess, sys, time
command = [sys.executable, "-m", "clients.starter", "blobzero.cli", *sys.argv[1:]]
child = subprocess.Popen(command, stdin=subprocess.PIPE)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_match_ends_with_whoever_started_it(tmp_path: Path, end: signal.Signals) -> None:
    forever = ["match", "random", "heuristic", "--deals", "1000000000", "--out", str(tmp_path / "match.json")]
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, *forever],
        stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as starter:  # fmt: skip
        deadline = time.monotonic() + 60
        while not (tmp_path / ".match.json.lock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # it plays
        starter.send_signal(end)
        starter.communicate(timeout=20)  # until the match too has closed its end
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {".match.json.lock"}  # a file that nobody holds locks nothing
