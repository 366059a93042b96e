# SPDX-License-Identifier: Apache-2.0
"""What every evaluator must do: test modules inherit `EvaluatorConformance` and give it the fixture `evaluator`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.errors import EvaluatorClosed, EvaluatorError, RequestRejected
from clients.evaluator import Evaluator, evaluate
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES
from mcts_ext.pool import SelfPlayPool
from tests.support.tiny_model import random_rows


class EvaluatorConformance:
    """Tests of the seam alone: what the numbers are is tested elsewhere."""

    tolerance = 1e-4
    """Between rows together and rows alone; 0 where it must be bit for bit."""

    @pytest.mark.parametrize("n_rows", [1, 2, 255, 1024, 1025, 2500])
    def test_answers_every_row(self, evaluator: Evaluator, n_rows: int) -> None:
        found = evaluate(evaluator, random_rows(n_rows, seed=n_rows))
        assert found.logits.shape == (n_rows, N_ACTIONS)
        assert found.values.shape == (n_rows, N_SEATS)
        for array in (found.logits, found.values):
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert np.isfinite(array).all()
        assert isinstance(found.model_version, int)

    def test_rows_together_equal_rows_alone(self, evaluator: Evaluator) -> None:
        rows = random_rows(40, seed=3)
        together = evaluate(evaluator, rows)
        alone = [evaluate(evaluator, rows[i : i + 1]) for i in reversed(range(len(rows)))][::-1]
        for name in ("logits", "values"):
            expected = np.concatenate([getattr(answer, name) for answer in alone])
            np.testing.assert_allclose(getattr(together, name), expected, rtol=0, atol=self.tolerance)

    def test_every_batch_in_flight_is_answered_under_its_tag(self, evaluator: Evaluator) -> None:
        batches = {
            tag: random_rows(n_rows, seed=abs(tag)) for tag, n_rows in ((7, 300), (0, 1), (-3, 1500), (2**40, 64))
        }
        expected = {tag: evaluate(evaluator, rows) for tag, rows in batches.items()}
        for tag, rows in batches.items():
            evaluator.submit(rows, tag=tag)
        answers = dict(evaluator.wait() for _ in batches)
        assert answers.keys() == expected.keys()
        for tag, answer in answers.items():  # compared after all have come: none may have been written over
            np.testing.assert_allclose(answer.logits, expected[tag].logits, rtol=0, atol=self.tolerance)
            np.testing.assert_allclose(answer.values, expected[tag].values, rtol=0, atol=self.tolerance)

    @pytest.mark.parametrize(
        "rows",
        [
            np.zeros((0, OBSERVATION_BYTES), np.uint8),
            np.zeros((4, OBSERVATION_BYTES - 1), np.uint8),
            np.zeros(OBSERVATION_BYTES, np.uint8),
            np.zeros((4, OBSERVATION_BYTES), np.float32),
            np.zeros((4, 2 * OBSERVATION_BYTES), np.uint8)[:, ::2],
        ],
        ids=["no rows", "short rows", "one dimension", "float32", "strided"],
    )
    def test_refuses_other_arrays_and_goes_on(self, evaluator: Evaluator, rows: NDArray[Any]) -> None:
        with pytest.raises(RequestRejected, match="expected"):
            evaluator.submit(rows, tag=0)
        assert len(evaluate(evaluator, random_rows(2, seed=1)).logits) == 2

    def test_does_not_hang_with_nothing_in_flight(self, evaluator: Evaluator) -> None:
        with pytest.raises(EvaluatorError, match="expected a batch in flight, got none"):
            evaluator.wait()

    def test_closed_it_says_so(self, evaluator: Evaluator) -> None:
        evaluator.submit(random_rows(2, seed=1), tag=0)
        evaluator.close()
        evaluator.close()
        with pytest.raises(EvaluatorClosed):
            evaluator.wait()
        with pytest.raises(EvaluatorClosed):
            evaluator.submit(random_rows(2, seed=1), tag=0)

    def test_another_thread_may_close_it(self, evaluator: Evaluator) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(evaluator.close).result()
        with pytest.raises(EvaluatorClosed):
            evaluator.wait()

    def test_a_pool_plays_with_it(self, evaluator: Evaluator) -> None:
        pool = SelfPlayPool(
            np.arange(6),
            seed=5,
            deal=DealConfig(players=(4,), cards=(3,)),
            search=SearchConfig(determinizations=2, simulations=8),
            n_games=4,
            n_groups=2,
        )
        n_waiting = 0
        for group in range(2):
            if pool.collect(group):
                evaluator.submit(pool.observations(group), tag=group)
                n_waiting += 1
        while n_waiting:
            group, answer = evaluator.wait()
            pool.apply(group, answer.logits, answer.values, model_version=answer.model_version)
            n_waiting -= 1
            if pool.collect(group):
                evaluator.submit(pool.observations(group), tag=group)
                n_waiting += 1
        pool.check()
        assert pool.n_unfinished == 0
