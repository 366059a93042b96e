# SPDX-License-Identifier: Apache-2.0
"""How many clients a server holds: `python -m benchmarks.capacity data/bench` writes docs/capacity.md.

Every figure is derived from what `blobzero bench inference` and `blobzero bench selfplay` left. What a GPU would do is
not measured here: rates are assumed, and the vendors' stated peaks only bound them.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from clients.report import write_aside
from mcts_ext.errors import BlobError

PAGE: Final = Path("docs/capacity.md")
RATES: Final = (50_000, 200_000, 500_000, 1_000_000, 2_000_000)
"""Rows/s of an assumed network server."""
NETWORK_CARDS: Final = (1, 10, 25, 100)
"""Gbit/s."""
STATED_PEAKS: Final = (
    ("GeForce RTX 4060", 15.1, "float32, NVIDIA's product page of the GeForce RTX 4060 family"),
    ("A100 SXM", 312.0, "bfloat16 or float16, dense, NVIDIA's A100 data sheet"),
    ("H100 SXM", 989.0, "bfloat16 or float16, dense, NVIDIA's H100 data sheet"),
)
"""(GPU, TFLOP/s, of what and who says so)."""
SETTING: Final = (3, 30)


class CapacityError(BlobError):
    """Benchmarks that are missing or of another form."""


@dataclass(frozen=True)
class Costs:
    """What one row costs, measured."""

    client_us: float
    """Of a client core: search, observation, gRPC and records."""
    server_us: float
    """Of the server's own process, the network left out."""
    backend_us: float
    """Of a core that computes the network."""
    bytes_sent: float
    bytes_answered: float
    multiply_adds: int
    rows_per_round: float
    rows_per_s: float
    """Reached in self-play on the measured machine."""

    def client_cores(self, rows_per_s: float) -> float:
        """Cores of clients that a server of this rate keeps busy."""
        return rows_per_s * self.client_us / 1e6

    def server_cores(self, rows_per_s: float) -> float:
        """Cores of the server's host that gRPC and batching take, the network left out."""
        return rows_per_s * self.server_us / 1e6

    def rounds_per_min(self, rows_per_s: float) -> float:
        return 60 * rows_per_s / self.rows_per_round

    def card_rows_per_s(self, gbit_per_s: float) -> float:
        """Rows/s at which the busier direction of a network card is full."""
        return gbit_per_s * 1e9 / 8 / max(self.bytes_sent, self.bytes_answered)

    def peak_rows_per_s(self, tflop_per_s: float) -> float:
        """Rows/s if every operation of a stated peak went into the matrices; a ceiling that nothing reaches."""
        return tflop_per_s * 1e12 / (2 * self.multiply_adds)


