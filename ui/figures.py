# SPDX-License-Identifier: Apache-2.0
"""Helpers for the figures of reports (PNG bytes) and the HTML page that contains them."""

import io
from typing import Any, Final

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
img {{ max-width: 100%; }} p.note {{ color: #666; font-size: 0.9rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: 0.2rem 0.8rem; border-bottom: 1px solid #ddd; }}
td {{ text-align: right; }} th {{ text-align: left; font-weight: normal; }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


def thousands(axis: Any) -> None:
    axis.set_major_formatter("{x:,.0f}")


def new_figure(x_label: str, *y_labels: str, height: float = 4) -> tuple[Any, tuple[Any, ...]]:
    """Create a figure with one panel per y label, stacked vertically."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, grid = plt.subplots(len(y_labels), 1, figsize=(8, height), layout="constrained", sharex=True, squeeze=False)
    panels = tuple(grid[:, 0])
    for axes, label in zip(panels, y_labels, strict=True):
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    panels[-1].set_xlabel(x_label)
    figure.align_ylabels()
    return figure, panels


def legend_above(axes: Any) -> None:
    """Every label once, in a row above the panel."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(once), "fontsize": "small"}
        axes.legend(once.values(), once.keys(), **place)


def png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    return image.getvalue()


def plain(text: str) -> str:
    """Return text that is valid UTF-8 and contains no matplotlib math."""
    return text.encode(errors="replace").decode().replace("$", r"\$")
