# SPDX-License-Identifier: Apache-2.0
"""The parts of a load test that need no server: arrivals, quantiles, stability, sweeps, the search, requests."""

import http.server
import itertools
import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.triton.wire import encode_request
from mcts_ext.contract import OBSERVATION_BYTES
from mcts_ext.errors import InvalidConfig
from perf.load import Load, NoAnswers, Patience, Point, Slo, Target, Traffic, highest_rate, knee, parse_sweep
from perf.load.observed import ServerView, compare
from perf.load.point import agree, quantile, summarize, within
from perf.load.sender.rows import SIZES, make_requests, request_sizes
from perf.load.sender.transports import request_head
from perf.load.sender.worker import SenderConfig, arrivals

from tritonclient.grpc import service_pb2  # isort: skip


def answers_of(latencies: Sequence[float], *, start: float = 0.0, gap: float = 0.01) -> NDArray[np.float64]:
    sent = start + gap * np.arange(len(latencies))
    return np.stack([sent, sent + latencies, np.zeros(len(sent)), np.full(len(sent), 2.0)], axis=1)


def point_of(
    answers: NDArray[np.float64],
    *,
    load: Load | None = None,
    failures: Sequence[tuple[float, float, str]] = (),
    end: float = 1.0,
    cpu_s: Sequence[float] = (0.1,),
) -> Point:
    return summarize(
        load or Load(concurrency=1), answers, failures, start=0.0, end=end, reasons={}, client_cpu_s=cpu_s, server=None,
        windows=3, stable=True,
    )  # fmt: skip


# -- arrivals ---------------------------------------------------------------------------------------------------------


def test_arrivals_are_poisson_and_the_seed_is_the_schedule() -> None:
    times = np.array(list(itertools.islice(arrivals(50.0, ramp_s=0.0, seed=(1, 0)), 20_000)))
    gaps = np.diff(times, prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)  # exponential: deviation equals mean
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0.0, abs=0.03)
    again = itertools.islice(arrivals(50.0, ramp_s=0.0, seed=(1, 0)), 20_000)
    assert times.tolist() == list(again)
    assert times[0] != next(arrivals(50.0, ramp_s=0.0, seed=(1, 1)))


def test_arrivals_and_rows_of_one_seed_are_drawn_apart() -> None:
    gaps = np.diff(list(itertools.islice(arrivals(1.0, ramp_s=0.0, seed=(3, 0)), 50)), prepend=0.0)
    for of_rows in ((3, 0), (1, 3, 0)):
        assert not np.isclose(gaps, np.random.default_rng(of_rows).exponential(size=50)).any()


def test_arrivals_grow_linearly_while_the_load_ramps_up() -> None:
    counts = np.zeros(4)
    for seed in range(200):
        times = arrivals(100.0, ramp_s=2.0, seed=(seed,))
        counts += np.histogram(list(itertools.takewhile(lambda at: at < 4, times)), bins=[0, 1, 2, 3, 4])[0]
    assert counts / 200 == pytest.approx([25, 75, 100, 100], rel=0.03)


# -- what a point says ------------------------------------------------------------------------------------------------


def test_quantiles_are_those_of_all_processes_together() -> None:
    """One process with fast answers and one with few slow ones: the mean of their p99s would be far off."""
    fast, slow = answers_of([0.001] * 95), answers_of([0.1] * 5)
    point = point_of(np.concatenate([fast, slow]), end=2.0)
    assert (point.p50_ms, point.p90_ms, point.p99_ms, point.max_ms) == pytest.approx((1, 1, 100, 100))
    assert point.mean_ms == pytest.approx(0.95 + 5)
    assert point.requests_per_s == 50
    assert point.rows_per_s == 100


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.9, 9), (0.91, 10), (0.99, 10), (0.01, 1)])
def test_a_quantile_is_the_least_value_that_suffices(share: float, expected: float) -> None:
    assert quantile(np.arange(1.0, 11.0), share) == expected


