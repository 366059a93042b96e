# SPDX-License-Identifier: Apache-2.0
"""Observation of a server under load: its statistics, its GPUs and, on this machine, the CPU time of its processes."""

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

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
    """A server and its clients at one moment; None for what is unknown."""

    at: float
    counts: ModelCounts | None
    cpu_s: float | None
    gpu: float | None
    clients_cpu_s: Sequence[float]
    """CPU time by client process."""


class ServerView:
    """Takes snapshots of one server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._statistics = ModelStatistics(target.url, model=target.model)
        self._server = _listener(target.url)
        self._has_gpu = self.gpu() is not None

    def look(self, clients_cpu_s: Sequence[float] = ()) -> Snapshot:
        """Return a snapshot."""
        began = time.monotonic()
        try:
            counts = self._statistics.read()
        except BlobError:
            counts = None
        cpu_s, gpu = self._cpu_s(), self.gpu() if self._has_gpu else None
        at = (began + time.monotonic()) / 2  # a busy server takes a while to answer
        return Snapshot(at, counts, cpu_s, gpu, clients_cpu_s)

    def gpu(self) -> float | None:
        """Return the mean of `nv_gpu_utilization`; None without such a metric."""
        try:
            page = fetch(f"http://{self._target.metrics_url}/metrics", timeout_s=1.0)
            families = list(text_string_to_metric_families(page))
        except (OSError, ValueError, http.client.HTTPException):
            return None
        samples = [sample for family in families for sample in family.samples]
        return _mean([sample.value for sample in samples if sample.name == "nv_gpu_utilization"])

    def close(self) -> None:
        self._statistics.close()

    def _cpu_s(self) -> float | None:
        if self._server is None:
            return None
        try:
            family = [self._server, *self._server.children(recursive=True)]
            times = [process.cpu_times() for process in family]
        except psutil.Error:
            self._server = _listener(self._target.url)  # it may have been restarted
            return None
        return sum(spent.user + spent.system for spent in times)


def compare(snapshots: Sequence[Snapshot]) -> Server | None:
    """Return the server's work from the first to the last of the snapshots; None if unknown."""
    first, last = snapshots[0], snapshots[-1]
    if first.counts is None or last.counts is None:
        return None
    counts = last.counts - first.counts
    n = max(1, counts.requests)
    is_here = first.cpu_s is not None and last.cpu_s is not None
    return Server(
        requests=counts.requests,
        queue_ms=1e3 * counts.queue_s / n,
        input_ms=1e3 * counts.input_s / n,
        infer_ms=1e3 * counts.infer_s / n,
        output_ms=1e3 * counts.output_s / n,
        executions=counts.executions,
        batch_sizes=counts.batch_sizes,
        cores=max(0.0, (last.cpu_s or 0.0) - (first.cpu_s or 0.0)) / (last.at - first.at) if is_here else None,
        gpu=_mean([snapshot.gpu for snapshot in snapshots[1:] if snapshot.gpu is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _listener(url: str) -> psutil.Process | None:
    """Return the process that listens at `url`; None if it is on another machine or not visible."""
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
