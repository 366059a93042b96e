# SPDX-License-Identifier: Apache-2.0
"""Prometheus, with our configuration and other targets, scrapes a real run: every query of ours has an answer there.

A loop starts Triton, trains and publishes; self-play asks the same Triton beside it, and follows the versions.
"""

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.ports import choose_ports
from tests.monitoring.stack import GPU_METRICS, PROMETHEUS, dashboard_queries, names, needs_prometheus, rule_queries
from tests.system.test_loop_run import SETTINGS

pytestmark = [pytest.mark.triton, pytest.mark.slow, needs_prometheus]

DEADLINE_S = 120.0
ROUNDS = "rounds = [600, 600]"
"""As many positions as 50 steps may draw from (training's max_reuse): losses come with the 50th."""
BLOBZERO = [sys.executable, "-m", "blobzero.cli"]


@dataclass(frozen=True)
class Run:
    """A stack without containers."""

    prometheus: str
    """Its URL."""
    endpoints: list[str]
    """Metrics of Triton, self-play and loop."""

    def ask(self, path: str, **query: str) -> Any:
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def values(self, expression: str) -> list[float]:
        """Finite values of all series that answer an expression now."""
        found = self.ask("query", query=expression)["result"]
        return [value for series in found if math.isfinite(value := float(series["value"][1]))]


@contextlib.contextmanager
def process(command: list[str], log: Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=cwd) as started:
        try:
            yield started
        finally:
            started.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(30)
            started.kill()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("monitored")
    ports = choose_ports("127.0.0.1", {"selfplay": None, "trainer": None, "prometheus": None})
    settings = SETTINGS.replace("generations = 3", "generations = 1000").replace("rounds = [60, 80]", ROUNDS)
    (folder / "tiny.toml").write_text(settings.replace("steps = 12", "steps = 50"))
    loop = [*BLOBZERO, "loop", "--preset", "tiny.toml", "--out", "loop", "--metrics", str(ports["trainer"])]
    with contextlib.ExitStack() as stack:
        stack.enter_context(process(loop, folder / "loop.log", cwd=folder))
        grpc, metrics = _addresses(folder / "loop.log")
        play = [*BLOBZERO, "selfplay", "--url", grpc, "--rounds", "1000000", "--workers", "1", "--games", "64"]
        play += ["--simulations", "6", "--cards", "2", "3", "--out", "play", "--metrics", str(ports["selfplay"])]
        stack.enter_context(process(play, folder / "play.log", cwd=folder))
        endpoints = [metrics, *(f"127.0.0.1:{ports[name]}" for name in ("selfplay", "trainer"))]
        _configure(folder, dict(zip(("triton", "selfplay", "trainer"), endpoints, strict=True)))
        address = f"127.0.0.1:{ports['prometheus']}"
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--web.listen-address={address}"]
        command += [f"--storage.tsdb.path={folder}/tsdb", "--log.level=warn"]
        stack.enter_context(process(command, folder / "prometheus.log"))
        run = Run(f"http://{address}", endpoints)
        _wait(run)
        yield run


def _addresses(log: Path) -> tuple[str, str]:
    """Triton's gRPC and metrics endpoints, as the loop says them."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := re.search(r"Triton answers at (\S+), metrics at http://(\S+)/metrics", log.read_text())):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return found[1], found[2]


def _configure(folder: Path, targets: dict[str, str]) -> None:
    """Our configuration with other targets, and a look every second."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets.pop(job["job_name"])]}]
    assert not targets
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "rules.yml", folder)


def _wait(run: Run) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if len(run.values("up == 1")) == len(run.endpoints):
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_every_query_of_dashboard_and_rules_has_an_answer(run: Run) -> None:
    """One query once: those that look back need some scrapes, and those of a match a generation."""
    left = dict([*dashboard_queries(), *rule_queries()])
    for gpu_only in [name for name, expression in left.items() if names(expression) & set(GPU_METRICS)]:
        run.values(left.pop(gpu_only))  # sound at least
    deadline = time.monotonic() + DEADLINE_S
    while left:
        left = {name: expression for name, expression in left.items() if not run.values(expression)}
        assert not left or time.monotonic() < deadline, left
        time.sleep(1.0)


def test_prometheus_loaded_our_rules_and_they_work(run: Run) -> None:
    groups = run.ask("rules")["groups"]
    assert {group["name"] for group in groups} == {"server", "alerts"}
    for group in groups:
        assert all(rule["health"] != "err" for rule in group["rules"])
    firing = {alert["labels"]["alertname"] for alert in run.ask("alerts")["alerts"] if alert["state"] == "firing"}
    assert firing == set()


def test_the_figures_are_those_of_the_run(run: Run) -> None:
    """What self-play says that it asked, Triton says that it answered: it is the larger of two that ask.

    Totals, for `increase` misses what a version had answered when its counter was first seen.
    """
    asked = run.values('sum(max_over_time(blobzero_evaluations_total{job="selfplay"}[1h]))')[0]
    answered = run.values("sum(max_over_time(nv_inference_count[1h]))")[0]
    assert 0.3 * answered < asked < 1.2 * answered
    half, most = (run.values(f"histogram_quantile({q}, sum by (le) (rate(blobzero_request_seconds_bucket[30s])))")[0]
                  for q in (0.5, 0.99))  # fmt: skip
    assert 0.0005 < half <= most <= 20
    count, buckets = (
        run.values("blobzero_request_seconds_count"),
        run.values('blobzero_request_seconds_bucket{le="+Inf"}'),
    )
    assert sum(count) == pytest.approx(sum(buckets))


def test_top_tells_the_same(run: Run) -> None:
    done = subprocess.run(
        [*BLOBZERO, "top", "--url", *run.endpoints, "127.0.0.1:9", "--json", "--interval", "4"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [url for url, reason in found["away"].items() if reason] == ["127.0.0.1:9"]
    assert found["selfplay"]["evaluations_per_s"] > 0
    assert 0.0005 < found["selfplay"]["latency_p50_s"] <= found["selfplay"]["latency_p99_s"] <= 20
    assert found["server"]["execution_rows"] > 1
    assert found["server"]["gpu"] is None
    assert 0 <= found["server"]["cpu"] <= 1
    assert found["training"]["step"] >= 12
    assert found["training"]["publishes"]["ok"] >= 1
    assert set(found["training"]["match_difference"]) >= {"before"}
