# SPDX-License-Identifier: Apache-2.0
"""Output that nobody takes: quiet where a pipe closes, one line where a disk is full, and a run goes on without it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from blobzero.cli import main
from blobzero.monitor.display import draw
from clients.selfplay.telemetry import History
from ui.console import decoration
from ui.figures import plain

COMMAND = [sys.executable, "-m", "blobzero.cli"]
SELFPLAY = ["selfplay", "--evaluator", "uniform", "--rounds", "20", "--workers", "1", "--games", "4", "--out"]
MATCH = ["match", "random", "heuristic", "--deals", "8"]
FULL = "blobzero: expected to write to standard output, got No space left on device\n"


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": request.param}


def run_into(out: str, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a verb with its standard output `closed pipe`, `closed`, or a device; its status and standard error."""
    if out == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full" if out == "closed" else out, os.O_WRONLY)
    close = ["bash", "-c", 'exec "$0" "$@" >&-'] if out == "closed" else []
    try:
        done = subprocess.run(
            [*close, *COMMAND, *command],
            stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_help_into_a_pipe_that_closes_is_quiet_and_ends_as_of_sigpipe(environment: dict[str, str]) -> None:
    assert run_into("closed pipe", ["--help"], environment) == (141, "")
    assert run_into("closed pipe", ["match", "--help"], environment) == (141, "")


def test_wrong_arguments_keep_their_status(environment: dict[str, str]) -> None:
    status, said = run_into("closed pipe", ["match", "--nonsense"], environment)
    assert status == 2
    assert "Unrecognized options: --nonsense" in said


@pytest.mark.parametrize(("out", "status", "line"), [
    ("closed pipe", 141, ""),
    ("/dev/full", 1, FULL),
    ("closed", 1, FULL.replace("No space left on device", "Bad file descriptor")),
])  # fmt: skip
def test_a_result_that_is_lost_decides_the_status(
    out: str, status: int, line: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "models" / "blobnet").mkdir(parents=True)
    listed = ["models", "--repository", str(tmp_path / "models")]
    for command in (listed, [*listed, "--json"]):
        assert run_into(out, command, environment) == (status, line)
    found = run_into(out, [*MATCH, "--json"], environment)
    assert (found[0], found[1].endswith(line)) == (status, True)
    assert "Traceback" not in found[1]
    assert "Exception ignored" not in found[1]


@pytest.mark.parametrize(("out", "lost", "line"), [("closed pipe", 141, ""), ("/dev/full", 1, FULL)])
def test_a_run_whose_records_stand_keeps_its_status_unless_its_json_is_lost(
    out: str, lost: int, line: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    for name, more in (("plain", []), ("json", ["--json"])):
        status, said = run_into(out, [*SELFPLAY, str(tmp_path / name), *more], environment)
        assert status == (lost if more else 0)
        assert said.endswith(line)
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        assert json.loads((tmp_path / name / "summary.json").read_text())["rounds"] == 20
    status, said = run_into(out, [*MATCH, "--json", "--out", str(tmp_path / "match.json")], environment)
    assert (status, said.endswith(line)) == (lost, True)
    assert json.loads((tmp_path / "match.json").read_text())["deals"] == 8


def test_standard_error_that_is_lost_decides_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *MATCH, "--json"],
            stdout=subprocess.PIPE, stderr=full, text=True, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["deals"] == 8


def test_a_closed_stream_s_number_is_not_taken_by_a_file_of_the_run(tmp_path: Path) -> None:
    """A message of a library to a stream that was closed would otherwise go into a shard."""
    code = "from blobzero.output import guarded\nwith guarded(), open('x', 'w') as file: file.write(str(file.fileno()))"
    command = [sys.executable, "-c", code]
    subprocess.run(["bash", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *command], cwd=tmp_path, check=True)
    assert int((tmp_path / "x").read_text()) > 2


@pytest.mark.parametrize("name", ["$\\frac$", ":cat:", "\x01\x1b 狐", os.fsdecode(b"no utf-8 \xff")], ids=ascii)
def test_a_run_in_a_folder_of_any_name_ends_well(tmp_path: Path, name: str) -> None:
    done = subprocess.run([*COMMAND, *SELFPLAY, tmp_path / name], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / name / "throughput.png").is_file()
    shown = str(tmp_path / name).encode("utf-8", "backslashreplace")
    assert b"picture  " + shown + b"/throughput.png" in done.stdout
    assert b"no picture" not in done.stdout


def test_what_fails_after_the_result_is_said_and_no_more() -> None:
    said: list[str] = []
    with decoration("picture", said.append):
        raise ValueError("two\nlines")
    with decoration("picture", said.append):
        draw(History(), Path("/proc") / "x.png", title="$x")
    assert said[0] == "no picture: ValueError: two lines"
    assert len(said) == 2
    assert plain("$x$") == r"\$x\$"


def test_a_path_that_libraries_cannot_open_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"no utf-8 \xff")
    for command in (
        ["train", "--records", odd, "--out", str(tmp_path)],
        ["publish", "--repository", odd],
        ["loop", "--out", odd],
        ["selfplay", "--evaluator", "local", "--repository", odd, "--out", str(tmp_path)],
    ):
        assert main(command) == 1
        line = r"blobzero: expected UTF-8 in the path 'no utf-8 \udcff', got other bytes; use a link to it" + "\n"
        assert capsys.readouterr().err == line


def test_a_proposed_command_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "$(touch planted) it's"
    done = subprocess.run([*COMMAND, *SELFPLAY, folder], capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("next "))
    assert shlex.split(line)[shlex.split(line).index("--out") + 1] == str(folder)


def test_a_path_that_reads_as_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    """rich takes `[/models/x]` for the end of a style, and fails."""
    (tmp_path / "[" / "models" / "x]" / "blobnet").mkdir(parents=True)
    done = subprocess.run(
        [*COMMAND, "models", "--repository", "[/models/x]"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[/models/x]")


def test_the_fuzzer_draws_its_counter_on_a_terminal_only_and_names_the_case_it_died_of() -> None:
    die = "fuzz.play = lambda case: os.kill(os.getpid(), 9)"
    code = f"import os, sys, tests.support.fuzz_engine as fuzz; {die}; sys.exit(fuzz.main())"
    done = subprocess.run([sys.executable, "-c", code, "--case", "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "case 7 failed (status -9); play it again: python -m tests.support.fuzz_engine --case 7\n"
    assert "\r" not in done.stdout
