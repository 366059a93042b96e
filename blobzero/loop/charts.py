# SPDX-License-Identifier: Apache-2.0
"""Charts of a learning loop, as PNG bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ui.figures import new_figure, png, thousands

Generations = Sequence[Mapping[str, Any]]

PARTS: Final = {
    "selfplay": "self-play",
    "examine": "examining",
    "train": "training",
    "publish": "publishing",
    "match": "matches",
}
"""Display names of the parts of a generation."""
CROWD: Final = 40
"""Number of points from which a line has no markers."""


def strength(generations: Generations) -> bytes:
    """Draw the mean score difference of every match with its 95% interval, by generation and opponent."""
    figure, (axes,) = new_figure("generation", "score difference per round")
    for i, name in enumerate(opponents(generations)):
        _intervals(axes, generations, name, "difference", label=described(name), shift=0.12 * i)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend()
    return png(figure)


def rating(generations: Generations) -> bytes:
    """Draw the Elo above the untrained network, summed over matches with the previous version, and above each bot."""
    figure, (axes,) = new_figure("generation", "Elo")
    steps = [one["matches"]["before"]["elo"] if one["promoted"] else None for one in generations]
    total = np.cumsum([0.0 if elo is None else elo["mean"] for elo in steps])
    spread = [0.0 if elo is None else (elo["high"] - elo["low"]) / 2 for elo in steps]
    width = np.sqrt(np.cumsum(np.square(spread)))  # the matches are independent
    at = [one["generation"] for one in generations]
    axes.plot(at, total, _marked("o", at), label="above the untrained network, cumulative")
    axes.fill_between(at, total - width, total + width, alpha=0.2)
    for i, name in enumerate(opponents(generations)[1:], start=1):
        _intervals(axes, generations, name, "elo", label=f"{described(name)}, measured", shift=0.12 * i)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend()
    return png(figure)


def losses(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw all losses by step; the value loss, which is far smaller, in its own panel."""
    figure, (top, bottom) = new_figure("training step", "loss", "value loss", height=5.5)
    at = [one["step"] for one in metrics]
    for name in metrics[0]:
        axes = bottom if name == "value_loss" else top
        if name.endswith("loss"):
            label = {"loss": "policy loss + weight x value loss"}.get(name, name.replace("_", " "))
            color = {"policy_loss": "tab:orange", "value_loss": "tab:green"}.get(name, "tab:blue")
            axes.plot(at, [one[name] for one in metrics], _marked(".", at), label=label, color=color)
    for axes in (top, bottom):
        axes.set_ylim(bottom=0)
    top.legend()
    thousands(bottom.xaxis)
    return png(figure)


def rates(generations: Generations) -> bytes:
    """Draw the rates of rounds and evaluations in self-play, by generation."""
    figure, both = new_figure("generation", "rounds / min", "evaluations / s", height=5)
    at = [one["generation"] for one in generations]
    for axes, name, color in zip(
        both, ("rounds_per_min", "evaluations_per_s"), ("tab:blue", "tab:orange"), strict=True
    ):
        axes.plot(at, [one["selfplay"][name] for one in generations], _marked("o", at), color=color)
        axes.set_ylim(bottom=0)
        thousands(axes.yaxis)
    return png(figure)


def play(generations: Generations) -> bytes:
    """Draw self-play's mean score, and the points its policy targets lose to an even root's, by generation."""
    figure, (top, bottom) = new_figure("generation", "points / round", "points lost / decision", height=5)
    met = [one for one in generations if one.get("play")]
    at = [one["generation"] for one in met]
    top.plot(
        at, [one["play"]["score"] for one in met], _marked("o", at), color="tab:blue", label="mean score of a seat"
    )
    for kind in ("bids", "cards"):
        pairs = [(one["generation"], found) for one in met for found in one["exploration"] if found["kind"] == kind]
        mean, error = ([found[name] for _, found in pairs] for name in ("points_lost", "points_lost_error"))
        bottom.errorbar([number for number, _ in pairs], mean, yerr=error, fmt="o-", capsize=3, label=kind)
    bottom.axhline(0, color="grey", linewidth=0.8)
    for axes in (top, bottom):
        axes.legend()
    return png(figure)


