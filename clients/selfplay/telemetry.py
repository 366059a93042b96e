# SPDX-License-Identifier: Apache-2.0
"""Time series of a run's counters, and the rates derived from them."""

from dataclasses import dataclass, field
from typing import Any

from clients.provenance import machine
from clients.triton.statistics import ModelCounts


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
    server: ModelCounts = field(default_factory=ModelCounts)

    def __sub__(self, earlier: "Sample") -> "Sample":
        before = vars(earlier)
        return Sample(**{name: value - before[name] for name, value in vars(self).items()})

    @property
    def rounds_per_min(self) -> float:
        return 60.0 * _ratio(self.rounds, self.seconds)

    @property
    def evaluations_per_s(self) -> float:
        return _ratio(self.evaluations, self.seconds)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@dataclass
class History:
    """Samples in chronological order, the first at the start of play."""

    samples: list[Sample] = field(default_factory=lambda: [Sample()])

    @property
    def total(self) -> Sample:
        """Counts from the start to the last sample."""
        return self.samples[-1]

    def recent(self, window_s: float = 10.0) -> Sample:
        """Return the counts of the last `window_s` seconds."""
        last = self.samples[-1]
        earlier = [sample for sample in self.samples if sample.seconds <= last.seconds - window_s]
        return last - (earlier[-1] if earlier else self.samples[0])

    def steps(self, window_s: float = 2.0) -> list[tuple[float, Sample]]:
        """Return (end time, counts) of consecutive steps of at least `window_s`, without an incomplete last step.

        Workers report once a second, so shorter steps would show the timing of the reports.
        """
        steps = []
        earlier = self.samples[0]
        for sample in self.samples[1:]:
            if sample.seconds - earlier.seconds >= window_s:
                steps.append((sample.seconds, sample - earlier))
                earlier = sample
        return steps

    def summary(self, **extra: Any) -> dict[str, Any]:
        """Return the figures of the run under their JSON keys; `extra` adds further entries."""
        total, server = self.total, self.total.server
        return {
            "rounds": int(total.rounds),
            "seconds": round(total.seconds, 3),
            "rounds_per_min": round(total.rounds_per_min, 2),
            "decisions": int(total.decisions),
            "simulations": int(total.simulations),
            "leaves": int(total.leaves),
            "evaluations": int(total.evaluations),
            "evaluations_per_s": round(total.evaluations_per_s, 1),
            "mean_execution_rows": server.mean_execution_rows and round(server.mean_execution_rows, 1),
            "queue_ms": round(server.queue_ms, 3),
            "compute_ms": round(server.compute_ms, 3),
            "client_cpu_s": round(total.client_cpu_s, 3),
            "records": int(total.records),
            "machine": machine(),
            **extra,
        }
