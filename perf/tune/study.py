# SPDX-License-Identifier: Apache-2.0
"""The search for a better setting, and the proof that it is better.

A machine's speed drifts, so no measurement stands alone: the default is measured again before and after every few
trials, and a trial's score is the logarithm of its rate over the mean of those two.
"""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
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
from perf.tune.measure import Measure, Measured, Refused, excess, penalized
from perf.tune.space import Setting, Space
from ui.progress import Show

BLOCK: Final = 3
"""Number of trials between two measurements of the default."""
FINALISTS: Final = 3
N_TRIES: Final = 3
"""Number of tries for a setting that worked before: a refused one may have left a server that is still recovering."""
NAME: Final = "tune"
T = TypeVar("T")


class StudyError(BlobError):
    """The folder holds another study, or the server does not return to it."""


@dataclass(frozen=True)
class Verdict:
    """The default and the best setting in interleaved pairs, measured last. Arrays are `[n, 2]`, default first."""

    default: Setting
    setting: Setting
    pairs: Sequence[tuple[Measured, Measured]]
    limit_ms: float | None

    @property
    def ratio(self) -> Estimate:
        """Rate of the setting over that of the default."""
        return _ratio(self._values("rate"))

    @property
    def medians(self) -> tuple[float, float]:
        """Median rates of the default and of the setting."""
        default, best = np.median(self._values("rate"), axis=0)
        return float(default), float(best)

    @property
    def latency_ratio(self) -> Estimate | None:
        """Limited quantile of the setting over that of the default."""
        return _ratio(self._values("latency_ms")) if self.latencies_ms is not None else None

    @property
    def latencies_ms(self) -> tuple[float, float] | None:
        """Medians of the limited quantile, of the default and of the setting."""
        default, best = np.median(self._values("latency_ms"), axis=0)
        return None if math.isnan(default + best) else (float(default), float(best))

    @property
    def keep_limit(self) -> tuple[bool, bool]:
        """Whether the default and the setting meet the limit."""
        if self.limit_ms is None:
            return True, True
        default, best = self.latencies_ms or (math.inf, math.inf)
        return default <= self.limit_ms, best <= self.limit_ms

    @property
    def is_win(self) -> bool:
        """Whether the setting meets the limit and is faster, with an interval above 1.

        A default that misses the limit has no rate to compare with; then the latency must be lower, with an interval
        below 1.
        """
        default_keeps, keeps = self.keep_limit
        if default_keeps:
            return keeps and self.ratio.low > 1
        return keeps and self.latency_ratio is not None and self.latency_ratio.high < 1

    def describe(self, unit: str) -> str:
        ratio, (default, best), latencies = self.ratio, self.medians, self.latencies_ms
        return (
            f"ratio {ratio.mean:.3f}, 95% interval {ratio.low:.3f} to {ratio.high:.3f}, from {len(self.pairs)} "
            f"interleaved pairs; medians {best:,.0f} and {default:,.0f} (default) {unit}"
            + ("" if latencies is None else f"; latencies {latencies[1]:.1f} and {latencies[0]:.1f} (default) ms")
        )

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

    def _values(self, name: str) -> NDArray[np.float64]:
        """Return a field of all measurements; NaN for None."""
        return np.array([[getattr(one, name) for one in pair] for pair in self.pairs], float)


def _ratio(pairs: NDArray[np.float64]) -> Estimate:
    """Return the geometric mean of the second of each pair over the first, with its 95% interval."""
    found = estimate(np.log(pairs[:, 1] / pairs[:, 0]))
    return Estimate(*(math.exp(value) for value in (found.mean, found.low, found.high)))


def open_study(path: Path, *, seed: int) -> optuna.Study:
    """Open or create a study; trials that were interrupted with their process are queued again.

    Raises:
        StudyError: if the file holds no study.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Remove a line truncated by a kill or a full disk; the next one would be appended to it.
    if path.exists() and not (data := read_small(path)).endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(path)))
            study = optuna.create_study(study_name=NAME, storage=storage, direction="maximize", load_if_exists=True)
            # The same seed would suggest the first trials again.
            study.sampler = optuna.samplers.TPESampler(
                seed=seed + len(study.trials), multivariate=True, n_startup_trials=8, constant_liar=True
            )
    except (ValueError, KeyError) as error:
        raise StudyError(
            f"expected a study in {path}, got {reason(error)}; remove it, or choose another --out"
        ) from error
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a score or were refused."""
    return [one for one in study.trials if one.state == TrialState.COMPLETE or "reason" in one.user_attrs]