def time_spent(generations: Generations) -> bytes:
    """Draw the time spent on each part, by generation."""
    times = {part: np.array([one["seconds"].get(part, 0) for one in generations]) for part in PARTS}
    whole = sum(times.values(), np.zeros(len(generations)))
    unit, seconds = next(pair for pair in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if _is_fit(whole, pair[1]))
    figure, (axes,) = new_figure("generation", unit)
    at = [one["generation"] for one in generations]
    bottom = np.zeros(len(at))
    for part, name in PARTS.items():
        share = times[part].sum() / max(whole.sum(), 1e-9)
        height = times[part] / seconds
        axes.bar(at, height, bottom=bottom, width=0.8 if len(at) < CROWD else 1.0, label=f"{name}, {100 * share:.0f}%")
        bottom = bottom + height
    axes.set_xlim(at[0] - 0.6, at[-1] + 0.6)
    axes.grid(False, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", frameon=False)  # in stacking order
    return png(figure)


def bids_made(made: Mapping[tuple[int, int], tuple[int, int]]) -> bytes:
    """Draw the fraction of bids made, by hand size and position in the bidding order (the dealer is last).

    Args:
        made: (cards, seat) -> (made, rounds).
    """
    sizes = sorted({cards for cards, _ in made})
    seats = sorted({seat for _, seat in made})
    figure, (axes,) = new_figure(
        "seat in the order of bidding, the dealer last", "cards dealt", height=1 + 0.4 * len(sizes)
    )
    shares: NDArray[np.float64] = np.full((len(sizes), len(seats)), np.nan)
    for (cards, seat), (n_made, n_rounds) in made.items():
        shares[sizes.index(cards), seats.index(seat)] = n_made / n_rounds
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share):  # no such seat at this hand size
            color = "white" if share > 0.6 else "black"
            axes.text(column, row, f"{100 * share:.0f}%", ha="center", va="center", color=color)
    axes.grid(False)
    axes.set_xticks(range(len(seats)), [str(seat + 1) for seat in seats])
    axes.set_yticks(range(len(sizes)), [str(cards) for cards in sizes])
    return png(figure)


def opponents(generations: Generations) -> list[str]:
    """Return all opponents of any generation, the previous version first."""
    names = {name for one in generations for name in one["matches"]}
    return sorted(names, key=lambda name: (name != "before", name))


def described(name: str) -> str:
    """Return the words for a kind of match: a fixed opponent, `before` or `policy`."""
    return {"before": "against the previous version", "policy": "policy without search"}.get(name, f"against {name}")


def _intervals(axes: Any, generations: Generations, name: str, figure: str, *, label: str, shift: float) -> None:
    """Draw a line with intervals of the matches against one opponent; infinite ends are omitted."""
    met = [one for one in generations if name in one["matches"]]
    at = np.array([one["generation"] for one in met]) + shift
    estimates = [one["matches"][name][figure] for one in met]
    mean, low, high = (np.array([one[key] for one in estimates], float) for key in ("mean", "low", "high"))
    if len(at) < CROWD:
        lengths = [(mean - low).tolist(), (high - mean).tolist()]
        axes.errorbar(at, mean, yerr=lengths, fmt="o-", capsize=3, label=label, alpha=0.9)
    else:
        line = axes.plot(at, mean, label=label)[0]
        axes.fill_between(at, low, high, alpha=0.2, color=line.get_color())


def _marked(mark: str, points: Sequence[float]) -> str:
    """Return a line's format, with markers unless there are too many points."""
    return f"{mark}-" if len(points) < CROWD else "-"


def _is_fit(seconds: NDArray[np.float64], unit: int) -> bool:
    return unit == 1 or float(seconds.max(initial=0.0)) >= 10 * unit
