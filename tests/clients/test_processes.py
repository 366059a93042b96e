# SPDX-License-Identifier: Apache-2.0
"""Processes of ours start with our own modules whatever the user's folder holds, and with leave to open their files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import clients.processes
from clients.processes import python_command

COMMAND = [sys.executable, "-P", "-m", "blobzero.cli"]
SELFPLAY = ["selfplay", "--evaluator", "uniform", "--rounds", "16", "--games", "2", "--out", "run", "--json"]
MATCH = ["match", "random", "heuristic", "--deals", "2", "--json"]


def limited(limit: str, *command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run under `ulimit`."""
    return subprocess.run(
        ["bash", "-c", f'ulimit {limit}; exec "$0" "$@"', *command],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with files that are named as modules of the standard library and of ours."""
    for name in ("queue", "json", "random", "numpy", "psutil", "clients", "mcts_ext"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    return tmp_path


def test_workers_take_no_modules_from_the_user_s_folder(folder: Path) -> None:
    done = subprocess.run([*COMMAND, *SELFPLAY], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 16


def test_a_verb_that_is_part_of_another_takes_none_either(folder: Path) -> None:
    child = python_command("clients.starter", "blobzero.cli", *MATCH)
    with subprocess.Popen(child, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.read())["deals"] == 2


def test_children_run_what_their_starter_is_a_part_of_installed_or_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = folder / "a checkout: of another version"
    checkout.mkdir()
    (checkout / "clients.py").write_text("import queue, sys; print(__name__, sys.argv[1:], queue.__file__)")
    monkeypatch.setattr(clients.processes, "ROOT", checkout)
    done = subprocess.run(python_command("clients", "a", "b c"), cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("__main__ ['a', 'b c'] ")
    assert str(folder) not in done.stdout


def test_every_python_that_is_started_leaves_out_the_working_folder() -> None:
    root = Path(__file__).parents[2]
    packages = ("clients", "training", "export", "serving", "perf", "blobzero", "ui")
    files = [path for package in packages for path in (root / package).rglob("*.py")]
    started = [line for path in files for line in path.read_text().splitlines() if "sys.executable, " in line]
    assert len(started) >= 2
    assert [line for line in started if '"-P"' not in line and '"-I"' not in line] == []


def test_a_soft_limit_of_open_files_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    done = limited("-Sn 24", *COMMAND, *SELFPLAY, "--workers", "12", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 16


def test_a_hard_limit_that_is_too_low_is_named_before_anything_is_started(tmp_path: Path) -> None:
    done = limited("-n 64", *COMMAND, *SELFPLAY, "--workers", "40", folder=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("blobzero: expected a limit of 1")
    assert last.endswith("for --workers 40, got 64; raise it (ulimit -Hn), or use fewer --workers")
    assert "Traceback" not in done.stderr


def test_a_limit_too_low_for_the_server_is_named() -> None:
    code = "from serving.install import check_open_files; check_open_files()"
    done = limited("-n 64", sys.executable, "-c", code, folder=Path(__file__).parents[2])
    assert "expected a limit of 128 or more open files for Triton, got 64; raise it (ulimit -Hn)" in done.stderr
    assert limited("-n 256", sys.executable, "-c", code, folder=Path(__file__).parents[2]).stderr == ""
