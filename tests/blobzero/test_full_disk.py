# SPDX-License-Identifier: Apache-2.0
"""A disk that is full: players wait for room, and lose nothing; without any they, and training, say so in one line."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobzero.cli import main
from clients.selfplay.fleet import Fleet
from tests.clients.selfplay.test_fleet import ROUNDS, assert_all_once, configs, in_order
from tests.support.recorded import record

N_ROUNDS = 1500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "filler"
    with pytest.raises(OSError, match="No space left"):
        path.write_bytes(bytes(4 << 20))
    return path


def test_players_wait_for_room_and_lose_nothing(small_disk: Path, tmp_path: Path) -> None:
    said: list[str] = []
    workers = configs(small_disk, workers=2, rounds=N_ROUNDS, games=16)
    with Fleet(workers, logs=tmp_path / "logs", on_event=said.append) as fleet:
        fleet.wait_ready()
        filler = fill(small_disk)
        fleet.go()
        deadline = time.monotonic() + 30
        while len(said) < 2:
            assert time.monotonic() < deadline
            fleet.poll(0.1)
        assert all("No space left" in text and text.endswith("waiting for free space") for text in said)
        filler.unlink()
        while not fleet.is_done:
            assert time.monotonic() < deadline
            fleet.poll(0.1)
    assert len(said) == 4
    assert all("the disk has free space again" in text for text in said[2:])
    assert_all_once(in_order(small_disk), N_ROUNDS, ROUNDS)


def test_a_run_that_is_stopped_without_room_says_so_and_can_go_on(small_disk: Path, tmp_path: Path) -> None:
    said: list[str] = []
    workers = configs(small_disk, workers=1, rounds=N_ROUNDS, games=16)
    with Fleet(workers, logs=tmp_path / "logs", on_event=said.append) as fleet:
        fleet.wait_ready()
        filler = fill(small_disk)
        fleet.go()
        while not said:
            fleet.poll(0.1)
        fleet.stop()
        fleet.poll(30.0)
        assert fleet.is_done
        assert fleet.fault is not None
        assert re.search(r"expected room to write .* No space left on device; free space", fleet.fault)
        assert said[-1] == fleet.fault
    filler.unlink()
    with Fleet(workers, logs=tmp_path / "logs") as fleet:
        fleet.wait_ready()
        fleet.go()
        while not fleet.is_done:
            fleet.poll(0.1)
    assert_all_once(in_order(small_disk), N_ROUNDS, ROUNDS)


def test_ctrl_c_while_self_play_waits_for_room_ends_as_it_always_does(small_disk: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    command = [sys.executable, "-m", "blobzero.cli", "selfplay", "--evaluator", "hash", "--rounds", "1000000"]
    command += ["--workers", "1", "--games", "16", "--simulations", "4", "--shard-seconds", "0.2"]
    (small_disk / "filler").write_bytes(bytes((2 << 20) - (300 << 10)))
    with said.open("w") as output:
        process = subprocess.Popen([*command, "--out", str(small_disk / "run")], stdout=output, stderr=output)
    deadline = time.monotonic() + 60
    while "waiting for free space" not in said.read_text():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130, said.read_text()
    assert "its unwritten rounds can be played again" in said.read_text()
    assert "Traceback" not in said.read_text()


def test_training_without_room_says_so_and_goes_on_with_room(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, out = record(tmp_path / "run", rounds=30, cards=(3,), kind="uniform"), small_disk / "net"
    command = ["train", "--records", str(records), "--out", str(out), "--preset", "small", "--batch", "8"]
    command += ["--log-every", "1", "--window-max", "1000", "--steps", "2"]

    def without_room() -> str:
        assert main(command) == 1
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2, said
        return said[-1]

    filler = fill(small_disk)
    assert f"expected to read and write {out}, got [Errno 28] No space left" in without_room()  # for the curve
    filler.write_bytes(bytes((2 << 20) - (200 << 10)))
    assert "blobzero: expected room for checkpoint" in without_room()
    assert not list(out.rglob("*.tmp"))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert main(command) == 0
