# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of self-play and the loop, over HTTP.

```
Fleet ── once a second ──> FleetMetrics ─┐
                                         ├─ registry ── GET /metrics, text format
LoopRun ── as it happens ─> LoopMetrics ─┘
```
docs/monitoring.md explains the metrics.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clients.address import LOOPBACK, split_url
from clients.selfplay.fleet import Fleet
from clients.triton.counts import LATENCY_BOUNDS_S
from mcts_ext.errors import InvalidConfig

OUTCOMES: Final = ("ok", "refused", "rolled_back")
"""Outcomes of a publish: published; rejected by a parity check or the server; published but not better."""


class QuietRequestHandler(WSGIRequestHandler):
    """Request handler that ignores silent, broken or malformed connections without output."""

    timeout = 10.0

    def handle(self) -> None:
        """Handle a request (see socketserver)."""
        with contextlib.suppress(OSError):
            super().handle()

    def get_stderr(self) -> io.StringIO:
        """Return a stream that discards tracebacks."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:
        """Discard log messages."""


class FleetMetrics(Collector):
    """Latest counts of a fleet; every new fleet starts from 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._latest = [_workers(0)]
        registry.register(self)

    def update(self, fleet: Fleet) -> None:
        """Update the metrics from the fleet's current counts."""
        self._latest = _families(fleet)  # one assignment, because scrapes run in another thread

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics (see prometheus_client)."""
        yield from self._latest


def _workers(n_playing: int) -> Metric:
    return GaugeMetricFamily("blobzero_workers", "Self-play processes that are playing", value=n_playing)


def _families(fleet: Fleet) -> list[Metric]:
    counts, requests = fleet.counts, fleet.requests
    families: list[Metric] = [_workers(fleet.n_playing)]
    for name, text, value in (
        ("rounds", "Rounds finished", counts["rounds"]),
        ("decisions", "Decisions searched", counts["decisions"]),
        ("simulations", "Simulations", counts["simulations"]),
        ("evaluations", "Rows sent to the network", counts["evaluations"]),
        ("records", "Decisions written to shards", counts["records"]),
        ("client_cpu_seconds", "CPU time of the workers", counts["client_cpu_s"]),
        ("worker_restarts", "Restarts of workers that had died", fleet.n_restarts),
        ("request_retries", "Retries of requests", requests.retries),
    ):
        families.append(CounterMetricFamily(f"blobzero_{name}", text, value=value))
    failures = CounterMetricFamily("blobzero_request_failures", "Failed attempts at requests", labels=["kind"])
    for kind, count in requests.failures.items():
        failures.add_metric([kind], count)
    latency = HistogramMetricFamily("blobzero_request_seconds", "Time from sending a request to its response")
    bounds = (*map(str, LATENCY_BOUNDS_S), "+Inf")
    latency.add_metric([], list(zip(bounds, map(float, accumulate(requests.buckets)), strict=True)), requests.seconds)
    families += [failures, latency]
    if fleet.model_version is not None:
        text = "Newest model version among the workers' last responses"
        families.append(GaugeMetricFamily("blobzero_model_version", text, value=fleet.model_version))
    return families


class LoopMetrics:
    """Metrics of the loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"blobzero_{name}", text, labels, registry=registry)

        self.fleet = FleetMetrics(registry)
        self._generation = gauge("generation", "Current generation")
        self._step = gauge("train_step", "Training steps")
        self._loss = gauge("train_loss", "Mean training loss since the previous line of metrics.jsonl", "part")
        self._rate = gauge("train_rows_per_second", "Training positions per second")
        self._window = gauge("window_positions", "Positions in the replay window")
        self._available = gauge("positions_available", "Recorded positions")
        self._match = gauge("match_difference", "Score difference per round to the opponent", "opponent", "bound")
        self._publishes = Counter("blobzero_publishes", "Publishes by outcome", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self._publishes.labels(outcome)  # start at 0, so that the first publish is an increase

    def generation(self, number: int) -> None:
        """Record the start of a generation."""
        self._generation.set(number)

    def trained(self, step: int, line: Mapping[str, Any]) -> None:
        """Record a training step; `line` is the latest of metrics.jsonl, empty before the first."""
        self._step.set(step)
        if not line:
            return
        for part in ("policy", "value"):
            self._loss.labels(part).set(line[f"{part}_loss"])
        self._rate.set(line["rows_per_s"])
        self._window.set(line["window"])
        self._available.set(line["positions_available"])

    def published(self, outcome: str) -> None:
        """Record a publish with one of OUTCOMES."""
        self._publishes.labels(outcome).inc()

    def matched(self, opponent: str, difference: Mapping[str, float | None]) -> None:
        """Record a match: the mean difference and the bounds of its 95% interval, None if infinite."""
        for bound, value in difference.items():
            if value is not None:
                self._match.labels(opponent, bound).set(value)


@contextlib.contextmanager
def serve_metrics(address: str | None) -> Iterator[CollectorRegistry]:
    """Yield a registry, served at PORT (on 127.0.0.1) or ADDRESS:PORT during the body; None does not serve it.

    Raises:
        InvalidConfig: if the address is invalid, or cannot be listened on.
    """
    registry = CollectorRegistry()
    if address is None:
        yield registry
        return
    is_port = address.isascii() and address.isdecimal()
    host, port = split_url(f"{LOOPBACK}:{address}" if is_port else address, what="--metrics (or PORT alone)")
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidConfig(f"expected to listen on {address}, got: {error}; choose another --metrics") from error
    server.RequestHandlerClass = QuietRequestHandler
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
