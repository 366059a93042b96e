# SPDX-License-Identifier: Apache-2.0
"""Time series of a run's counters, and the rates derived from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Counts since the start of play at one point in time."""

    seconds: float = 0.0
    rounds: float = 0
    decisions: float = 0
    simulations: float = 0
    leaves: float = 0
    """Leaves that needed an evaluation."""
    evaluations: float = 0
    """Rows evaluated; leaves may share one."""
    records: float = 0
    client_cpu_s: float = 0.0
    executions: float = 0
    """Batches executed by the server."""
    execution_rows: float = 0
    """Rows in these batches."""
    requests: float = 0
    queue_s: float = 0.0
    """Time in the server's queue, summed over requests."""
    compute_s: float = 0.0
    """Time in the model including input and output, summed over executions."""

    def minus(self, earlier: "Sample") -> "Sample":
        """Return the difference to an earlier sample."""
        before = asdict(earlier)
        return Sample(**{name: value - before[name] for name, value in asdict(self).items()})

    @property
    def rounds_per_min(self) -> float:
        return 60.0 * _ratio(self.rounds, self.seconds)

    @property
    def evaluations_per_s(self) -> float:
        return _ratio(self.evaluations, self.seconds)

    @property
    def mean_execution_rows(self) -> float | None:
        """Mean batch size at the server; None without executions."""
        return _ratio(self.execution_rows, self.executions) if self.executions else None

    @property
    def queue_ms(self) -> float:
        """Mean time of a request in the server's queue."""
        return 1000.0 * _ratio(self.queue_s, self.requests)

    @property
    def compute_ms(self) -> float:
        """Mean time of one execution."""
        return 1000.0 * _ratio(self.compute_s, self.executions)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@dataclass
class History:
    """Samples in chronological order, the first at the start of play."""

    samples: list[Sample] = field(default_factory=lambda: [Sample()])

    def add(self, seconds: float, *sources: Mapping[str, float]) -> None:
        """Add a sample from the counts of the fleet and the server."""
        values: dict[str, Any] = {"seconds": seconds}
        for source in sources:
            values.update(source)
        self.samples.append(Sample(**values))

    @property
    def total(self) -> Sample:
        """Counts from the start to the last sample."""
        return self.samples[-1]

    def recent(self, window_s: float = 10.0) -> Sample:
        """Return the counts of the last `window_s` seconds."""
        last = self.samples[-1]
        earlier = [sample for sample in self.samples if sample.seconds <= last.seconds - window_s]
        return last.minus(earlier[-1] if earlier else self.samples[0])

    def steps(self, window_s: float = 2.0) -> list[tuple[float, Sample]]:
        """Return (end time, counts) of consecutive steps of at least `window_s`, without an incomplete last step.

        Workers report once a second, so shorter steps would show the timing of the reports.
        """
        steps = []
        earlier = self.samples[0]
        for sample in self.samples[1:]:
            if sample.seconds - earlier.seconds >= window_s:
                steps.append((sample.seconds, sample.minus(earlier)))
                earlier = sample
        return steps