def test_a_closed_loop_counts_what_came_and_an_open_one_what_was_to_be_sent() -> None:
    late = np.array([[0.9, 3.0, 0.0, 1.0], [-0.5, 0.5, 0.0, 1.0]])
    assert within(late, Load(concurrency=1), 0.0, 1.0)[:, 0].tolist() == [-0.5]
    assert within(late, Load(rate=1.0), 0.0, 1.0)[:, 0].tolist() == [0.9]


def test_a_server_that_stalls_cannot_hide_in_an_open_loop() -> None:
    """For the second half nothing comes; then everything at once, after the window."""
    sent = np.arange(0.0, 1.0, 0.01)
    done = np.where(sent < 0.5, sent + 0.001, 2.0)
    answers = np.stack([sent, done, np.zeros(100), np.ones(100)], axis=1)
    point = point_of(answers, load=Load(rate=100.0))
    assert point.p99_ms > 1400
    assert point.behind
    assert any("less was answered than asked for" in text for text in point.warnings)


def test_failures_count_as_later_than_any_answer() -> None:
    point = point_of(answers_of([0.001] * 98), failures=[(0.5, 0.6, "RequestTimeout"), (0.5, 0.6, "ServerFailed")])
    assert dict(point.errors) == {"RequestTimeout": 1, "ServerFailed": 1}
    assert sum(point.errors.values()) / (sum(point.errors.values()) + point.requests) == 0.02
    assert point.quantile_ms(0.98) == pytest.approx(1.0)
    assert point.quantile_ms(0.99) == math.inf
    assert not Slo.parse("p99=20ms").holds(point)
    assert Slo.parse("p95=20ms").holds(point)
    beyond = [(1.5, 1.6, "ServerFailed")]
    assert not point_of(answers_of([0.001] * 9), failures=beyond).errors


def test_a_request_that_hangs_counts_in_a_closed_loop_though_it_ends_after_the_point() -> None:
    hung = [(-0.5, 6.0, "Unanswered"), (0.5, 20.5, "RequestTimeout")]
    assert dict(point_of(answers_of([0.001] * 9), failures=hung).errors) == {"Unanswered": 1, "RequestTimeout": 1}
    assert not point_of(answers_of([0.001] * 9), failures=[(-0.5, -0.1, "ServerFailed")]).errors


def test_what_is_under_way_at_the_borders_does_not_look_like_falling_behind() -> None:
    """Two requests a second that take 0.4 s each: one more is under way at the end than at the beginning."""
    sent = np.arange(0.1, 6.0, 0.5)
    answers = np.stack([sent, sent + 0.4, np.zeros(12), np.ones(12)], axis=1)
    assert not point_of(answers, end=5.9, load=Load(rate=2.0)).behind
    sent = np.arange(0.1, 12.0, 0.5)
    slower = np.stack([sent, sent + 1.2 * sent + 0.4, np.zeros(24), np.ones(24)], axis=1)
    assert point_of(slower, end=11.9, load=Load(rate=2.0)).behind


def test_a_client_that_was_the_limit_is_named() -> None:
    answers = answers_of([0.01] * 90)
    assert point_of(answers).warnings == ()
    assert any("busy" in text for text in point_of(answers, cpu_s=[0.2, 0.95]).warnings)
    answers[:, 2] = 0.002
    assert any("sent late" in text for text in point_of(answers, load=Load(rate=90.0)).warnings)


def test_stable_means_that_the_last_three_agree() -> None:
    assert not agree([100, 100], 0.1)
    assert agree([1, 95, 100, 105], 0.1)
    assert not agree([100, 100, 130], 0.1)
    assert not agree([100, 100, 100, 80], 0.1)


def test_a_point_is_json() -> None:
    found = json.loads(json.dumps(point_of(answers_of([0.001] * 9)).to_json()))
    assert found["concurrency"] == 1
    assert found["rate"] is None
    assert found["p99_ms"] == pytest.approx(1.0)


