# SPDX-License-Identifier: Apache-2.0
"""The search for a better setting, and the proof that it is one.

A machine's speed drifts, so no measurement stands alone: the default is measured again before and after every few
trials, and a trial's score is the logarithm of its rate over the geometric mean of those two.
"""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from clients.arena.rating import Estimate, estimate
from clients.files import read_small, reason
from mcts_ext.errors import BlobError
from perf.tune.measure import Measure, Measured, Refused, penalized
from perf.tune.space import Setting, Space

BLOCK: Final = 3
"""Trials between two looks at the default."""
FINALISTS: Final = 3
N_TRIES: Final = 3
"""Of what was measured before, for the setting in between may have left a server that is not itself yet."""
NAME: Final = "tune"
T = TypeVar("T")


class StudyError(BlobError):
    """A folder holds a study of something else, or cannot be read or written."""


@dataclass(frozen=True)
class Verdict:
    """The default and the best setting in interleaved pairs, measured after all else."""

    default: Setting
    setting: Setting
    pairs: Sequence[tuple[Measured, Measured]]
    """Of the default and of the setting."""
    limit_ms: float | None

    @property
    def ratio(self) -> Estimate:
        """The setting's rate over the default's: the geometric mean, and its 95% interval."""
        return _ratio(np.array([[one.rate for one in pair] for pair in self.pairs]))

    @property
    def medians(self) -> tuple[float, float]:
        """Rates of the default and of the setting."""
        default, best = zip(*self.pairs, strict=True)
        return float(np.median([one.rate for one in default])), float(np.median([one.rate for one in best]))

    @property
    def latency_ratio(self) -> Estimate | None:
        """The setting's promised quantile over the default's, likewise."""
        found = np.array([[one.latency_ms for one in pair] for pair in self.pairs], float)
        return None if np.isnan(found).any() else _ratio(found)

    @property
    def latencies_ms(self) -> tuple[float, float] | None:
        """Medians of the promised quantile, of the default and of the setting."""
        found = np.array([[one.latency_ms for one in pair] for pair in self.pairs], float)
        if np.isnan(found).any():
            return None
        default, best = np.median(found, axis=0)
        return float(default), float(best)

    @property
    def keeps_promise(self) -> bool:
        latencies = self.latencies_ms
        return self.limit_ms is None or (latencies is not None and latencies[1] <= self.limit_ms)

    @property
    def default_keeps_promise(self) -> bool:
        latencies = self.latencies_ms
        return self.limit_ms is None or (latencies is not None and latencies[0] <= self.limit_ms)

    @property
    def is_win(self) -> bool:
        """Whether the setting keeps the promise, and is faster by an interval that excludes no difference.

        Where the default does not keep it there is no rate to compare with: then the latency must be lower by such an
        interval.
        """
        if not self.keeps_promise:
            return False
        if self.default_keeps_promise:
            return self.ratio.low > 1
        return self.latency_ratio is not None and self.latency_ratio.high < 1

    def to_json(self) -> dict[str, Any]:
        return {
            "default": dict(self.default),
            "setting": dict(self.setting),
            "ratio": asdict(self.ratio),
            "latency_ratio": None if self.latency_ratio is None else asdict(self.latency_ratio),
            "medians": self.medians,
            "latencies_ms": self.latencies_ms,
            "is_win": self.is_win,
            "pairs": [[asdict(one) for one in pair] for pair in self.pairs],
        }


def _ratio(pairs: NDArray[np.float64]) -> Estimate:
    """The second of `[n, 2]` over the first: the geometric mean, and its 95% interval."""
    found = estimate(np.log(pairs[:, 1] / pairs[:, 0]))
    return Estimate(*(math.exp(value) for value in (found.mean, found.low, found.high)))


def open_study(path: Path, *, seed: int) -> optuna.Study:
    """A study in a file; what it holds is gone on with, and what was broken off with its process is asked again.

    Raises:
        StudyError: the file cannot be read or written, or is no study.
    """
    try:
        _drop_torn_line(path)
        return _open_study(path, seed=seed)
    except OSError as error:
        raise StudyError(
            f"expected to read and write {path}, got {reason(error)}; make room, or choose another --out"
        ) from error
    except (ValueError, KeyError) as error:
        raise StudyError(
            f"expected a study in {path}, got {reason(error)}; remove it, or choose another --out"
        ) from error


