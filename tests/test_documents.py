# SPDX-License-Identifier: Apache-2.0
"""The documents: links lead somewhere, files that are named exist, lines are short, and the README is one page."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = {ROOT / "docs" / "commands.md"}
WIDTH = 120
README_LINES = 100

BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"(?<![\w/.<>*-])((?:[\w.-]+/)*[\w-]+\.(?:py|pyi|pyx|pxd|toml|yaml|yml|pbtxt|md|svg))\b(?![/*])")
PAGE_NAMED = re.compile(r"docs/[\w/.-]+\.md")
FOREIGN = re.compile(r"https?://\S+|docs/user_guide/\S+|(?:Triton's|_backend's)[^;|\n]*|`[^`]*` of\s+commit \w+")
"""What others have: pages on the web, files of other projects, and ours of another commit."""
OF_RUNS = re.compile(r"NAME|HOST|FILE|^1/model\.py$")
"""Files that are no part of the repository: with a name that is to be put in, or of an attack."""


def links(text: str) -> list[str]:
    """Targets of a document's links to files here."""
    targets = LINK.findall(BLOCK.sub("", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """What `#...` may name in a document: its headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    """Links of a document that lead nowhere."""
    found = []
    for target in links(document.read_text()):
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            found.append(target)
    return found


@cache
def files() -> tuple[str, ...]:
    """Every file of the repository, from its top."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return tuple(name for name in listed if (ROOT / name).exists())


def missing(text: str) -> list[str]:
    """Files that a text names, by path or by name alone, and that nobody has."""
    text = LINK.sub("]", FOREIGN.sub("", text))
    there = files()
    return [
        name
        for name in NAMED.findall(text)
        if not OF_RUNS.search(name) and not any(path == name or path.endswith(f"/{name}") for path in there)
    ]


def long_lines(text: str) -> list[str]:
    """Lines of prose that are too long; tables, blocks of code, and where links lead do not count."""
    lines = LINK.sub("]", BLOCK.sub("", text)).splitlines()
    return [line for line in lines if len(line) > WIDTH and not line.lstrip().startswith("|")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_is_sound(path: Path) -> None:
    text = path.read_text()
    assert broken(path) == []
    assert missing(text) == []
    assert path in GENERATED or long_lines(text) == []
    assert text.startswith("# ")


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_every_page_is_reached_from_an_index() -> None:
    """Pages of a folder stand in its README, folders in the README above."""
    for index in (ROOT / "docs").rglob("README.md"):
        listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index.read_text())}
        pages = {page for page in index.parent.glob("*.md") if page != index} | set(index.parent.glob("*/README.md"))
        assert pages - listed == set()


def test_an_experiment_is_a_question_and_the_index_asks_it() -> None:
    folder = ROOT / "docs" / "experiments"
    asked = dict(re.findall(r"^\| \[(.+?)\]\(([\w-]+\.md)\) \|", (folder / "README.md").read_text(), re.MULTILINE))
    for question, name in asked.items():
        title, _, answer, *_ = (folder / name).read_text().splitlines()
        assert title == f"# {question}"
        assert question.endswith("?")
        assert answer.startswith("**")


def test_pages_that_code_names_exist() -> None:
    kinds = (".py", ".pyx", ".pxd", ".pyi", ".toml", ".yaml", ".yml", ".Dockerfile", ".json")
    named = [
        (path, page)
        for path in files()
        if path.endswith(kinds) and path != "tests/test_documents.py"
        for page in PAGE_NAMED.findall((ROOT / path).read_text())
    ]
    assert len(named) > 20
    assert [(path, page) for path, page in named if not (ROOT / page).exists()] == []


def test_faults_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n[a](page.md) [b](#a-page) [c](gone.md) [d](#other) [e](https://example.org/x)\n")
    assert broken(page) == ["gone.md", "#other"]
    assert missing("`mcts_ext/contract.py`, `contract.py`, `mcts_ext/gone.py`, `gone.pyx`") == [
        "mcts_ext/gone.py",
        "gone.pyx",
    ]
    assert missing("`benchmarks/capacity.py` of commit 2fd1daf, and Triton's docs/x/model_configuration.md") == []
    long = "word " * 30
    assert long_lines(f"{long}\n| {long} |\n```\n{long}\n```\n[a]({'x' * 130})\n") == [long]
