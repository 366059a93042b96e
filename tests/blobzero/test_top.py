# SPDX-License-Identifier: Apache-2.0
"""`blobzero top` by figures made up, over HTTP: rates, quantiles, restarts, endpoints that are away."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from blobzero.monitor.scrape import EndpointAway, MetricsDelta, Scrape, Span, scrape
from blobzero.monitor.top import figures

TOP = [sys.executable, "-m", "blobzero.cli", "top"]


@pytest.fixture
def endpoint() -> Iterator[tuple[str, dict[str, str]]]:
    """HOST:PORT, and what it answers."""
    says = {"text": "blobzero_workers 2\n"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(says["text"].encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", says
        server.shutdown()
        thread.join()


def reading(at: float, **values: float) -> Scrape:
    return Scrape(at, {(name, frozenset()): value for name, value in values.items()})


def test_rates_come_from_each_endpoints_own_span_and_survive_a_restart() -> None:
    change = MetricsDelta([Span(reading(0, a=10), reading(5, a=30)), Span(reading(1, a=100), reading(3, a=8))])
    assert change.rate("a") == pytest.approx(20 / 5 + 8 / 2)  # the second began anew
    assert (change.total("a"), change.last("a"), change.mean("a")) == (38, 30, 19)
    assert (change.rate("b"), change.last("b"), change.has("b")) == (0, None, False)
    assert MetricsDelta([Span(reading(0, a=10), reading(0, a=10))]).rate("a") == 0


def test_a_quantile_lies_evenly_within_its_bucket() -> None:
    def histogram(at: float, *below: float) -> Scrape:
        bounds = ("0.1", "0.2", "+Inf")
        return Scrape(at, {("h_bucket", frozenset({("le", b)})): n for b, n in zip(bounds, below, strict=True)})

    change = MetricsDelta([Span(histogram(0, 5, 5, 5), histogram(1, 15, 35, 45))])  # 10, 20 and 10 in the buckets
    assert change.quantile(0.25, "h") == pytest.approx(0.1)
    assert change.quantile(0.5, "h") == pytest.approx(0.15)
    assert change.quantile(0.99, "h") == 0.2  # beyond the last bound that is finite
    assert change.quantile(0.5, "other") is None
    assert MetricsDelta([Span(histogram(0, 5, 5, 5), histogram(1, 5, 5, 5))]).quantile(0.5, "h") is None


def test_parts_that_nobody_tells_of_are_none(endpoint: tuple[str, dict[str, str]]) -> None:
    address, says = endpoint
    first = scrape(address)
    assert figures(MetricsDelta([Span(first, first)]))["server"] is None
    says["text"] = '# TYPE nv_inference_count counter\nnv_inference_count{model="m",version="3"} 5\n'
    later = scrape(f"http://{address}/metrics")
    found = figures(MetricsDelta([Span(first, later)]))
    assert found["selfplay"] is None
    assert found["server"]["versions"] == [3]
    assert found["server"]["queue_s"] is None
    says["text"] = "<html>no metrics</html>"
    with pytest.raises(EndpointAway):
        scrape(address)


def test_once_says_who_is_away_and_fails_only_if_all_are(endpoint: tuple[str, dict[str, str]]) -> None:
    address, _ = endpoint
    done = subprocess.run(
        [*TOP, "--once", "--url", address, "127.0.0.1:9", "--interval", "0.2"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "127.0.0.1:9 does not answer: Connection refused" in done.stdout
    assert "rounds/min" in done.stdout
    assert "use --url" not in done.stdout
    done = subprocess.run([*TOP, "--once", "--url", "127.0.0.1:9"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "use --url HOST:PORT; blobzero serve shows" in done.stdout
    done = subprocess.run([*TOP, "--json", "--url", "127.0.0.1:9"], capture_output=True, text=True)
    assert done.returncode == 1
    assert json.loads(done.stdout)["away"] == {"127.0.0.1:9": "Connection refused"}
    assert done.stderr == ""


def test_ctrl_c_ends_it_quietly(endpoint: tuple[str, dict[str, str]]) -> None:
    address, _ = endpoint
    ours, theirs = pty.openpty()
    top = subprocess.Popen(
        [*TOP, "--url", address, "--interval", "0.2"], stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 30
    while b"rounds/min" not in shown:
        assert time.monotonic() < deadline
        shown += os.read(ours, 4096)
    top.send_signal(signal.SIGINT)
    _, error = top.communicate(timeout=10)
    os.close(ours)
    assert (top.returncode, error) == (0, "")


def test_a_wrong_interval_costs_one_line() -> None:
    done = subprocess.run([*TOP, "--interval", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "blobzero: expected --interval in 0.1..3600, got 0.0\n")