def _drop_torn_line(path: Path) -> None:
    """Cut off what a process that was killed, or a full disk, left of a line: the next one would be written onto it."""
    if path.exists() and not (data := read_small(path)).endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _open_study(path: Path, *, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Another seed for what is still to come: the same one would ask for the first trials again.
        storage = JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(study_name=NAME, storage=storage, direction="maximize", load_if_exists=True)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(study.trials), multivariate=True, n_startup_trials=8, constant_liar=True
        )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a score, and those that the server refused."""
    return [one for one in study.trials if one.state == TrialState.COMPLETE or "reason" in one.user_attrs]


def setting_of(trial: FrozenTrial) -> dict[str, int | str]:
    return dict(trial.params)


class Tuning:
    """A study under way.

    Args:
        measure: measures one setting once.
        show: told, in one line each, what is measured, or with a number of trials done what came of one.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        measure: Measure,
        *,
        limit_ms: float | None,
        show: Callable[[str, int | None], None],
    ) -> None:
        self._study = study
        self._space = space
        self._measure = measure
        self._limit_ms = limit_ms
        self._show = show

    def search(self, n_trials: int) -> None:
        """Try settings until the study has so many trials."""
        if not self._study.trials:
            for guess in self._space.guesses:
                self._study.enqueue_trial(guess)
        before: float | None = None
        while (left := n_trials - len(finished(self._study))) > 0:
            before = self._default() if before is None else before
            tried: list[tuple[Trial, Measured]] = []
            after: float | None = None
            try:
                for _ in range(min(BLOCK, left)):
                    trial = self._study.ask(self._space.distributions)
                    measured = self._try(trial)
                    if measured is not None:
                        tried.append((trial, measured))
                after = self._default()
            finally:  # what was measured counts, whatever comes in between
                beside = before if after is None else (before + after) / 2
                for trial, measured in tried:
                    self._tell(trial, measured, beside)
            before = after

    def choose(self) -> dict[str, int | str] | None:
        """The best setting but the default, after the best few were measured again; None where there is none."""
        ranked = sorted(
            self._study.get_trials(states=[TrialState.COMPLETE]),
            key=lambda one: (self._is_over(one.user_attrs.get("latency_ms")), -(one.value or 0.0)),
        )
        finalists: list[dict[str, int | str]] = []
        scores: list[float] = []
        for trial in ranked:
            setting = setting_of(trial)
            if setting != self._space.default and setting not in finalists and len(finalists) < FINALISTS:
                finalists.append(setting)
                scores.append(0.0)
        n_over = [0] * len(finalists)
        for order in (range(len(finalists)), reversed(range(len(finalists)))):
            beside = self._default()
            for i in order:
                self._show(f"again: {finalists[i]}", None)
                try:
                    measured = self._measure(finalists[i])
                    scores[i] += penalized(measured, self._limit_ms) - beside
                    n_over[i] += self._is_over(measured.latency_ms)
                except Refused:
                    scores[i] = -math.inf
        left = [i for i, score in enumerate(scores) if score > -math.inf]
        return finalists[min(left, key=lambda i: (n_over[i], -scores[i]))] if left else None

    def compare(self, setting: Setting, *, pairs: int) -> Verdict:
        """Default and setting in turns, each as often first as second: the verdict rests on these alone.

        Raises:
            Refused: the server does not take one of them any more.
        """
        found: list[tuple[Measured, Measured]] = []
        for i in range(pairs):
            self._show(f"comparing: pair {i + 1} of {pairs}", None)
            found.append(self._insist(partial(self._pair, setting, default_first=i % 2 == 0)))
        return Verdict(self._space.default, setting, found, self._limit_ms)

    def _default(self) -> float:
        """The logarithm of the default's rate now."""
        self._show("the default", None)
        return math.log(self._insist(partial(self._measure, self._space.default)).rate)

    def _pair(self, setting: Setting, *, default_first: bool) -> tuple[Measured, Measured]:
        """The default and a setting, one right after the other."""
        if default_first:
            return self._measure(self._space.default), self._measure(setting)
        found = self._measure(setting)
        return self._measure(self._space.default), found

    def _insist(self, measure: Callable[[], T]) -> T:
        """Measure again what was refused, up to `N_TRIES` times."""
        for _ in range(N_TRIES - 1):
            try:
                return measure()
            except Refused:
                continue
        return measure()

    def _is_over(self, latency_ms: float | None) -> bool:
        return self._limit_ms is not None and latency_ms is not None and latency_ms > self._limit_ms

    def _try(self, trial: Trial) -> Measured | None:
        """Measure a trial; None, and the trial failed, where the server refuses it."""
        setting = dict(trial.params)
        self._show(f"trial {trial.number + 1}: {setting}", None)
        try:
            return self._measure(setting)
        except Refused as error:
            trial.set_user_attr("reason", str(error))
            self._study.tell(trial, state=TrialState.FAIL)
            self._show(f"trial {trial.number + 1}: {setting}: refused: {error}", len(finished(self._study)))
            return None

    def _tell(self, trial: Trial, measured: Measured, beside: float) -> None:
        score = penalized(measured, self._limit_ms) - beside
        for name, value in (
            ("rate", measured.rate),
            ("latency_ms", measured.latency_ms),
            ("default", math.exp(beside)),
        ):
            trial.set_user_attr(name, value)
        self._study.tell(trial, score)
        latency = "" if measured.latency_ms is None else f", {measured.latency_ms:.1f} ms"
        self._show(
            f"trial {trial.number + 1}: {dict(trial.params)}: {measured.rate:,.0f}{latency}, "
            f"{math.exp(score):.3f} of the default",
            len(finished(self._study)),
        )
