# SPDX-License-Identifier: Apache-2.0
"""A proxy in the environment is for the world outside: nothing of ours asks it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_model import write_repository

ROOT = Path(__file__).parents[2]
ASK_ALL = """
import sys
from pathlib import Path
from blobzero.monitor.scrape import scrape
from clients.evaluator import evaluate
from perf.load.observed import ServerView
from perf.load.plan import Target
from clients.triton.statistics import ModelStatistics
from clients.triton.evaluator import TritonEvaluator
from export.publishing.server import ModelServer
from mcts_ext.contract import MODEL_NAME
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.tiny_model import random_rows
with EmbeddedTriton(ServerConfig(Path(sys.argv[1]), start_timeout_s=20.0)) as server:
    with TritonEvaluator(server.url, server_timeout_s=3.0) as evaluator:
        evaluate(evaluator, random_rows(4, seed=1))
    with ModelStatistics(server.url, model=MODEL_NAME) as statistics:
        assert statistics.read().requests
    with ModelServer(server.url, key_file=server.config.key_file) as control:
        control.config()
    metrics = server.metrics_url.split("/")[2]
    assert scrape(metrics).values
    view = ServerView(Target(server.url, metrics=metrics))
    assert view.look().counts is not None
    view.gpu()
    view.close()
"""


@pytest.mark.triton
def test_what_is_here_is_asked_directly(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
        env = {name: value for name, value in os.environ.items() if name.lower() not in (*names, "no_proxy")}
        env |= {name: url for lower in names for name in (lower, lower.upper())} | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", ASK_ALL, str(repository)], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        proxy.settimeout(0.0)
        with pytest.raises(BlockingIOError):  # nobody has come
            proxy.accept()