def read_costs(inference: Mapping[str, Any], selfplay: Mapping[str, Any]) -> Costs:
    """From the JSON of the two levels; the workers of the best rate at 3 x 30 stand for all clients."""
    try:
        points = [p for p in selfplay["points"] if (p["determinizations"], p["simulations"]) == SETTING]
        best = max(points, key=lambda point: float(point["rounds_per_min"]))
        return Costs(
            client_us=best["client_us_per_evaluation"],
            server_us=best["server_us_per_evaluation"],
            backend_us=best["backend_us_per_evaluation"],
            bytes_sent=inference["bytes_sent_per_row"],
            bytes_answered=inference["bytes_answered_per_row"],
            multiply_adds=inference["config"]["multiply_adds_per_row"],
            rows_per_round=best["evaluations_per_round"],
            rows_per_s=best["evaluations_per_s"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CapacityError(
            f"expected the JSON of blobzero bench inference and selfplay, got {type(error).__name__}: {error}; run both"
        ) from error


_TEMPLATE: Final = """\
# Capacity: how many clients a server holds

Written by `python -m benchmarks.capacity`, never by hand. Measured at commit {commit} on {date}:
{cores} cores of an {cpu}, no GPU. Nothing below is a measurement of a GPU.

## What one evaluation costs

| where | microseconds of one core |
| --- | --- |
| client: search, observation, gRPC, records | {client_us:.2f} |
| server: gRPC, batching | {server_us:.2f} |
| the network, on this CPU | {backend_us:.2f} |

It travels as {bytes_sent:.0f} bytes there and {bytes_answered:.0f} back. A round at 3 x 30 takes {rows_per_round:,.0f}.
On this machine, which does all three, {rows_per_s:,.0f} a second: {share:.0f}% of the work is the network.

## With the network on a GPU

Rates are assumed: put in what `blobzero bench inference` gives on yours. Client cores are cores like this machine's,
kept busy.

| rows/s of the GPU | rounds/min at 3 x 30 | client cores | server's cores | Gbit/s to it | Gbit/s back |
| --- | --- | --- | --- | --- | --- |
{rates}

One client core asks for {rows_per_client:,.0f} rows/s at most. The server's cores are the second limit:
{rows_per_server:,.0f} rows/s a core.

What a GPU can reach at most follows from its maker's stated peak and the {madds:.2f} million multiply-adds of a row.
These are ceilings, not forecasts: transfers, launches and everything but matrices come on top.

| GPU | stated peak | ceiling, rows/s | client cores at the ceiling |
| --- | --- | --- | --- |
{peaks}

## Where the network card becomes the limit

| card of the server | rows/s (answers are the larger part) | client cores |
| --- | --- | --- |
{cards}

## What changes then

- Clients are the limit: more of them, one a core, on any host.
- The server's process is the limit: larger requests first (`--games`, `--groups`), for a request costs the server the
  same whatever its size; then a second server, on the same GPU or another.
- The card is the limit: answers in float16 would halve the {bytes_answered:.0f} bytes; clients on the server's own host
  use no card.
- The GPU is the limit: more GPUs, each with a server and its share of the clients.
"""


def render(inference: Mapping[str, Any], selfplay: Mapping[str, Any]) -> str:
    """The page."""
    costs = read_costs(inference, selfplay)
    rates = [
        f"| {rate:,} | {costs.rounds_per_min(rate):,.0f} | {costs.client_cores(rate):.1f} | "
        f"{costs.server_cores(rate):.1f} | {rate * costs.bytes_sent * 8 / 1e9:.2f} | "
        f"{rate * costs.bytes_answered * 8 / 1e9:.2f} |"
        for rate in RATES
    ]
    peaks = [
        f"| {name} | {tflops:g} TFLOP/s ({source}) | {costs.peak_rows_per_s(tflops):,.0f} | "
        f"{costs.client_cores(costs.peak_rows_per_s(tflops)):.0f} |"
        for name, tflops, source in STATED_PEAKS
    ]
    full = {gbit: costs.card_rows_per_s(gbit) for gbit in NETWORK_CARDS}
    cards = [f"| {gbit} Gbit/s | {rate:,.0f} | {costs.client_cores(rate):.1f} |" for gbit, rate in full.items()]
    return _TEMPLATE.format(
        **asdict(costs),
        commit=selfplay["commit"],
        date=selfplay["measured_at"][:10],
        **{key: selfplay["machine"][key] for key in ("cpu", "cores")},
        share=100 * costs.backend_us / (costs.client_us + costs.server_us + costs.backend_us),
        rows_per_client=1e6 / costs.client_us,
        rows_per_server=1e6 / costs.server_us,
        madds=costs.multiply_adds / 1e6,
        rates="\n".join(rates),
        peaks="\n".join(peaks),
        cards="\n".join(cards),
    )


def main(arguments: list[str]) -> int:
    """Read a folder of JSON, write the page; the exit status."""
    if len(arguments) != 1:
        print("usage: python -m benchmarks.capacity FOLDER   (of `blobzero bench`; writes docs/capacity.md)")
        return 2
    folder = Path(arguments[0])
    try:
        inference, selfplay = (
            json.loads((folder / f"{level}.json").read_text()) for level in ("inference", "selfplay")
        )
        page = render(inference, selfplay)
    except (OSError, ValueError, BlobError) as error:
        print(f"capacity: expected the JSON of blobzero bench in {folder}, got {error}", file=sys.stderr)
        return 1
    write_aside(PAGE, page.encode())
    print(f"written  {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