# -- sweeps and searches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", [8]),
        ("1,4,16", [1, 4, 16]),
        ("1:64:x2", [1, 2, 4, 8, 16, 32, 64]),
        ("1:50:x3", [1, 3, 9, 27]),
        ("100:300:100", [100, 200, 300]),
        ("0.1:0.3:0.1", [0.1, 0.2, 0.3]),
    ],
)
def test_sweeps_are_read(text: str, expected: list[float]) -> None:
    assert parse_sweep(text, flag="--rate") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "0", "-1", "1:2", "1:2:x1", "1:2:0", "4:2:x2", "a", "1:2:x", "nan", "1:inf:x2,3"])
def test_other_sweeps_are_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="expected --rate like"):
        parse_sweep(text, flag="--rate")


def test_promises_are_read() -> None:
    assert Slo.parse("p99=20ms") == Slo("p99", 0.99, 20.0)
    assert Slo.parse("p99.9=1.5s") == Slo("p99.9", pytest.approx(0.999), 1500.0)  # type: ignore[arg-type]
    for text in ("p99", "p0=1ms", "p100=1ms", "p99=20", "p99=0ms", "mean=3ms"):
        with pytest.raises(InvalidConfig, match="expected --slo like"):
            Slo.parse(text)


@pytest.mark.parametrize("first", [3.0, 90.0, 137.0, 2000.0])
def test_the_search_ends_at_the_highest_rate_that_holds(first: float) -> None:
    rates: list[float] = []

    def probe(load: Load) -> Point:
        assert load.rate is not None
        rates.append(load.rate)
        return point_of(answers_of([0.01 if load.rate <= 137.0 else 0.03] * 50), load=load)

    best = highest_rate(probe, Slo.parse("p99=20ms"), first=first, precision=0.05, least=1.0)
    assert 137 * 0.95 <= best <= 137
    assert rates[0] == first
    assert len(rates) <= 16


def test_the_search_says_zero_where_nothing_holds() -> None:
    rates: list[float | None] = []

    def probe(load: Load) -> Point:
        rates.append(load.rate)
        return point_of(answers_of([0.5] * 9), load=load)

    assert highest_rate(probe, Slo.parse("p99=20ms"), first=64.0, precision=0.05, least=5.0) == 0.0
    assert rates[-1] == 5.0


def test_a_rate_is_judged_by_enough_requests() -> None:
    """p99 of five requests is the slowest of five."""
    slo, windows = Slo.parse("p99=20ms"), Patience(window=2.0)
    assert slo.n_requests == 300
    assert Slo.parse("p99.9=20ms").n_requests == 3000
    assert slo.least_rate(windows) == 5.0
    assert slo.least_rate(Patience(duration=600.0)) == 0.5
    assert slo.patience(windows, 50.0) is windows
    assert slo.patience(windows, 49.0).duration == pytest.approx(300 / 49)
    assert slo.patience(Patience(window=2.0, max_windows=1), 50.0).duration == 6.0
    fixed = Patience(duration=1.0)
    assert slo.patience(fixed, 300.0) is fixed


def test_a_rate_of_which_nothing_is_answered_does_not_hold() -> None:
    def probe(load: Load) -> Point:
        assert load.rate is not None
        if load.rate > 300.0:
            raise NoAnswers("nothing of what was to be sent in the windows")
        return point_of(answers_of([0.01 if load.rate <= 137.0 else 0.03] * 50), load=load)

    best = highest_rate(probe, Slo.parse("p99=20ms"), first=1000.0, precision=0.05, least=1.0)
    assert 137 * 0.95 <= best <= 137
    n_probes = 0

    def silence(load: Load) -> Point:
        nonlocal n_probes
        n_probes += 1
        raise NoAnswers("nobody there")

    with pytest.raises(NoAnswers, match="nobody there"):
        highest_rate(silence, Slo.parse("p99=20ms"), first=1000.0, precision=0.05, least=1.0)
    assert n_probes == 3


