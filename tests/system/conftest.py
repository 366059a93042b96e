# SPDX-License-Identifier: Apache-2.0
"""One embedded server, shared by the tests that only ask it."""

from collections.abc import Iterator

import pytest

from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.tiny_model import write_repository


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server of the tiny network (seed 1), shared: a test must not break it or load other versions."""
    root = tmp_path_factory.mktemp("triton")
    config = ServerConfig(repository=write_repository(root / "models"), log_file=root / "triton.log")
    with EmbeddedTriton(config) as server:
        yield server
