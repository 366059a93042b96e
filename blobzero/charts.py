# SPDX-License-Identifier: Apache-2.0
"""Pictures of a learning loop, each as the bytes of a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Generations = Sequence[Mapping[str, Any]]

PARTS: Final = ("selfplay", "train", "publish", "match")


def strength(generations: Generations) -> bytes:
    """Difference of the round scores in every match, with its 95% interval, by generation and opponent."""
    figure, axes = _figure("generation", "round score, first minus second player")
    opponents = sorted(
        {name for one in generations for name in one["matches"]}, key=lambda name: (name != "before", name)
    )
    for i, name in enumerate(opponents):
        points = [
            (one["generation"], one["matches"][name]["difference"]) for one in generations if name in one["matches"]
        ]
        at = np.array([generation for generation, _ in points]) + 0.06 * i
        mean = np.array([found["mean"] for _, found in points])
        below = mean - np.array([found["low"] for _, found in points])
        above = np.array([found["high"] for _, found in points]) - mean
        label = "against the version before" if name == "before" else f"against {name}"
        axes.errorbar(at, mean, yerr=[below, above], fmt="o-", capsize=3, label=label, alpha=0.9)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend()
    return _png(figure)


def rating(generations: Generations) -> bytes:
    """Elo above the untrained network: the sum of the matches against the version before, and how sure it is."""
    figure, axes = _figure("generation", "Elo above the untrained network")
    steps = [one["matches"]["before"]["elo"] if one["promoted"] else None for one in generations]
    total = np.cumsum([0.0 if elo is None else elo["mean"] for elo in steps])
    spread = [0.0 if elo is None else (elo["high"] - elo["low"]) / 2 for elo in steps]
    width = np.sqrt(np.cumsum(np.square(spread)))  # the matches are independent
    at = [one["generation"] for one in generations]
    axes.plot(at, total, "o-")
    axes.fill_between(at, total - width, total + width, alpha=0.2)
    axes.axhline(0, color="grey", linewidth=0.8)
    return _png(figure)


def losses(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """Every loss that the trainer wrote down, by step."""
    figure, axes = _figure("training step", "loss")
    names = [name for name in metrics[0] if name.endswith("loss")] if metrics else []
    for name in names:
        label = name.replace("_", " ")
        axes.plot([one["step"] for one in metrics], [one[name] for one in metrics], ".-", label=label)
    if names:
        axes.legend()
    return _png(figure)


def rates(generations: Generations) -> bytes:
    """Self-play's rounds and evaluations, by generation."""
    figure, axes = _figure("generation", "rounds / min")
    at = [one["generation"] for one in generations]
    axes.plot(at, [one["selfplay"]["rounds_per_min"] for one in generations], "o-", color="tab:blue")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.plot(at, [one["selfplay"]["evaluations_per_s"] for one in generations], "s--", color="tab:orange")
    right.set_ylabel("evaluations / s", color="tab:orange")
    right.set_ylim(bottom=0)
    return _png(figure)


def time_spent(generations: Generations) -> bytes:
    """Where each generation's time went."""
    figure, axes = _figure("generation", "seconds")
    at = [one["generation"] for one in generations]
    bottom = np.zeros(len(at))
    for part in PARTS:
        seconds = np.array([one["seconds"][part] for one in generations])
        axes.bar(at, seconds, bottom=bottom, label=part)
        bottom = bottom + seconds
    axes.legend()
    return _png(figure)


def bids_made(made: Mapping[tuple[int, int], tuple[int, int]]) -> bytes:
    """Share of bids made, by hand size and seat: counted from the dealer's left, so the last one is the dealer.

    Args:
        made: (cards, seat) -> (made, rounds).
    """
    figure, axes = _figure("seat, in the order of bidding", "cards dealt")
    sizes = sorted({cards for cards, _ in made})
    seats = sorted({seat for _, seat in made})
    shares: NDArray[np.float64] = np.full((len(sizes), len(seats)), np.nan)
    for (cards, seat), (n_made, n_rounds) in made.items():
        shares[sizes.index(cards), seats.index(seat)] = n_made / n_rounds
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column, row, f"{100 * share:.0f}%", ha="center", va="center", color="white" if share < 0.6 else "black"
        )
    axes.grid(False)
    axes.set_xticks(range(len(seats)), [f"{seat + 1}." for seat in seats])
    axes.set_yticks(range(len(sizes)), [str(cards) for cards in sizes])
    figure.colorbar(image, label="bids made")
    return _png(figure)


def _figure(across: str, up: str) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    return figure, axes


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    return image.getvalue()
