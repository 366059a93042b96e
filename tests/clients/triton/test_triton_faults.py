# SPDX-License-Identifier: Apache-2.0
"""What the client makes of a server's failures, against a scripted server; tests/system has the real one."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.errors import (
    AnswerPending,
    EvaluatorClosed,
    EvaluatorError,
    ModelMismatch,
    ModelNotFound,
    RequestRejected,
    RequestTimeout,
    ServerFailed,
    ServerUnreachable,
    UnsoundAnswer,
)
from clients.evaluator import evaluate
from clients.triton.evaluator import TritonEvaluator, _pause_s
from clients.triton.protocol import grpc
from mcts_ext.errors import InvalidConfig
from tests.support.fake_triton import FakeTriton, Step, answer, fail
from tests.support.tiny_model import random_rows

Code = grpc.StatusCode
Connect = Callable[..., TritonEvaluator]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture
def connect(server: FakeTriton) -> Iterator[Connect]:
    opened: list[TritonEvaluator] = []

    def connect(**settings: object) -> TritonEvaluator:
        opened.append(TritonEvaluator(server.url, **{"server_timeout_s": 5.0, **settings}))  # type: ignore[arg-type]
        return opened[-1]

    yield connect
    for evaluator in opened:
        evaluator.close()


@pytest.mark.parametrize(
    "step",
    [
        fail(Code.UNAVAILABLE, "Server is stopping, scheduler for model has stopped accepting new inference requests"),
        fail(Code.UNAVAILABLE, "Exceeds maximum queue size"),
        fail(Code.RESOURCE_EXHAUSTED, "queue full"),
        fail(Code.NOT_FOUND, "Request for unknown model: 'blobnet' has no available versions"),
        fail(Code.INTERNAL, "Stub process 'blobnet_0_0' is not healthy."),
        fail(Code.UNKNOWN, "whatever"),
        fail(Code.CANCELLED, "whatever"),
    ],
)
def test_what_may_pass_is_asked_again(server: FakeTriton, connect: Connect, step: Step) -> None:
    said: list[str] = []
    evaluator = connect(on_event=said.append)
    server.script.extend([step, step, answer(logit=3.0)])
    found = evaluate(evaluator, random_rows(4, seed=1))
    assert (found.logits == 3.0).all()
    assert len({request.SerializeToString() for request in server.requests}) == 1
    assert len(server.requests) == 3
    assert len(said) == 2
    assert "does not answer" in said[0]
    assert "answers again" in said[1]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (fail(Code.INVALID_ARGUMENT, "unexpected shape"), RequestRejected),
        (fail(Code.INTERNAL, "Unable to parse request"), RequestRejected),
        (fail(Code.NOT_FOUND, "Unable to find shared memory region: 'rows'"), RequestRejected),
        (fail(Code.NOT_FOUND, "Request for unknown model: 'blobnet' is not found"), ModelNotFound),
        (fail(Code.UNIMPLEMENTED), ServerFailed),
        (fail(Code.PERMISSION_DENIED), ServerFailed),
        (fail(Code.UNAUTHENTICATED), ServerFailed),
        (answer(logit=float("nan")), UnsoundAnswer),
        (answer(logit=float("inf")), UnsoundAnswer),
        (answer(n_missing=1), UnsoundAnswer),
        (answer(datatype="FP16"), UnsoundAnswer),
    ],
)
def test_what_can_not_pass_is_raised_at_once(
    server: FakeTriton, connect: Connect, step: Step, kind: type[EvaluatorError]
) -> None:
    evaluator = connect()
    server.script.append(step)
    evaluator.submit(random_rows(4, seed=1), tag=1)
    with pytest.raises(kind) as raised:
        evaluator.wait()
    assert "\n" not in str(raised.value)
    assert "expected" in str(raised.value)
    assert ", got " in str(raised.value)
    assert len(server.requests) == 1
    with pytest.raises(EvaluatorError, match="got none"):  # that batch is dropped
        evaluator.wait()
    assert evaluate(evaluator, random_rows(2, seed=1)).model_version == 1


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (fail(Code.UNAVAILABLE), ServerUnreachable),
        (fail(Code.INTERNAL, "Stub process 'blobnet_0_0' is not healthy."), ServerFailed),
        (fail(Code.NOT_FOUND, "Request for unknown model: 'blobnet' has no available versions"), ModelNotFound),
        (answer(after_s=0.7), RequestTimeout),
    ],
)
def test_it_gives_up_after_the_servers_time(
    server: FakeTriton, connect: Connect, step: Step, kind: type[EvaluatorError]
) -> None:
    said: list[str] = []
    evaluator = connect(server_timeout_s=0.8, request_timeout_s=0.3, on_event=said.append)
    server.otherwise = step
    began = time.monotonic()
    with pytest.raises(kind, match=r"for 0\.\d s"):
        evaluate(evaluator, random_rows(4, seed=1))
    assert time.monotonic() - began < 2.0
    assert 2 <= len(server.requests) <= 12
    assert len(said) == 1
    server.otherwise = answer()
    assert evaluate(evaluator, random_rows(2, seed=1)).model_version == 1
    assert len(said) == 2


def test_pauses_double_up_to_a_second_and_differ() -> None:
    for n_failures, longest in [(1, 0.05), (2, 0.1), (5, 0.8), (6, 1.0), (1030, 1.0), (100_000, 1.0)]:
        pauses = [_pause_s(n_failures) for _ in range(500)]
        assert 0.5 * longest <= min(pauses) < 0.6 * longest
        assert 0.9 * longest < max(pauses) <= longest


def test_a_server_that_refuses_is_asked_ever_less_often(server: FakeTriton, connect: Connect) -> None:
    came: list[float] = []

    def refuse(request: object, context: grpc.ServicerContext) -> object:
        came.append(time.monotonic())
        return fail(Code.UNAVAILABLE, "Exceeds maximum queue size")(request, context)

    evaluator = connect()
    server.script.extend([refuse] * 5)
    evaluate(evaluator, random_rows(4, seed=1))
    gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
    assert [gap >= 0.5 * pause for gap, pause in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=True)] == [True] * 4


def test_no_repeats_when_none_are_wanted(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect(server_timeout_s=0.0)
    server.otherwise = fail(Code.UNAVAILABLE)
    with pytest.raises(ServerUnreachable):
        evaluate(evaluator, random_rows(4, seed=1))
    assert len(server.requests) == 1


def test_a_deadline_is_kept_and_the_late_answer_ignored(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect(request_timeout_s=0.2)
    server.script.extend([answer(after_s=0.6, logit=1.0), answer(logit=2.0)])
    assert evaluate(evaluator, random_rows(4, seed=1)).logits[0, 0] == 2.0
    time.sleep(0.6)
    assert evaluate(evaluator, random_rows(4, seed=1)).logits[0, 0] == 0.0


def test_one_batch_failing_leaves_the_others(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect()
    server.script.extend([answer(after_s=0.3)])
    evaluator.submit(random_rows(4, seed=1), tag=1)
    while not server.requests:
        time.sleep(0.01)
    server.script.extend([fail(Code.INVALID_ARGUMENT)] * 3)
    evaluator.submit(random_rows(24, seed=2), tag=2)  # three requests, each refused: one error all the same
    with pytest.raises(RequestRejected):
        evaluator.wait()
    assert evaluator.wait()[0] == 1
    evaluator.submit(random_rows(4, seed=3), tag=3)
    assert evaluator.wait()[0] == 3


def test_wait_returns_when_the_caller_has_no_more_time(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect()
    server.script.append(answer(after_s=0.5))
    evaluator.submit(random_rows(4, seed=1), tag=9)
    for timeout_s in (0.0, 0.1):
        began = time.monotonic()
        with pytest.raises(AnswerPending):
            evaluator.wait(timeout_s)
        assert time.monotonic() - began < 0.4
    assert evaluator.wait(5.0)[0] == 9
    assert len(server.requests) == 1


def test_what_is_left_of_a_dropped_batch_is_not_asked_again(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect()
    server.script.extend([fail(Code.UNAVAILABLE), fail(Code.UNAVAILABLE), fail(Code.INVALID_ARGUMENT, after_s=0.02)])
    with pytest.raises(RequestRejected):
        evaluate(evaluator, random_rows(24, seed=2))
    n_requests = len(server.requests)
    server.script.append(answer(after_s=0.3))
    evaluate(evaluator, random_rows(4, seed=1))
    assert len(server.requests) == n_requests + 1


@pytest.mark.parametrize("step", [fail(Code.UNAVAILABLE), answer(after_s=3.0)], ids=["pausing", "in flight"])
def test_closing_ends_a_wait(server: FakeTriton, connect: Connect, step: Step) -> None:
    evaluator = connect(server_timeout_s=60.0)
    server.otherwise = step
    evaluator.submit(random_rows(4, seed=1), tag=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(evaluator.wait)
        time.sleep(0.2)
        assert not waiting.done()
        evaluator.close()
        with pytest.raises(EvaluatorClosed):
            waiting.result(timeout=2)


def test_large_batches_travel_in_even_parts_and_come_back_in_order(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect()
    rows = random_rows(20, seed=1)  # at most 8 at a time
    server.otherwise = answer(values_first=True)
    found = evaluate(evaluator, rows)
    assert found.logits.shape == (20, 66)
    sizes = [request.inputs[0].shape[0] for request in server.requests]
    assert sorted(sizes) == [6, 7, 7]
    sent = sorted(request.raw_input_contents[0] for request in server.requests)
    assert sent == sorted([rows[:6].tobytes(), rows[6:13].tobytes(), rows[13:].tobytes()])


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)], ids=["forward", "back"])
def test_one_evaluation_has_one_version(server: FakeTriton, connect: Connect, before: int, after: int) -> None:
    """The model is swapped between the parts of a batch: none of the old answers remains."""
    evaluator = connect()
    server.script.extend([answer(version=before, logit=1.0), answer(version=before, logit=1.0)])
    server.otherwise = answer(version=after, logit=2.0, after_s=0.1)
    found = evaluate(evaluator, random_rows(24, seed=1))
    assert found.model_version == after
    assert (found.logits == 2.0).all()
    assert len(server.requests) == 5


def test_versions_that_never_agree_are_an_error(server: FakeTriton, connect: Connect) -> None:
    evaluator = connect(server_timeout_s=0.5)
    server.script.extend(answer(version=i) for i in range(1, 100))
    with pytest.raises(ServerFailed, match="within one batch"):
        evaluate(evaluator, random_rows(16, seed=1))


def test_a_server_that_comes_and_goes_is_mentioned_once(server: FakeTriton, connect: Connect) -> None:
    said: list[str] = []
    evaluator = connect(on_event=said.append)
    for _ in range(5):
        server.script.append(fail(Code.UNAVAILABLE))
        evaluate(evaluator, random_rows(4, seed=1))
    assert len(said) == 2


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda c: c.input[0].dims.__setitem__(0, 128),
            r"input observation UINT8 \[96\].*got observation UINT8 \[128\]",
        ),
        (lambda c: setattr(c.input[0], "data_type", "TYPE_FP32"), r"got observation FP32 \[96\]"),
        (lambda c: setattr(c.input[0], "name", "obs"), r"got obs UINT8 \[96\]"),
        (
            lambda c: c.input.add(name="mask", data_type="TYPE_BOOL", dims=[66]),
            r"got mask BOOL \[66\] and observation UINT8",
        ),
        (lambda c: c.output[0].dims.__setitem__(0, 52), r"got policy FP32 \[52\] and value"),
        (lambda c: setattr(c.output[1], "data_type", "TYPE_FP16"), r"got .*value FP16 \[8\]"),
        (lambda c: c.output.pop(), r"got policy FP32 \[66\];"),
        (lambda c: setattr(c, "max_batch_size", 0), r"expected max_batch_size >= 1 .*got 0"),
        (
            lambda c: setattr(c.parameters["observation_version"], "string_value", "7"),
            r"expected observation_version 2 .*got '7'",
        ),
    ],
)
def test_a_model_of_another_contract_is_refused(
    server: FakeTriton, connect: Connect, spoil: Callable[[object], None], said: str
) -> None:
    spoil(server.config)
    with pytest.raises(ModelMismatch, match=said) as raised:
        connect()
    assert "\n" not in str(raised.value)
    assert server.url in str(raised.value)


def test_further_outputs_and_the_right_version_are_fine(server: FakeTriton, connect: Connect) -> None:
    server.config.output.add(name="debug", data_type="TYPE_FP16", dims=[3])
    server.config.parameters["observation_version"].string_value = "2"
    assert connect().max_batch_size == 8


def test_it_waits_for_a_server_that_is_starting(server: FakeTriton, connect: Connect) -> None:
    said: list[str] = []
    server.config_failures.extend([fail(Code.UNAVAILABLE), fail(Code.NOT_FOUND, "'blobnet' has no available versions")])
    assert connect(on_event=said.append).max_batch_size == 8
    assert len(said) == 2


def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound, and not listening: nobody else can
        taken.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        said: list[str] = []
        began = time.monotonic()
        with pytest.raises(ServerUnreachable, match=f"expected a Triton server at {url}, got .*refused"):
            TritonEvaluator(url, server_timeout_s=0.5, on_event=said.append)
        assert time.monotonic() - began < 2.0
        assert len(said) == 1


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1", "http://127.0.0.1:8001", "127.0.0.1:", "127.0.0.1:99999", ":8001", "::1:8001"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InvalidConfig, match="expected HOST:PORT"):
        TritonEvaluator(url)
