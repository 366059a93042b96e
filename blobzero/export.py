# SPDX-License-Identifier: Apache-2.0
"""`blobzero export`: a checkpoint in every format and precision, each compared with PyTorch and timed."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from export.report import ExportReport, Served


WORDS: Final = ("variant", "engine")
NUMBERS: Final = ("MB", "rows/s", "x f32", "KL mean", "p99", "max", "same top", "value off", "max")
WIDTH: Final = 112
"""Columns that the table takes; a narrower terminal wraps, a file gets it whole."""


@dataclass(frozen=True)
class ExportConfig:
    """Export a checkpoint in several variants; compare each with PyTorch in float32, and time it on this machine."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """A training checkpoint (safetensors)."""
    out: Path | None = None
    """Folder for the files and report.json; `<checkpoint>-export` beside the checkpoint unless given."""
    formats: tuple[Literal["onnx", "torchscript"], ...] = ("onnx", "torchscript")
    """File formats."""
    precisions: tuple[Literal["float32", "float16", "bfloat16", "int8"], ...] = (
        "float32",
        "float16",
        "bfloat16",
        "int8",
    )
    """Of the matrix products."""
    records: Path | None = None
    """Folder of recorded positions to compare and calibrate with; the newest run under data/ unless given."""
    json: bool = False
    """Also print the report as one JSON object."""


def export(config: ExportConfig) -> int:
    """Export; the exit status: 1 where a variant was refused."""
    from export.report import export_variants  # PyTorch takes seconds to import

    console = Console(stderr=True, highlight=False)
    console.width = max(console.width, WIDTH)
    out = config.out or config.checkpoint.with_name(f"{config.checkpoint.stem}-export")
    with console.status("starting") as status:
        report = export_variants(
            config.checkpoint,
            out,
            formats=config.formats,
            precisions=config.precisions,
            records=config.records,
            on_step=status.update,
        )
    console.print(_table(report))
    refused = [one for one in report.served if one.refused]
    for one in refused:
        console.print(f"refused  {one.variant} in {one.engine}: {one.refused}", markup=False, soft_wrap=True)
    console.print(f"         positions: {report.positions}; {report.threads} threads, 512 rows at a time", markup=False)
    console.print(f"written  {out}/report.json", markup=False)
    fastest = report.fastest
    if fastest is not None:
        console.print(
            f"next     blobzero publish {config.checkpoint} --formats {fastest.variant.format} "
            f"--precision {fastest.variant.precision}",
            markup=False,
            soft_wrap=True,
        )
    if config.json:
        json.dump(report.to_json(), sys.stdout, indent=2)
        print()
    return 1 if refused else 0


def _table(report: "ExportReport") -> Table:
    title = f"{report.info.preset}, step {report.info.step}, against PyTorch in float32"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in WORDS + NUMBERS:
        table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    for one in report.served:
        style = "bold green" if one is report.fastest else "red" if one.refused else ""
        table.add_row(*_cells(one), style=style)
    return table


def _cells(one: "Served") -> list[str]:
    parity, speed = one.parity, one.speed
    size = f"{one.path.stat().st_size / 1e6:.1f}" if one.path.exists() else ""
    timed = ["refused", ""] if speed is None else [f"{speed.median:,.0f}", f"{speed.ratio:.2f}"]
    figures = [""] * 6
    if parity is not None:
        figures = [
            f"{parity.mean_policy_kl:.0e}",
            f"{parity.p99_policy_kl:.0e}",
            f"{parity.max_policy_kl:.0e}",
            f"{100 * parity.same_top_action:.1f}%",
            f"{parity.mean_value_difference:.0e}",
            f"{parity.max_value_difference:.0e}",
        ]
    return [escape(str(one.variant)), one.engine, size, *timed, *figures]
