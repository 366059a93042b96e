# SPDX-License-Identifier: Apache-2.0
"""Client of Prometheus endpoints, and rates between two readings, for `blobzero top`."""

import http.client
import math
import time
import urllib.error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from clients.address import join_url, split_url
from clients.direct import fetch
from mcts_ext.errors import BlobError

Series = tuple[str, frozenset[tuple[str, str]]]
"""Name and labels of a time series."""


class EndpointAway(BlobError):
    """The endpoint does not respond, or not with metrics."""


@dataclass(frozen=True)
class Scrape:
    """One reading of one endpoint."""

    at: float
    """Time on the monotonic clock."""
    values: Mapping[Series, float]


def scrape(url: str, *, timeout_s: float = 2.0) -> Scrape:
    """Read an endpoint, HOST:PORT or a full URL.

    Raises:
        InvalidConfig: if the address is malformed.
        EndpointAway: with a short reason.
    """
    whole = whole_url(url)
    try:
        text = fetch(whole, timeout_s=timeout_s)
        families = list(text_string_to_metric_families(text))
    except urllib.error.URLError as error:
        raise EndpointAway(str(getattr(error.reason, "strerror", None) or error.reason)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EndpointAway(str(error) or type(error).__name__) from error
    values = {
        (_name(sample.name, text), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return Scrape(time.monotonic(), values)


def whole_url(url: str) -> str:
    """Return the metrics URL of an endpoint given as HOST:PORT or as a URL.

    Raises:
        InvalidConfig: if the address is malformed.
    """
    if "://" in url:
        return url
    return f"http://{join_url(*split_url(url, what='an endpoint with metrics'))}/metrics"


def _name(parsed: str, text: str) -> str:
    """Return the name as in the text: the parser appends `_total` to counters, but Triton's do not have it."""
    return parsed if f"\n{parsed}" in text or text.startswith(parsed) else parsed.removesuffix("_total")


@dataclass(frozen=True)
class Span:
    """First and last reading of one endpoint, which may be the same."""

    first: Scrape
    last: Scrape


class MetricsDelta:
    """Change of the metrics of several endpoints, each over its own span. Sums run over all series of a name."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._series = [
            (name, dict(labels), value, _rate(span, (name, labels), value))
            for span in spans
            for (name, labels), value in span.last.values.items()
        ]

    def has(self, name: str) -> bool:
        """Return whether any endpoint has the metric."""
        return bool(self._values(name, {}))

    def rate(self, name: str, **labels: str) -> float:
        """Return the increase of a counter per second; a counter that decreased was reset to 0."""
        return sum(rate for metric, own, _, rate in self._series if metric == name and labels.items() <= own.items())

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the latest values."""
        return sum(self._values(name, labels))

    def mean(self, name: str, **labels: str) -> float | None:
        """Return the mean of the latest values, or None."""
        values = self._values(name, labels)
        return sum(values) / len(values) if values else None

    def last(self, name: str, **labels: str) -> float | None:
        """Return the maximum of the latest values, or None."""
        return max(self._values(name, labels), default=None)

    def label_values(self, name: str, label: str) -> list[str]:
        """Return the values of a label, sorted."""
        return sorted({own[label] for metric, own, _, _ in self._series if metric == name and label in own})

    def quantile(self, share: float, name: str) -> float | None:
        """Return a quantile of a histogram over the span, interpolated like Prometheus's `histogram_quantile`.

        None without observations; the highest finite bound if it lies beyond.
        """
        below: dict[float, float] = {}
        for metric, own, _, rate in self._series:
            if metric == f"{name}_bucket":
                bound = float(own["le"])
                below[bound] = below.get(bound, 0.0) + rate
        bounds = sorted(below)
        if not bounds or below[bounds[-1]] <= 0:
            return None
        wanted, highest = share * below[bounds[-1]], max(filter(math.isfinite, bounds), default=0.0)
        return float(np.interp(wanted, [0, *(below[b] for b in bounds)], np.minimum([0, *bounds], highest)))

    def _values(self, name: str, labels: Mapping[str, str]) -> list[float]:
        return [value for metric, own, value, _ in self._series if metric == name and labels.items() <= own.items()]


def _rate(span: Span, series: Series, value: float) -> float:
    seconds, before = span.last.at - span.first.at, span.first.values.get(series, 0.0)
    return (value - before if value >= before else value) / seconds if seconds > 0 else 0.0
