# SPDX-License-Identifier: Apache-2.0
"""Every `blobzero VERB --flag` that a message, a help text or a document names is one that the command takes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobzero.cli import VERBS, main

ROOT = Path(__file__).parents[2]
PACKAGES = ("blobzero", "clients", "export", "mcts_ext", "perf", "serving", "training", "ui")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "compose*.yaml", "docker/*", "Makefile")
COMMAND = re.compile(r"(?<![\w/.'-])blobzero ([a-z]+)\b([^`\n;()#,]*?)(?=[`\n;()#,]|\s{3}| or |$)")
NO_VERBS = {"checkpoint", "training", "command", "process"}
"""What else follows the name, in formats of files and in prose."""


def texts() -> Iterator[tuple[str, str]]:
    """A place and what stands there: documents, and string literals with X for what is filled in."""
    for pattern in DOCUMENTS:
        for path in ROOT.glob(pattern):
            if path.is_file():
                yield path.name, path.read_text()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                values = [part.value if isinstance(part, ast.Constant) else " X" for part in parts]
                if all(isinstance(value, str) for value in values) and values != [" X"]:
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", "".join(map(str, values))


def test_every_proposed_command_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = set(VERBS)
    known: dict[str, set[str]] = {}
    wrong, n_found = [], 0
    for place, text in texts():
        for verb, rest in COMMAND.findall(text):
            if verb in NO_VERBS:
                continue
            if verb not in known:
                with pytest.raises(SystemExit):
                    main([verb, "--help"])
                said = capsys.readouterr()
                known[verb] = set(re.findall(r"--[a-z][a-z0-9-]*", said.out)) if verb in verbs else set()
            n_found += 1
            unknown = set(re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", rest)) - known[verb]
            if not known[verb] or unknown:
                wrong.append(f"{place}: blobzero {verb}{rest} ({', '.join(sorted(unknown)) or 'no such verb'})")
    assert wrong == []
    assert n_found > 100
    assert set(known) == verbs