def test_the_knee_is_where_power_is_greatest() -> None:
    """A server that does 100 requests/s, 10 ms each, one after the other, 20 of them side by side for free."""
    points = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        latency = 0.01 * max(1.0, n / 20)
        points.append(point_of(answers_of([latency] * int(n / latency), gap=0.0), load=Load(concurrency=n)))
    assert knee(points) == 4
    assert knee([]) is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Load(), "either a concurrency or a rate"),
        (lambda: Load(concurrency=1, rate=1.0), "either a concurrency or a rate"),
        (lambda: Load(concurrency=0), "at least 1"),
        (lambda: Load(rate=-1.0), "a rate in"),
        (lambda: Traffic(rows=0), "at least one row"),
        (lambda: Traffic(processes=0), "client processes"),
        (lambda: Patience(window=0), "windows"),
        (lambda: Patience(duration=0), "a duration above 0"),
        (lambda: request_sizes(Traffic(rows=5), 4, np.random.default_rng()), "at most 4 rows"),
    ],
)
def test_settings_out_of_range_are_refused(make: object, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        make()  # type: ignore[operator]


# -- the server and the worker ----------------------------------------------------------------------------------------

METRICS = b"""# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.9
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{gpu_uuid="GPU-1"} 74.5
"""


@pytest.mark.parametrize(("text", "expected"), [(METRICS, 0.7), (b"nv_cpu_utilization 0.5\n", None), (b"{[", None)])
def test_gpus_are_read_where_the_server_reports_them(text: bytes, expected: float | None) -> None:
    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        view = ServerView(Target("127.0.0.1:9", metrics=f"127.0.0.1:{server.server_port}"))
        look = view.look()
        view.close()
        server.shutdown()
    assert look.gpu == (pytest.approx(expected) if expected else None)
    assert look.counts is None  # nobody there
    assert compare([look, look]) is None


# -- requests ---------------------------------------------------------------------------------------------------------


def test_sizes_drawn_are_those_of_self_play() -> None:
    found = json.loads(SIZES.read_text())
    sizes = request_sizes(Traffic(rows="selfplay"), 1024, np.random.default_rng(1))
    assert np.mean(sizes) == pytest.approx(found["mean"], rel=0.02)
    assert len(set(sizes)) > 10
    assert max(sizes) <= 1024
    assert max(request_sizes(Traffic(rows="selfplay"), 4, np.random.default_rng(1))) == 4


def test_positions_of_a_search_differ_and_two_processes_send_others() -> None:
    one, two = (make_requests(Traffic(rows=64, seed=3), max_batch_size=1024, index=index) for index in (0, 1))
    rows = one[0]
    assert rows.shape == (64, 96)
    assert len(np.unique(rows, axis=0)) > 48
    assert one[0].tobytes() != two[0].tobytes()
    again = make_requests(Traffic(rows=64, seed=3), max_batch_size=1024, index=0)
    assert [rows.tobytes() for rows in one] == [rows.tobytes() for rows in again]


def test_rows_become_a_request_that_protobuf_reads() -> None:
    rows = make_requests(Traffic(rows=3), max_batch_size=8, index=0)[0]
    head = request_head(Target("h:1", "m"), 3)
    request = service_pb2.ModelInferRequest.FromString(encode_request(head, rows))
    assert [list(one.shape) for one in request.inputs] == [[3, OBSERVATION_BYTES]]
    assert [one.name for one in request.outputs] == ["policy", "value"]
    assert request.raw_input_contents == [rows.tobytes()]


def test_a_workers_configuration_survives_its_line() -> None:
    config = SenderConfig(Target("h:1", "m", key_file=Path("key")), "shm", Traffic(3, data="run"), 1024, 2)
    assert SenderConfig.from_json(config.to_json()) == config
