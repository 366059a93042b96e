# SPDX-License-Identifier: Apache-2.0
"""`blobzero publish`: a network becomes the next version in the model repository, or nothing changes."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import tyro
from rich.console import Console

from export.precisions import Precision
from mcts_ext.errors import InvalidConfig
from ui.console import plain_console
from ui.next_step import in_repository

if TYPE_CHECKING:  # PyTorch takes seconds to import: only once it is known to be needed
    from export.publishing.transaction import PublishReport

DOING: Final = {
    "lock": "locking the repository",
    "mend": "looking after earlier commands",
    "export": "exporting and comparing",
    "announce": "writing the registry",
    "rename": "bringing the version in",
    "load": "the server loads it",
    "ask": "comparing the server's answers",
    "mark": "calling it current",
    "retain": "making room",
}


@dataclass(frozen=True)
class PublishConfig:
    """Export a network, compare it with PyTorch, and bring it into the model repository as the next version."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """A checkpoint, or a file of `blobzero export`; without it a fresh, untrained network is made."""
    preset: str | None = None
    """Shape of a fresh network: `reference` (4.9M parameters) or `small` (for tests and laptops)."""
    seed: int = 0
    """Of a fresh network's weights."""
    repository: Path = Path("model_repo")
    """The model repository."""
    formats: tuple[Literal["onnx", "torchscript"], ...] = ("onnx",)
    """What is put into the version's folder; the backend of the server's configuration reads one of them."""
    precision: Literal["auto"] | Precision = "auto"
    """Of the matrix products; `auto` takes float16 where the server (--url) computes on a GPU, int8 where it is fastest
    on this processor, and float32 where the answers of those differ."""
    records: Path | None = None
    """Folder of recorded positions to compare and calibrate with; the newest run under data/ unless given."""
    url: str | None = None
    """HOST:PORT of a server on this repository's folder; it loads the version and its answers are compared."""
    key_file: Path | None = None
    """Holds the key of that server's control API, where it asks for one (serve --key-file)."""
    keep: int | None = None
    """How many versions stay, the newest; all unless given."""
    if_absent: bool = False
    """Do nothing when the repository has a version already."""
    json: bool = False
    """Also print the outcome as one JSON object."""


def publish(config: PublishConfig) -> int:
    """Publish; the exit status."""
    if config.source is not None and config.preset is not None:
        raise InvalidConfig("expected a checkpoint or --preset, got both; a checkpoint knows its shape")
    console = plain_console(stderr=True)
    from export.publishing.repository import versions

    present = versions(config.repository)
    if config.if_absent and present:
        console.print(f"{config.repository} has version {present[-1]} already; nothing to do", soft_wrap=True)
        return 0
    from export.publishing import publish as publishing
    from export.publishing.candidate import ExportOptions
    from training.network import create_network

    with console.status("starting") as status:
        report = publishing.publish(
            config.source or create_network(config.preset or "reference", seed=config.seed),
            repository=config.repository,
            url=config.url,
            key_file=config.key_file,
            options=ExportOptions(config.precision, config.formats, config.records),
            keep=config.keep,
            seed=config.seed,
            on_step=lambda step: status.update(DOING[step]),
        )
    tell(console, report, repository=config.repository, as_json=config.json)
    return 0


def untold(repository: Path) -> str:
    """What a change that no server was told of leaves to be done."""
    mend = f"blobzero doctor{in_repository(repository)} --mend --url HOST:PORT"
    return f"told     no server; one that runs takes it after {mend}"


def tell(console: Console, report: "PublishReport", *, repository: Path, as_json: bool) -> None:
    """Say what was published, for people and, if asked, for programs."""
    candidate = report.candidate
    lines = [f"published version {report.version}, {candidate.why}: {report.path}"]
    if report.same_as is not None:
        lines[0] = f"version {report.version} is version {report.same_as} again, and current: {report.path}"
    lines += [f"  {variant} against PyTorch: {parity}" for variant, parity in candidate.parity.items()]
    if report.served is not None:
        lines.append(f"  served answers against these: {report.served}")
    lines.append(f"  positions: {candidate.positions}")
    if report.removed:
        lines.append(f"  removed, to make room: {', '.join(map(str, report.removed))}")
    there = in_repository(repository)
    if report.served is None:
        lines.append(untold(repository))
    serve = f"blobzero serve{there}   or   blobzero selfplay{there}"
    lines.append(f"next     {serve if report.served is None else f'blobzero models{there}'}")
    for line in lines:
        console.print(line, soft_wrap=True)
    if as_json:
        outcome = {
            "version": report.version,
            "path": str(report.path),
            "same_as": report.same_as,
            "source": candidate.source,
            "why": candidate.why,
            "positions": candidate.positions,
            "parity": {variant: asdict(parity) for variant, parity in candidate.parity.items()},
            "served": None if report.served is None else asdict(report.served),
            "removed": report.removed,
        }
        json.dump(outcome, sys.stdout, indent=2)
        print()
