# SPDX-License-Identifier: Apache-2.0
"""Hypothesis draws the same examples in every run; and a repository with three versions, for tests that change one."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Exported files of three networks."""
    from export.publishing.candidate import ExportOptions  # PyTorch takes seconds to import
    from export.publishing.publish import publish
    from training.network import create_network

    folder = tmp_path_factory.mktemp("files")
    networks = [create_network("small", seed=seed) for seed in range(3)]
    reports = [
        publish(network, repository=folder / str(i), options=ExportOptions("float32"))
        for i, network in enumerate(networks)
    ]
    return [report.path / "model.onnx" for report in reports]


@pytest.fixture
def repository(tmp_path: Path, files: list[Path]) -> Path:
    """Versions 1, 2 and 3 of three networks."""
    from export.publishing.publish import publish

    for file in files:
        publish(file, repository=tmp_path / "models")
    return tmp_path / "models"
