# SPDX-License-Identifier: Apache-2.0
"""What is installed from elsewhere: held to a version and to hashes, everywhere it is installed."""

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docker"))
import lock as script  # noqa: E402
import requirements  # noqa: E402

SET = re.compile(r"^# for: (.*)\n(\S+?)==(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
OURS = {"blobzero"}


def entries() -> dict[str, tuple[set[str], str]]:
    """(sets, version) of each package that requirements.lock has with hashes."""
    text = (ROOT / "requirements.lock").read_text()
    found = {name: (set(sets.split()), version) for sets, name, version, _ in SET.findall(text)}
    assert len(found) == len(re.findall(r"^[^ #-]", text, re.MULTILINE))  # no entry of another form
    return found


def test_every_pin_has_a_hash() -> None:
    pins = script.pins(ROOT / "constraints.txt")
    assert {name: version for name, (_, version) in entries().items()} == {
        name: version for name, version in pins.items() if name not in requirements.UNHASHED
    }
    assert pins.keys() - entries().keys() == set(requirements.UNHASHED) == {"torch"}


def test_what_is_installed_here_is_what_is_pinned() -> None:
    here = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
    needed = {name: version for name, (sets, version) in entries().items() if sets & {"dev", "build"}}
    assert {name: here.get(name) for name in needed} == needed
    (torch,) = requirements.UNHASHED
    assert Version(here[torch]).public == script.pins(ROOT / "constraints.txt")[torch]  # 2.13.0+cpu is a file of 2.13.0


def test_each_set_has_all_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    roots = requirements.roots()
    assert {"client", "serve", "train", "dev", "build"} <= roots.keys()
    for name, asked in roots.items():
        expected = script.needed(asked) - OURS - set(requirements.UNHASHED)
        assert {package for package, (sets, _) in entries().items() if name in sets} == expected, name


def test_an_image_gets_its_own_packages_alone() -> None:
    def printed(*sets: str) -> str:
        command = [sys.executable, "docker/requirements.py", *sets]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    client = printed("client")
    assert client.startswith("--only-binary :all:\n")
    assert "numpy==" in client
    assert "openvino==" not in client
    assert client.count("==") == sum("client" in sets for sets, _ in entries().values())
    assert "openvino==" in printed("serve")
    refused = subprocess.run(
        [sys.executable, "docker/requirements.py", "clients"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert re.fullmatch(r"expected sets of client, .*, got clients\n", refused.stderr)


@pytest.mark.parametrize("file", ["Makefile", "docker/client.Dockerfile", "docker/triton-cpu.Dockerfile"])
def test_nothing_is_installed_past_the_hashes_but_torch(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    commands = re.findall(r"pip\S*(?: --python \S+)? install ([^&#\n]+)", text)
    assert commands
    for command in commands:
        words = command.split()
        if "--no-deps" in words:  # ours, from this checkout
            assert words[-1] in (".", "/wheels/*.whl")
        elif "--require-hashes" in words:
            assert words[-1].endswith("wanted.txt")
        else:
            assert (words[-1], "-c" in words, "-r" in words) == ("torch", True, False)
