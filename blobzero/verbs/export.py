# SPDX-License-Identifier: Apache-2.0
"""`blobzero export`: export a checkpoint in several variants, compare each with PyTorch, and time it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, get_args

import tyro
from rich.console import Console

from export.precisions import Format, Precision
from ui.console import new_table, plain_console
from ui.next_step import propose, quoted

if TYPE_CHECKING:
    from export.exporter import EngineResult, ExportReport

PARITY: Final = (
    ("policy KL", "{.mean_policy_kl:.0e}"),
    ("p99", "{.p99_policy_kl:.0e}"),
    ("max", "{.max_policy_kl:.0e}"),
    ("same top", "{.same_top_action:.1%}"),
    ("value off", "{.mean_value_difference:.0e}"),
    ("max", "{.max_value_difference:.0e}"),
)
"""Columns of the comparison with PyTorch, and the formats of their cells."""
COLUMNS: Final = ("variant", "engine", "rows/s", "(range)", "x float32", *(heading for heading, _ in PARITY), "")


@dataclass(frozen=True)
class ExportConfig:
    """Export a checkpoint in several formats and precisions, compare each with PyTorch, and time it on this machine.

    A variant whose outputs exceed its tolerance is rejected and its file not kept.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """A training checkpoint (.safetensors)."""
    out: Path | None = None
    """Folder for the files and report.json; by default `<checkpoint>-export` next to the checkpoint."""
    formats: tuple[Format, ...] = ()
    """File formats; all by default."""
    precisions: tuple[Precision, ...] = ()
    """Precisions of the matrix products; all by default. If one is given and rejected, the exit status is 1."""
    records: Path | None = None
    """Folder of a run with positions for the comparison; by default the newest run under data/."""
    json: bool = False
    """Also print the report as one JSON object."""


def export(config: ExportConfig) -> int:
    """Export; return the exit status."""
    console = plain_console(stderr=True, is_wide=True)
    with console.status("starting") as status:
        from export.exporter import export_variants  # PyTorch takes seconds to import

        report = export_variants(
            config.checkpoint,
            config.out or config.checkpoint.with_name(f"{config.checkpoint.stem}-export"),
            formats=config.formats or get_args(Format),
            precisions=config.precisions or get_args(Precision),
            records=config.records,
            on_step=status.update,
        )
    tell(console, report)
    if config.json:
        print(json.dumps(report.to_json(), indent=2))
    were_named = bool(config.formats or config.precisions)
    return 1 if not report.files or (were_named and report.refused) else 0


def tell(console: Console, report: "ExportReport") -> None:
    """Print the report."""
    table = new_table(None, *COLUMNS, left=("variant", "engine", ""), box=None, pad_edge=False)
    for result in report.served:
        table.add_row(*_cells(result), style="green" if result.is_fastest else "red" if result.speed is None else "")
    console.print(table)
    for variant, why in report.refused.items():
        console.print(f"refused  {variant}: {why}")
    console.print(f"compared with PyTorch in float32; positions: {report.positions}")
    console.print(f"timed    in this process, {report.threads} threads; fastest: within tolerance, of its engine")
    console.print(f"files    {report.out}")
    if report.fastest is not None:
        flags = f"--precision {report.fastest.variant.precision}"
        if report.fastest.variant.format != "onnx":
            flags = f"--formats {report.fastest.variant.format} {flags}"
        propose(console, f"blobzero publish {quoted(report.checkpoint)} {flags}")


def _cells(result: "EngineResult") -> list[str]:
    timed, mark = ["", "", ""], "refused"
    if (speed := result.speed) is not None:
        ratio = "" if speed.ratio is None else f"{speed.ratio:.2f}"
        timed = [f"{speed.median:,.0f}", f"{speed.low:,.0f} to {speed.high:,.0f}", ratio]
        mark = "fastest" if result.is_fastest else ""
    return [str(result.variant), result.engine, *timed, *(cell.format(result.parity) for _, cell in PARITY), mark]
