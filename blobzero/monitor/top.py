# SPDX-License-Identifier: Apache-2.0
"""`blobzero top`: live view of server, self-play and training from their metrics endpoints."""

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, Final

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from blobzero.arguments import Range
from blobzero.monitor.scrape import EndpointAway, MetricsDelta, Scrape, Span, scrape, whole_url
from ui.console import facts, plain_console

WINDOW_S = 10.0
"""Window of the rates: rounds end in waves, and workers report once a second."""


@dataclass(frozen=True)
class TopConfig:
    """Show live metrics of server, self-play and training, until Ctrl-C."""

    url: tuple[str, ...] = ("127.0.0.1:8002", "127.0.0.1:9100")
    """Metrics endpoints, HOST:PORT each, in any order: of Triton, of `selfplay --metrics`, of `loop --metrics`."""
    interval: Annotated[float, Range(0.1, 3600)] = 2.0
    """Seconds between two readings."""
    once: bool = False
    """Take two readings, print one table and exit; the default if standard output is not a terminal."""
    json: bool = False
    """Take two readings and print one line of JSON."""


class Endpoint:
    """Endpoint and its recent readings."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._whole_url = whole_url(url)  # fail before anything is shown
        self.reason = ""
        """Why it does not respond; empty if it does."""
        self._scrapes: deque[Scrape] = deque()

    def read(self) -> None:
        """Take a reading."""
        try:
            now = scrape(self._whole_url)
        except EndpointAway as error:
            self.reason = str(error)
            self._scrapes.clear()
            return
        self.reason = ""
        self._scrapes.append(now)
        while len(self._scrapes) > 2 and self._scrapes[1].at <= now.at - WINDOW_S:
            self._scrapes.popleft()

    @property
    def span(self) -> Span | None:
        """Window of the rates; None if the endpoint does not respond."""
        return Span(self._scrapes[0], self._scrapes[-1]) if self._scrapes else None


def top(config: TopConfig) -> int:
    """Show the metrics; return the exit status: with `once` or `json`, 1 if no endpoint responded."""
    endpoints = [Endpoint(url) for url in config.url]
    if config.once or config.json or not sys.stdout.isatty():
        return _once(endpoints, config)
    try:
        with Live(_page(endpoints), refresh_per_second=4, screen=True) as live:
            while True:
                _read(endpoints)
                live.update(_page(endpoints))
                time.sleep(config.interval)
    except KeyboardInterrupt:
        return 0


def _read(endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        endpoint.read()


def _once(endpoints: list[Endpoint], config: TopConfig) -> int:
    _read(endpoints)
    if any(endpoint.span for endpoint in endpoints):
        time.sleep(config.interval)
        _read(endpoints)
    if config.json:
        away = {endpoint.url: endpoint.reason or None for endpoint in endpoints}
        print(json.dumps({"away": away, **figures(_change(endpoints))}))
    else:
        plain_console().print(_page(endpoints))
    return 0 if any(endpoint.span for endpoint in endpoints) else 1


def _change(endpoints: list[Endpoint]) -> MetricsDelta:
    return MetricsDelta([endpoint.span for endpoint in endpoints if endpoint.span])


def figures(change: MetricsDelta) -> dict[str, Any]:
    """Return all figures by part; None for parts and figures that no endpoint provides.

    Rates are over the endpoint's window; docs/monitoring.md explains the figures.
    """
    return {
        "selfplay": _selfplay(change) if change.has("blobzero_workers") else None,
        "server": _server(change) if change.has("nv_inference_count") else None,
        "training": _training(change) if change.has("blobzero_train_step") else None,
    }


def _selfplay(change: MetricsDelta) -> dict[str, Any]:
    failures = _by_label(change.rate, change, "blobzero_request_failures_total", "kind")
    return {
        "workers": int(change.total("blobzero_workers")),
        "rounds_per_min": 60 * change.rate("blobzero_rounds_total"),
        "evaluations_per_s": change.rate("blobzero_evaluations_total"),
        "latency_p50_s": change.quantile(0.5, "blobzero_request_seconds"),
        "latency_p99_s": change.quantile(0.99, "blobzero_request_seconds"),
        "cores": change.rate("blobzero_client_cpu_seconds_total"),
        "model_version": _whole(change.last("blobzero_model_version")),
        "failures_per_s": {kind: rate for kind, rate in failures.items() if rate},
        "retries_per_s": change.rate("blobzero_request_retries_total"),
        "worker_restarts": int(change.total("blobzero_worker_restarts_total")),
        "rounds": int(change.total("blobzero_rounds_total")),
    }


def _server(change: MetricsDelta) -> dict[str, Any]:
    rows, requests = change.rate("nv_inference_count"), change.rate("nv_inference_request_success")
    versions = _by_label(change.rate, change, "nv_inference_count", "version")
    computed_us = sum(change.rate(f"nv_inference_compute_{part}_duration_us") for part in ("input", "infer", "output"))
    return {
        "evaluations_per_s": rows,
        "requests_per_s": requests,
        "execution_rows": _ratio(rows, change.rate("nv_inference_exec_count")),
        "queue_s": _ratio(change.rate("nv_inference_queue_duration_us") / 1e6, requests),
        "compute_s": _ratio(computed_us / 1e6, requests),
        "pending": int(change.total("nv_inference_pending_request_count")),
        "failures_per_s": change.rate("nv_inference_request_failure"),
        "cpu": change.mean("nv_cpu_utilization"),
        "gpu": change.mean("nv_gpu_utilization"),
        "versions": [int(version) for version, rate in versions.items() if rate],
    }


def _training(change: MetricsDelta) -> dict[str, Any]:
    publishes = _by_label(change.total, change, "blobzero_publishes_total", "outcome")
    return {
        "generation": _whole(change.last("blobzero_generation")),
        "step": _whole(change.last("blobzero_train_step")),
        "policy_loss": change.last("blobzero_train_loss", part="policy"),
        "value_loss": change.last("blobzero_train_loss", part="value"),
        "window": _whole(change.last("blobzero_window_positions")),
        "publishes": {outcome: int(count) for outcome, count in publishes.items()},
        "match_difference": _by_label(change.last, change, "blobzero_match_difference", "opponent", bound="mean"),
    }


def _by_label(
    figure: Callable[..., float | None], change: MetricsDelta, name: str, label: str, **labels: str
) -> dict[str, Any]:
    """Return a figure of a metric by the values of one of its labels."""
    return {value: figure(name, **{label: value}, **labels) for value in change.label_values(name, label)}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


_ROWS: Final = {
    "selfplay": {
        "rounds/min": "{rounds_per_min:,.0f}",
        "evaluations/s": "{evaluations_per_s:,.0f}",
        "latency: p50, p99": "{latency_p50_s:ms}, {latency_p99_s:ms}",
        "workers, cores": "{workers}, {cores:.1f}",
        "model version": "{model_version}",
        "failures/s": "{failures_per_s:.1f}",
        "retries/s": "{retries_per_s:.1f}",
        "workers restarted": "{worker_restarts}",
        "rounds so far": "{rounds:,}",
    },
    "server": {
        "evaluations/s": "{evaluations_per_s:,.0f}",
        "rows per execution": "{execution_rows:.0f}",
        "queue, compute": "{queue_s:ms}, {compute_s:ms}",
        "requests/s, pending": "{requests_per_s:,.0f}, {pending}",
        "failures/s": "{failures_per_s:.1f}",
        "CPU, GPU": "{cpu:.0%}, {gpu:.0%}",
        "active versions": "{versions}",
    },
    "training": {
        "generation, step": "{generation}, {step}",
        "loss: policy, value": "{policy_loss:.4f}, {value_loss:.4f}",
        "window": "{window:,}",
        "publishes": "{publishes}",
        "score difference per round": "{match_difference:+.2f}",
    },
}
"""Format of each row, by part and name."""


class _Cells(Formatter):
    """Formats figures: `ms` for seconds in milliseconds, `-` for what is missing, all entries of a dict or a list."""

    def format_field(self, value: Any, spec: str) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {self.format_field(one, spec)}" for key, one in value.items()) or "-"
        if isinstance(value, list):
            return ", ".join(self.format_field(one, spec) for one in value) or "-"
        if value is None:
            return "-"
        return f"{1000 * value:.1f} ms" if spec == "ms" else f"{value:{spec}}"


def _page(endpoints: list[Endpoint]) -> Group:
    """Return tables of all figures, and a line for each endpoint that does not respond."""
    parts: list[Table | Text] = []
    for name, part in figures(_change(endpoints)).items():
        if part is not None:
            rows = ((row, _Cells().format(cell, **part)) for row, cell in _ROWS[name].items())
            parts += [facts(name, rows, title_justify="left", box=None, padding=(0, 2, 0, 0)), Text()]
    parts += [Text(f"{e.url} does not answer: {e.reason}", style="red") for e in endpoints if e.reason]
    if all(e.reason for e in endpoints):
        parts.append(Text("use --url HOST:PORT; blobzero serve shows the address of its metrics"))
    return Group(*parts)
