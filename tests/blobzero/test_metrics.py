# SPDX-License-Identifier: Apache-2.0
"""What self-play and the loop tell Prometheus, and what workers count of their requests."""

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from blobzero.monitor.metrics import FleetMetrics, LoopMetrics, QuietRequestHandler, serve_metrics
from blobzero.monitor.scrape import scrape
from clients.errors import ServerUnreachable
from clients.evaluator import evaluate
from clients.triton.counts import LATENCY_BOUNDS_S, MIXED, PASSING, RequestCounts, RequestTotals
from clients.triton.evaluator import TritonEvaluator
from clients.triton.protocol import grpc
from mcts_ext.errors import InvalidConfig
from tests.clients.selfplay.test_fleet import configs, play
from tests.support.fake_triton import FakeTriton, answer, fail
from tests.support.tiny_model import random_rows


def samples(text: str) -> dict[str, float]:
    """Values by name and labels, as in `name{key="value"}`."""
    return {
        s.name + "".join(f'{{{key}="{value}"}}' for key, value in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_counts_of_requests_add_up_over_a_line_of_json() -> None:
    counts = RequestCounts()
    for seconds in (0.0005, 0.001, 0.0012, 30.0):
        counts.answered(seconds)
    counts.failed("RequestTimeout")
    counts.sent_again()
    both = {name: 2 * value for name, value in counts.items()} | {"rounds": 5}
    totals = RequestTotals.of(both)
    assert totals.buckets == (4, 2, *[0] * (len(LATENCY_BOUNDS_S) - 2), 2)
    assert totals.seconds == pytest.approx(2 * 30.0027)
    assert totals.retries == 2
    assert totals.failures == dict.fromkeys(PASSING, 0) | {"RequestTimeout": 2}


def test_an_evaluator_counts_answers_failures_and_what_it_sends_again() -> None:
    counts = RequestCounts()
    with FakeTriton() as server, TritonEvaluator(server.url, server_timeout_s=5.0, counts=counts) as evaluator:
        server.script.extend([fail(grpc.StatusCode.UNAVAILABLE, "busy"), answer(after_s=0.06)])
        evaluate(evaluator, random_rows(4, seed=1))
        totals = RequestTotals.of(counts)
        assert (sum(totals.buckets), totals.retries, totals.failures["ServerUnreachable"]) == (1, 1, 1)
        assert 0.06 <= totals.seconds < 1.0  # of the attempt that was answered
        server.script.extend([answer(version=1), answer(version=2, after_s=0.1), answer(version=2)])
        evaluate(evaluator, random_rows(evaluator.max_batch_size + 1, seed=1))
        totals = RequestTotals.of(counts)
        assert (sum(totals.buckets), totals.retries, totals.failures[MIXED]) == (4, 2, 1)
        server.script.extend([fail(grpc.StatusCode.UNAVAILABLE, "busy")] * 200)
        evaluator._server_timeout_s = 0.2
        with pytest.raises(ServerUnreachable):
            evaluate(evaluator, random_rows(4, seed=1))
        assert RequestTotals.of(counts).failures["ServerUnreachable"] > 2


@pytest.mark.slow
def test_a_fleet_is_told_as_it_counted(tmp_path: Path) -> None:
    with serve_metrics(None) as registry:
        metrics = FleetMetrics(registry)
        assert samples(generate_latest(registry).decode()) == {"blobzero_workers": 0}
        fleet = play(configs(tmp_path, workers=2, rounds=40))
        metrics.update(fleet)
        found = samples(generate_latest(registry).decode())
    counts = fleet.counts
    assert found["blobzero_rounds_total"] == counts["rounds"] == 40
    assert found["blobzero_evaluations_total"] == counts["evaluations"] > 0
    assert found["blobzero_evaluations_total"] > 0
    assert found["blobzero_client_cpu_seconds_total"] == counts["client_cpu_s"] > 0
    assert found["blobzero_model_version"] == 0
    assert found["blobzero_workers"] == 0  # all are done
    assert found["blobzero_request_seconds_count"] == 0  # nobody asked a server
    assert found['blobzero_request_failures_total{kind="ServerFailed"}'] == 0


def test_the_loop_tells_what_it_learned() -> None:
    with serve_metrics(None) as registry:
        metrics = LoopMetrics(registry)
        metrics.generation(3)
        metrics.trained(7, {})
        assert not any("train_loss" in name for name in samples(generate_latest(registry).decode()))
        line = {
            "policy_loss": 1.5,
            "value_loss": 0.25,
            "rows_per_s": 900.0,
            "window": 1000,
            "positions_available": 2000,
        }
        metrics.trained(8, line)
        metrics.published("ok")
        metrics.matched("before", {"mean": 0.5, "low": None, "high": None})
        found = samples(generate_latest(registry).decode())
    assert found["blobzero_generation"] == 3
    assert found["blobzero_train_step"] == 8
    assert found['blobzero_train_loss{part="value"}'] == 0.25
    assert found["blobzero_window_positions"] == 1000
    assert found['blobzero_publishes_total{outcome="ok"}'] == 1
    assert found['blobzero_publishes_total{outcome="refused"}'] == 0
    assert [name for name in found if "match" in name] == ['blobzero_match_difference{bound="mean"}{opponent="before"}']


def test_a_port_alone_is_served_on_this_machine_only_and_freed_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (str(port), f"127.0.0.1:{port}"):
        with serve_metrics(address) as registry:
            FleetMetrics(registry)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                assert samples(page.read().decode())["blobzero_workers"] == 0
            with socket.socket() as other, pytest.raises(ConnectionRefusedError):
                other.connect(("127.0.0.2", port))
            with pytest.raises(InvalidConfig, match=f"expected to listen on {address}, got"), serve_metrics(address):
                pass


@pytest.mark.parametrize(
    "data", [b"", b"\0\xff" * 1000, b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=a\r\n\r\n"]
)
def test_silence_and_nonsense_are_let_go_without_a_word(
    data: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(QuietRequestHandler, "timeout", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serve_metrics(str(port)), socket.create_connection(("127.0.0.1", port), timeout=5) as visitor:
        visitor.sendall(data)
        while visitor.recv(1 << 16):
            pass
    assert capsys.readouterr().err == ""


def test_an_ipv6_address_in_brackets_is_listened_on() -> None:
    with socket.socket(socket.AF_INET6) as free:
        free.bind(("::1", 0))
        port = free.getsockname()[1]
    with serve_metrics(f"[::1]:{port}") as registry:
        FleetMetrics(registry)
        assert scrape(f"[::1]:{port}").values["blobzero_workers", frozenset()] == 0


@pytest.mark.parametrize("address", ["", "port", ":9100", "0", "70000", "127.0.0.1", "127.0.0.1:", "::1", "::1:9100"])
def test_what_is_no_address_is_named(address: str) -> None:
    with (
        pytest.raises(InvalidConfig, match=r"expected HOST:PORT of --metrics \(or PORT alone\)"),
        serve_metrics(address),
    ):
        pass
