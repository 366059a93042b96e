# SPDX-License-Identifier: Apache-2.0
"""`blobzero publish`: publish a network as the next version in the model repository, as a transaction."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro
from rich.console import Console

from export.precisions import Precision
from mcts_ext.errors import InvalidConfig
from ui.console import plain_console
from ui.next_step import in_repository, propose

if TYPE_CHECKING:  # PyTorch takes seconds to import
    from export.publishing.transaction import PublishReport

DOING: Final = {
    "lock": "locking the repository",
    "mend": "recovering from earlier commands",
    "export": "exporting and comparing",
    "announce": "writing the registry",
    "rename": "adding the version",
    "load": "loading it in the server",
    "ask": "comparing the server's outputs",
    "mark": "marking it as current",
    "retain": "removing old versions",
}


@dataclass(frozen=True, kw_only=True)
class RepositoryFlags:
    """Flags of the verbs that read or change a model repository."""

    repository: Path = Path("model_repo")
    """Model repository."""
    url: str | None = None
    """HOST:PORT of a running server on this repository; it is asked for its state, and follows each change."""
    key_file: Path | None = None
    """File with the key of that server's control API, if it requires one (serve --key-file)."""


@dataclass(frozen=True, kw_only=True)
class PublishConfig(RepositoryFlags):
    """Export a network, compare it with PyTorch, and publish it in the model repository as the next version."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """Checkpoint, or file of `blobzero export`; by default a new, untrained network."""
    preset: str | None = None
    """Preset of a new network: `reference` (4.9M parameters) or `small` (for tests and laptops)."""
    seed: int = 0
    """Seed of a new network's weights."""
    formats: tuple[Literal["onnx", "torchscript"], ...] = ("onnx",)
    """Formats in the version's folder; the backend of the server's configuration reads one of them."""
    precision: Literal["auto"] | Precision = "auto"
    """Precision of the matrix products; `auto`: float16 for a server on a GPU, else int8 if fastest, else float32."""
    records: Path | None = None
    """Folder of recorded positions for comparison and calibration; by default the newest run under data/."""
    keep: int | None = None
    """Number of newest versions to keep; all by default."""
    if_absent: bool = False
    """Do nothing if the repository has a version already."""
    json: bool = False
    """Also print the outcome as one JSON object."""


def publish(config: PublishConfig) -> int:
    """Publish; return the exit status."""
    if config.source is not None and config.preset is not None:
        raise InvalidConfig(
            "expected a checkpoint or --preset, got both; omit --preset, a checkpoint has a fixed shape"
        )
    from export.publishing.repository import versions

    present = versions(config.repository)
    if config.if_absent and present:
        plain_console(stderr=True).print(f"{config.repository} has version {present[-1]} already; nothing to do")
        return 0
    from export.publishing import publish as publishing
    from export.publishing.candidate import ExportOptions
    from training.network import create_network

    return carry_out(
        publishing.publish,
        config,
        as_json=config.json,
        source=config.source or create_network(config.preset or "reference", seed=config.seed),
        options=ExportOptions(config.precision, config.formats, config.records),
        keep=config.keep,
        seed=config.seed,
    )


def carry_out(
    change: Callable[..., "PublishReport"], config: RepositoryFlags, *, as_json: bool, **arguments: Any
) -> int:
    """Change the repository, show the steps and the result; return the exit status."""
    console = plain_console(stderr=True)
    with console.status("starting") as status:
        report = change(
            repository=config.repository,
            url=config.url,
            key_file=config.key_file,
            on_step=lambda step: status.update(DOING[step]),
            **arguments,
        )
    _tell(console, report, repository=config.repository, as_json=as_json)
    return 0


def untold(repository: Path) -> str:
    """Return the hint shown after a change without a server."""
    mend = f"blobzero doctor{in_repository(repository)} --mend --url HOST:PORT"
    return f"server   none was given; reload a running one with {mend}"


def _tell(console: Console, report: "PublishReport", *, repository: Path, as_json: bool) -> None:
    """Print the result as text and, if requested, as JSON."""
    candidate = report.candidate
    lines = [f"published version {report.version}, {candidate.why}: {report.path}"]
    if report.same_as is not None:
        lines[0] = f"version {report.version} is version {report.same_as} again, and current: {report.path}"
    lines += [f"  {variant} against PyTorch: {parity}" for variant, parity in candidate.parity.items()]
    if report.served is not None:
        lines.append(f"  server against these: {report.served}")
    lines.append(f"  positions: {candidate.examples.source}")
    if report.removed:
        lines.append(f"  removed old versions: {', '.join(map(str, report.removed))}")
    console.print("\n".join(lines))
    there = in_repository(repository)
    if report.served is None:
        console.print(untold(repository))
        propose(console, f"blobzero serve{there}", f"blobzero selfplay{there}")
    else:
        propose(console, f"blobzero models{there}")
    if as_json:
        outcome = {
            "version": report.version,
            "path": str(report.path),
            "same_as": report.same_as,
            "source": candidate.source,
            "why": candidate.why,
            "positions": candidate.examples.source,
            "parity": {variant: asdict(parity) for variant, parity in candidate.parity.items()},
            "served": None if report.served is None else asdict(report.served),
            "removed": report.removed,
        }
        print(json.dumps(outcome, indent=2))