@dataclass(frozen=True)
class Tuning:
    """A study in progress."""

    study: optuna.Study
    space: Space
    measure: Measure
    _: KW_ONLY
    limit_ms: float | None
    show: Show

    def search(self, n_trials: int) -> None:
        """Try settings until the study has this many trials."""
        if not self.study.trials:
            for guess in self.space.guesses:
                self.study.enqueue_trial(guess)
        before: float | None = None
        while (left := n_trials - len(finished(self.study))) > 0:
            before = self._default() if before is None else before
            tried: list[tuple[Trial, Measured]] = []
            after: float | None = None
            try:
                for _ in range(min(BLOCK, left)):
                    trial = self.study.ask(self.space.distributions)
                    measured = self._try(trial)
                    if measured is not None:
                        tried.append((trial, measured))
                after = self._default()
            finally:  # completed measurements count even after an interruption
                reference = before if after is None else (before + after) / 2
                for trial, measured in tried:
                    self._tell(trial, measured, reference)
            before = after

    def choose(self) -> dict[str, int | str] | None:
        """Measure the best few settings again and return the best, other than the default; None if there is none."""
        ranked = sorted(
            self.study.get_trials(states=[TrialState.COMPLETE]),
            key=lambda trial: (self._is_over(trial.user_attrs.get("latency_ms")), -(trial.value or 0.0)),
        )
        finalists: list[dict[str, int | str]] = []
        for setting in (dict(trial.params) for trial in ranked):
            if setting != self.space.default and setting not in finalists and len(finalists) < FINALISTS:
                finalists.append(setting)
        scores, n_over = [0.0] * len(finalists), [0] * len(finalists)
        for order in (range(len(finalists)), reversed(range(len(finalists)))):
            reference = self._default()
            for i in order:
                self.show(f"measuring again: {finalists[i]}")
                try:
                    measured = self.measure(finalists[i])
                    scores[i] += penalized(measured, self.limit_ms) - reference
                    n_over[i] += self._is_over(measured.latency_ms)
                except Refused:
                    scores[i] = -math.inf
        left = [i for i, score in enumerate(scores) if score > -math.inf]
        return finalists[min(left, key=lambda i: (n_over[i], -scores[i]))] if left else None

    def compare(self, setting: Setting, *, pairs: int) -> Verdict:
        """Measure default and setting in turns, each as often first as second; the verdict rests on these alone.

        Raises:
            Refused: if the server no longer accepts one of them.
        """
        found: list[tuple[Measured, Measured]] = []
        for i in range(pairs):
            self.show(f"comparing: pair {i + 1} of {pairs}")
            found.append(self._insist(partial(self._pair, setting, default_first=i % 2 == 0)))
        return Verdict(self.space.default, setting, found, self.limit_ms)

    def _default(self) -> float:
        """Measure the default; return the logarithm of its rate."""
        self.show("the default")
        return math.log(self._insist(partial(self.measure, self.space.default)).rate)

    def _pair(self, setting: Setting, *, default_first: bool) -> tuple[Measured, Measured]:
        """Measure the default and a setting, one right after the other."""
        if default_first:
            return self.measure(self.space.default), self.measure(setting)
        found = self.measure(setting)
        return self.measure(self.space.default), found

    def _insist(self, measure: Callable[[], T]) -> T:
        """Measure, up to `N_TRIES` times if refused."""
        for _ in range(N_TRIES - 1):
            try:
                return measure()
            except Refused:
                continue
        return measure()

    def _is_over(self, latency_ms: float | None) -> bool:
        return excess(latency_ms, self.limit_ms) > 1

    def _try(self, trial: Trial) -> Measured | None:
        """Measure a trial; if the server refuses it, fail the trial and return None."""
        text = f"trial {trial.number + 1}: {trial.params}"
        self.show(text)
        try:
            return self.measure(dict(trial.params))
        except Refused as error:
            trial.set_user_attr("reason", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            self.show(f"{text}: refused: {error}", len(finished(self.study)), is_line=True)
            return None

    def _tell(self, trial: Trial, measured: Measured, reference: float) -> None:
        """Complete a trial; `reference` is the logarithm of the default's rate."""
        score = penalized(measured, self.limit_ms) - reference
        for name, value in {**asdict(measured), "default": math.exp(reference)}.items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, score)
        latency = "" if measured.latency_ms is None else f", {measured.latency_ms:.1f} ms"
        self.show(
            f"trial {trial.number + 1}: {trial.params}: {measured.rate:,.0f}{latency}, "
            f"{math.exp(score):.3f} of the default",
            len(finished(self.study)),
            is_line=True,
        )
