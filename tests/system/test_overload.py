# SPDX-License-Identifier: Apache-2.0
"""More work than a real server can do: with limits of its queue it refuses, without them everyone waits longer.

docs/operating.md ("Overload") says why our configurations set no limit.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from clients.connect import EvaluatorConfig
from clients.errors import ServerUnreachable
from clients.selfplay.fleet import Fleet
from clients.selfplay.records import shard_paths
from clients.selfplay.worker import WorkerConfig
from clients.triton.failures import Failure
from mcts_ext.config import SearchConfig
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.raw_client import RawClient, Standstill, assert_is_good, good_request, outcome
from tests.support.shards import read_shards
from tests.support.tiny_model import write_repository

pytestmark = [pytest.mark.triton, pytest.mark.timing]

QUEUE = 16
PATIENCE_S = 0.2
LIMITS = (
    f"default_queue_policy {{ max_queue_size: {QUEUE} timeout_action: REJECT "
    f"default_timeout_microseconds: {int(PATIENCE_S * 1e6)} }}"
)
BATCH = good_request(1024).SerializeToString()


@contextmanager
def serving(folder: Path, batching: str) -> Iterator[EmbeddedTriton]:
    repository = write_repository(folder / "models", n_instances=2, batching=batching)
    with EmbeddedTriton(ServerConfig(repository=repository, log_file=folder / "triton.log")) as server:
        yield server
        assert server.is_alive()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    with serving(tmp_path_factory.mktemp("limited"), LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    with serving(tmp_path_factory.mktemp("unlimited"), "") as server:
        yield server


def assert_refused(found: bytes | Failure, words: str) -> None:
    assert isinstance(found, Failure), "it was answered"
    assert (found.kind, found.may_pass) == (ServerUnreachable, True), found
    assert words in found.reason


def last_answer_s(client: RawClient, n: int) -> float:
    """How long the last of so many simultaneous requests waits."""
    began = time.monotonic()
    calls = [client.send(BATCH, timeout_s=60) for _ in range(n)]
    assert all(isinstance(outcome(call), bytes) for call in calls)
    return time.monotonic() - began


class Flood:
    """Clients that ask again as soon as they are answered or refused."""

    def __init__(self, url: str, *, n_clients: int, pause_s: float) -> None:
        self.served_s: list[float] = []
        self.refused_s: list[float] = []
        self.others: list[Failure] = []
        self._url = url
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(n_clients)]

    def _ask(self) -> None:
        with RawClient(self._url) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                found = client.ask(BATCH)
                took_s = time.monotonic() - began
                if not isinstance(found, Failure):
                    self.served_s.append(took_s)
                elif found.kind is ServerUnreachable:
                    self.refused_s.append(took_s)
                    time.sleep(self._pause_s)
                else:
                    self.others.append(found)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_full_queue_refuses_in_milliseconds_and_old_requests_expire(limited: EmbeddedTriton) -> None:
    with RawClient(limited.url) as client:
        with Standstill(limited):
            calls = [client.send(BATCH) for _ in range(4 * QUEUE)]
            time.sleep(0.1)
            waiting = [call for call in calls if not call.done()]
            assert QUEUE <= len(waiting) <= 2 * QUEUE  # and what the instances hold already
            took_s = []
            for _ in range(100):
                began = time.monotonic()
                assert_refused(client.ask(BATCH), "Exceeds maximum queue size")
                took_s.append(time.monotonic() - began)
            time.sleep(2 * PATIENCE_S)
        assert sorted(took_s)[98] < 0.05, took_s
        found = [outcome(call) for call in waiting]
        answers = [answer for answer in found if isinstance(answer, bytes)]
        assert answers  # what an instance held is answered, however late
        for answer in answers:
            assert_is_good(answer, 1024)
        expired = [answer for answer in found if isinstance(answer, Failure)]
        assert expired
        for failure in expired:
            assert_refused(failure, "Request timeout expired")
        client.assert_answers()


def test_who_is_served_in_a_flood_waits_no_longer_than_the_limits_say(limited: EmbeddedTriton) -> None:
    with Flood(limited.url, n_clients=40, pause_s=0.02) as flood:
        time.sleep(2.5)
    assert flood.others == []
    assert len(flood.served_s) > 50
    assert len(flood.refused_s) > 50
    served, refused = np.sort(flood.served_s), np.sort(flood.refused_s)
    assert np.quantile(served, 0.99) < PATIENCE_S + 0.2  # in the queue, then in batches before it and its own
    assert np.quantile(refused, 0.5) < 0.05  # the last few wait for Triton 2.51 to look at its queue, twice a second
    with RawClient(limited.url) as client:
        client.assert_answers()


def test_without_limits_nobody_is_refused_and_all_wait_longer(unlimited: EmbeddedTriton) -> None:
    with RawClient(unlimited.url) as client:
        client.assert_answers()
        few_s, many_s = last_answer_s(client, 150), last_answer_s(client, 900)
        assert many_s > 2 * few_s, (few_s, many_s)
        client.assert_answers()


@pytest.mark.slow
def test_a_fleet_beside_a_flood_plays_every_round_once(limited: EmbeddedTriton, tmp_path: Path) -> None:
    rounds, workers = 40, 2
    (tmp_path / "shards").mkdir()
    configs = [
        WorkerConfig(
            index=index,
            workers=workers,
            rounds=rounds,
            seed=5,
            out=tmp_path,
            evaluator=EvaluatorConfig(url=limited.url),
            search=SearchConfig(determinizations=1, simulations=2),
            games=32,
            shard_seconds=0.5,
        )
        for index in range(workers)
    ]
    deadline = time.monotonic() + 60
    with Fleet(configs, logs=tmp_path / "logs") as fleet:
        fleet.wait_ready()
        with Flood(limited.url, n_clients=40, pause_s=0.03) as flood:
            while len(flood.refused_s) < 40:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            fleet.go()
            while not fleet.is_done:
                assert time.monotonic() < deadline, f"{fleet.counts}, {fleet.requests}"
                fleet.poll(0.2)
    assert fleet.n_restarts == 0
    requests = fleet.requests
    assert requests.retries == requests.failures["ServerUnreachable"] > 0, requests
    records = read_shards(shard_paths(tmp_path / "shards"))
    assert set(records.round.tolist()) == set(range(rounds))
    pairs = set(zip(records.round.tolist(), records.decision.tolist(), strict=True))
    assert len(pairs) == len(records)
