# SPDX-License-Identifier: Apache-2.0
"""Read a Prometheus endpoint, and what happened between two readings: for `blobzero top`, where no Prometheus runs."""

import http.client
import math
import time
import urllib.error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from clients.address import join_url, split_url
from clients.direct import fetch
from mcts_ext.errors import BlobError

Series = tuple[str, frozenset[tuple[str, str]]]
"""A name and its labels."""


class EndpointAway(BlobError):
    """An endpoint that does not answer, or not with metrics."""


@dataclass(frozen=True)
class Scrape:
    """One reading of one endpoint."""

    at: float
    """Seconds of the monotonic clock."""
    values: Mapping[Series, float]


def scrape(url: str, *, timeout_s: float = 2.0) -> Scrape:
    """Read an endpoint, HOST:PORT or a whole URL.

    Raises:
        InvalidConfig: neither.
        EndpointAway: it says why in a few words.
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
    """The URL of an endpoint's metrics, of HOST:PORT or of itself.

    Raises:
        InvalidConfig: neither.
    """
    if "://" in url:
        return url
    return f"http://{join_url(*split_url(url, what='an endpoint with metrics'))}/metrics"


def _name(parsed: str, text: str) -> str:
    """The name as it stands in the text: the parser gives every counter a `_total`, and Triton's have none."""
    return parsed if f"\n{parsed}" in text or text.startswith(parsed) else parsed.removesuffix("_total")


@dataclass(frozen=True)
class Span:
    """Two readings of one endpoint; the same one twice while there is only one."""

    first: Scrape
    last: Scrape


class Change:
    """What happened at several endpoints, each over its own span. Sums run over all series of a name."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = list(spans)

    def has(self, name: str) -> bool:
        """Whether any endpoint has the metric."""
        return bool(self.values(name))

    def rate(self, name: str, **labels: str) -> float:
        """Increase of a counter a second. One that is below what it was has begun anew, from 0."""
        total = 0.0
        for span in self._spans:
            seconds = span.last.at - span.first.at
            for series, value in span.last.values.items():
                if seconds > 0 and _matches(series, name, labels):
                    before = span.first.values.get(series, 0.0)
                    total += (value - before if value >= before else value) / seconds
        return total

    def values(self, name: str, **labels: str) -> list[float]:
        """Latest values of all series."""
        return [v for span in self._spans for series, v in span.last.values.items() if _matches(series, name, labels)]

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(self.values(name, **labels))

    def mean(self, name: str, **labels: str) -> float | None:
        """Their mean; None where there is none."""
        found = self.values(name, **labels)
        return sum(found) / len(found) if found else None

    def last(self, name: str, **labels: str) -> float | None:
        """The highest; None where there is none."""
        return max(self.values(name, **labels), default=None)

    def label_values(self, name: str, label: str) -> list[str]:
        """What a label of a metric takes, sorted."""
        series = (labels for span in self._spans for found, labels in span.last.values if found == name)
        return sorted({value for labels in series for key, value in labels if key == label})

    def quantile(self, share: float, name: str) -> float | None:
        """A quantile of a histogram over the span, as Prometheus's `histogram_quantile` has it: even within a bucket.

        None where nothing was observed; the highest finite bound where it lies beyond.
        """
        bounds = sorted({float(bound) for bound in self.label_values(f"{name}_bucket", "le")})
        below = [self._bucket(f"{name}_bucket", bound) for bound in bounds]
        if not below or below[-1] <= 0:
            return None
        wanted = share * below[-1]
        low, low_count = 0.0, 0.0
        for bound, count in zip(bounds, below, strict=True):
            if count >= wanted:
                return low if math.isinf(bound) else low + (bound - low) * (wanted - low_count) / (count - low_count)
            low, low_count = bound, count
        return None

    def _bucket(self, name: str, bound: float) -> float:
        texts = [text for text in self.label_values(name, "le") if float(text) == bound]
        return sum(self.rate(name, le=text) for text in texts)


def _matches(series: Series, name: str, labels: Mapping[str, str]) -> bool:
    return series[0] == name and all(item in series[1] for item in labels.items())
