# SPDX-License-Identifier: Apache-2.0
"""A server whose control API asks for a key: who has it publishes, who does not changes nothing and still plays."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobzero.cli import main
from clients.errors import KeyRefused
from clients.evaluator import evaluate
from clients.keys import KeyUnreadable, read_key
from clients.triton.evaluator import TritonEvaluator
from export.errors import PublishFailed
from export.positions import sample_rows
from export.publishing.candidate import ExportOptions
from export.publishing.doctor import examine
from export.publishing.publish import publish
from export.publishing.registry import Registry
from export.publishing.repository import versions
from export.publishing.server import ModelServer
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.ports import choose_ports
from training.network import create_network

KEY = "a-key_of-24-characters-00"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    folder = tmp_path_factory.mktemp("key")
    (folder / "key").write_text(f"{KEY}\n")
    publish(create_network("small", seed=1), repository=folder / "models", options=ExportOptions("float32"))
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    config = ServerConfig(folder / "models", http_port=port, log_file=folder / "log", key_file=folder / "key")
    with EmbeddedTriton(config) as server:
        yield server


@pytest.mark.triton
def test_who_has_no_key_is_refused_in_one_line_and_nothing_changes(
    server: EmbeddedTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, wrong = server.config.repository, tmp_path / "key"
    wrong.write_text("another-key-of-this-length")
    for key_file in (None, wrong):
        with ModelServer(server.url, key_file=key_file) as control:
            with pytest.raises(KeyRefused, match=r"expected the key of the server at .* pass its file \(--key-file\)"):
                control.load()
            with pytest.raises(KeyRefused):
                control.states()
    before = versions(repository)
    with pytest.raises(PublishFailed, match=r"--key-file.*nothing was changed"):
        publish(
            create_network("small", seed=2), repository=repository, url=server.url, options=ExportOptions("float32")
        )
    assert versions(repository) == before
    assert [entry.version for entry in Registry(repository)] == before  # refused before it was begun
    assert main(["models", "--repository", str(repository), "--url", server.url]) == 1
    assert "(--key-file)" in capsys.readouterr().err
    assert main(["doctor", "--repository", str(repository), "--url", server.url]) == 1
    found = capsys.readouterr().out
    assert "expected the key of the server at" in found
    assert "(--key-file)" in found.splitlines()[1]
    assert "blobzero serve" not in found  # it is there already
    with TritonEvaluator(server.url) as evaluator:  # evaluations and metadata need no key
        assert evaluate(evaluator, sample_rows(8, seed=1)).model_version == before[-1]


@pytest.mark.triton
def test_http_asks_for_the_key_too(server: EmbeddedTriton) -> None:
    url = f"{server.http_url}/v2/repository/models/blobnet/load"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=10)
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", {"admin-key": KEY}), timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.triton
def test_who_has_the_key_publishes_examines_and_goes_back(server: EmbeddedTriton) -> None:
    repository, key_file = server.config.repository, server.config.key_file
    report = publish(
        create_network("small", seed=3),
        repository=repository,
        url=server.url,
        key_file=key_file,
        options=ExportOptions("float32"),
    )
    common = ["--repository", str(repository), "--url", server.url, "--key-file", str(key_file)]
    assert main(["models", *common]) == 0
    assert main(["rollback", *common]) == 0
    assert examine(repository, url=server.url, key_file=key_file) == []
    assert main(["unpublish", str(report.version), *common]) == 0
    assert main(["doctor", "--mend", *common]) == 0


def test_a_file_without_a_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(KeyUnreadable, match="expected a file with a key at"):
        read_key(file)
    with pytest.raises(KeyUnreadable, match="expected a file with a key at"):
        ModelServer("127.0.0.1:1", key_file=file)
    for text in ("", "short", "sixteen letters:", "sixteen=letters=0"):
        file.write_text(text)
        with pytest.raises(KeyUnreadable, match="expected a key of 16 or more"):
            read_key(file)
