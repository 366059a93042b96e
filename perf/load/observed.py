# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself under load: its statistics, its GPUs, and, on this machine, its processes."""

import http.client
from dataclasses import dataclass

import psutil
from prometheus_client.parser import text_string_to_metric_families

from clients.address import is_loopback, split_url
from clients.direct import fetch
from clients.triton.statistics import ModelCounts, ModelStatistics
from mcts_ext.errors import BlobError
from perf.load.plan import Target
from perf.load.point import Server


@dataclass(frozen=True)
class Snapshot:
    """At one moment."""

    counts: ModelCounts | None
    cpu_s: float | None
    gpu: float | None


class ServerView:
    """Looks at one server; whatever it does not say is None, for a load test can do without."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._statistics = ModelStatistics(target.url, model=target.model)
        self._server = _listener(target.url)
        self._has_gpu = self.gpu() is not None

    def look(self) -> Snapshot:
        try:
            counts = self._statistics.read()
        except BlobError:
            counts = None
        return Snapshot(counts, self._cpu_s(), self.gpu() if self._has_gpu else None)

    def gpu(self) -> float | None:
        """Mean of `nv_gpu_utilization`."""
        try:
            page = fetch(f"http://{self._target.metrics_url}/metrics", timeout_s=1.0)
            families = list(text_string_to_metric_families(page))
        except (OSError, ValueError, http.client.HTTPException):
            return None
        found = [one.value for family in families for one in family.samples if one.name == "nv_gpu_utilization"]
        return sum(found) / len(found) if found else None

    def close(self) -> None:
        self._statistics.close()

    def _cpu_s(self) -> float | None:
        if self._server is None:
            return None
        try:
            family = [self._server, *self._server.children(recursive=True)]
            times = [process.cpu_times() for process in family]
        except psutil.Error:
            self._server = _listener(self._target.url)  # it may have been started again
            return None
        return sum(one.user + one.system for one in times)


def compare(first: Snapshot, last: Snapshot, *, seconds: float, gpus: list[float]) -> Server | None:
    """What happened between two looks."""
    if first.counts is None or last.counts is None:
        return None
    counts = last.counts - first.counts
    n = max(1, counts.requests)
    known = None not in (first.cpu_s, last.cpu_s)
    return Server(
        requests=counts.requests,
        queue_ms=1e3 * counts.queue_s / n,
        input_ms=1e3 * counts.input_s / n,
        infer_ms=1e3 * counts.infer_s / n,
        output_ms=1e3 * counts.output_s / n,
        executions=counts.executions,
        batch_sizes=counts.batch_sizes,
        cores=max(0.0, (last.cpu_s or 0.0) - (first.cpu_s or 0.0)) / seconds if known else None,
        gpu=sum(gpus) / len(gpus) if gpus else None,
    )


def _listener(url: str) -> psutil.Process | None:
    """The process on this machine that listens there, if it may be looked at."""
    host, port = split_url(url)
    if not is_loopback(host):
        return None
    try:
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return psutil.Process(one.pid)
    except psutil.Error:
        pass
    return None
