# SPDX-License-Identifier: Apache-2.0
"""`blobzero publish`: a network becomes the next version in the model repository, or nothing changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from mcts_ext.errors import InvalidConfig


@dataclass(frozen=True)
class PublishConfig:
    """Export a network, compare it with PyTorch, and add it to the model repository as the next version."""

    checkpoint: Path | None = None
    """A training checkpoint; without it a fresh, untrained network is made."""
    preset: str | None = None
    """Shape of a fresh network: `reference` (4.9M parameters) or `small` (for tests and laptops)."""
    seed: int = 0
    """Of a fresh network's weights."""
    repository: Path = Path("model_repo")
    """The model repository."""
    precision: Literal["auto", "float32", "int8"] = "auto"
    """Of the matrix products; `auto` takes int8 where it is fastest on this processor and parity holds."""
    url: str | None = None
    """HOST:PORT of a server on this repository's folder; it loads the version and its answers are compared."""
    if_absent: bool = False
    """Do nothing when the repository has a version already."""


def publish(config: PublishConfig) -> int:
    """Publish; the exit status."""
    if config.checkpoint is not None and config.preset is not None:
        raise InvalidConfig("expected --checkpoint or --preset, got both; a checkpoint knows its shape")
    console = Console(stderr=True, highlight=False)
    # PyTorch takes seconds to import: only once it is known to be needed.
    from export.repository import versions

    present = versions(config.repository)
    if config.if_absent and present:
        console.print(f"{config.repository} has version {present[-1]} already; nothing to do")
        return 0
    from export import publish as export
    from training.network import create_network

    with console.status("exporting and comparing"):
        network = config.checkpoint or create_network(config.preset or "reference", seed=config.seed)
        report = export.publish(network, repository=config.repository, url=config.url, precision=config.precision)
    lines = [
        f"published version {report.version} in {report.precision} ({report.why}): {report.path}",
        f"  float32 graph against PyTorch: {report.exported}",
    ]
    if report.quantized is not None:
        lines.append(f"  int8 graph against PyTorch: {report.quantized}")
    if report.served is not None:
        lines.append(f"  served answers against PyTorch: {report.served}")
    lines.append(f"next     blobzero serve --repository {config.repository}   or   blobzero selfplay")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    return 0
