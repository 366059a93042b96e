# SPDX-License-Identifier: Apache-2.0
"""`blobzero models`, `rollback`, `unpublish`, `doctor`: management of published versions."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro
from rich.table import Table
from rich.text import Text

from blobzero.verbs.publish import DOING, tell, untold
from export.publishing.registry import Entry, Registry
from export.publishing.repository import numbers, require_repository
from ui.console import plain_console
from ui.next_step import in_repository

COLUMNS: Final = ("no.", "state", "file", "step", "KL", "same top", "since", "source", "server")
NUMBERS: Final = ("no.", "step", "KL", "same top")


@dataclass(frozen=True)
class ModelsConfig:
    """List the versions of the model repository: the current one, their origins, their parity with PyTorch."""

    repository: Path = Path("model_repo")
    """Model repository."""
    url: str | None = None
    """HOST:PORT of a server: also show its state of each version."""
    key_file: Path | None = None
    """File with the key of that server's control API, if it requires one (serve --key-file)."""
    all: bool = False
    """Also list withdrawn and unpublished versions, with the reason."""
    json: bool = False
    """Print one JSON object instead of the table."""


@dataclass(frozen=True)
class RollbackConfig:
    """Make an earlier version's network current again, under a new number."""

    version: Annotated[int | None, tyro.conf.Positional] = None
    """Version to restore; by default the network before the current one."""
    repository: Path = Path("model_repo")
    """Model repository."""
    url: str | None = None
    """HOST:PORT of a server on this repository; it loads the version and its outputs are compared."""
    key_file: Path | None = None
    """File with the key of that server's control API, if it requires one (serve --key-file)."""
    json: bool = False
    """Also print the outcome as one JSON object."""


@dataclass(frozen=True)
class UnpublishConfig:
    """Remove a version, other than the current one, from the model repository."""

    version: Annotated[int, tyro.conf.Positional]
    """Version to remove."""
    repository: Path = Path("model_repo")
    """Model repository."""
    url: str | None = None
    """HOST:PORT of a server on this repository; it unloads the version."""
    key_file: Path | None = None
    """File with the key of that server's control API, if it requires one (serve --key-file)."""


@dataclass(frozen=True)
class DoctorConfig:
    """Check repository, registry and server for inconsistencies, and show how to repair them."""

    repository: Path = Path("model_repo")
    """Model repository."""
    url: str | None = None
    """HOST:PORT of a server that serves it."""
    key_file: Path | None = None
    """File with the key of that server's control API, if it requires one (serve --key-file)."""
    mend: bool = False
    """Repair what killed commands left, and make the server reload the repository."""
    json: bool = False
    """Print the findings as one JSON object."""


def models(config: ModelsConfig) -> int:
    """List the versions; return the exit status."""
    require_repository(config.repository)
    registry = Registry(config.repository)
    states: Mapping[int, str] = {}
    if config.url is not None:
        from export.publishing.server import ModelServer  # gRPC takes a fifth of a second to import

        with ModelServer(config.url, key_file=config.key_file) as server:
            states = server.states()
    published = registry.published()
    current = published[-1] if published else None
    unregistered = [Entry(n, "unregistered") for n in numbers(config.repository) if registry.get(n) is None]
    known = [entry for entry in registry if config.all or entry.state == "published"]
    shown = sorted([*known, *unregistered], key=lambda entry: entry.version)
    if config.json:
        rows = [
            {**asdict(entry), "current": entry.version == current, "server": states.get(entry.version)}
            for entry in shown
        ]
        json.dump({"repository": str(config.repository), "current": current, "versions": rows}, sys.stdout, indent=2)
        print()
        return 0
    table = Table(title=f"{config.repository}", title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS if config.url else COLUMNS[:-1]:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name not in ("source", "server"))
    for entry in shown:
        cells = _cells(entry, is_current=entry.version == current)
        table.add_row(*cells, *([states.get(entry.version, "not loaded")] if config.url else []))
    console = plain_console()
    console.print(table)
    n_hidden = sum(1 for _ in registry) - len(known)
    if n_hidden:
        console.print(f"{n_hidden} more were withdrawn or unpublished: --all")
    there = in_repository(config.repository)
    console.print(
        f"next     blobzero rollback{there}, blobzero unpublish VERSION{there}, blobzero doctor{there}", soft_wrap=True
    )
    return 0


def _cells(entry: "Entry", *, is_current: bool) -> list[str | Text]:
    state = "current" if is_current else entry.state
    kl, top = entry.parity.get("mean_policy_kl"), entry.parity.get("same_top_action")
    source = entry.source if entry.same_as is None else f"version {entry.same_as}: {entry.source}"
    return [
        str(entry.version),
        Text(state, "bold green" if is_current else ""),
        f"{' '.join(Path(name).suffix[1:] for name in entry.files)} {entry.properties.get('precision', '')}",
        entry.properties.get("step", "?"),
        "?" if kl is None else f"{kl:.1g}",
        "?" if top is None else f"{100 * top:.1f}%",
        entry.at[5:16].replace("T", " "),
        f"{source} ({entry.note})" if entry.note else source,
    ]


def rollback(config: RollbackConfig) -> int:
    """Roll back; return the exit status."""
    from export.publishing import publish as publishing

    console = plain_console(stderr=True)
    with console.status("starting") as status:
        report = publishing.rollback(
            config.repository,
            config.version,
            url=config.url,
            key_file=config.key_file,
            on_step=lambda step: status.update(DOING[step]),
        )
    tell(console, report, repository=config.repository, as_json=config.json)
    return 0


def unpublish(config: UnpublishConfig) -> int:
    """Remove a version; return the exit status."""
    from export.publishing import publish as publishing

    publishing.unpublish(config.repository, config.version, url=config.url, key_file=config.key_file)
    console = plain_console(stderr=True)
    console.print(f"version {config.version} is removed from {config.repository}", soft_wrap=True)
    if config.url is None:
        console.print(untold(config.repository), soft_wrap=True)
    console.print(f"next     blobzero models{in_repository(config.repository)}", soft_wrap=True)
    return 0


def doctor(config: DoctorConfig) -> int:
    """Check the repository; return the exit status, 1 if there are findings."""
    from export.publishing.doctor import Finding, examine, set_right

    mended: list[Finding] = []
    findings = examine(config.repository, url=config.url, key_file=config.key_file)
    if config.mend:
        set_right(config.repository, url=config.url, key_file=config.key_file)
        before, findings = findings, examine(config.repository, url=config.url, key_file=config.key_file)
        mended = [finding for finding in before if finding not in findings]
    if config.json:
        remaining, repaired = ([asdict(finding) for finding in group] for group in (findings, mended))
        outcome = {"repository": str(config.repository), "findings": remaining, "mended": repaired}
        json.dump(outcome, sys.stdout, indent=2)
        print()
        return 1 if findings else 0
    console = plain_console()
    for finding in mended:
        console.print(f"repaired: {finding.what}", soft_wrap=True)
    if config.mend and config.url is not None:
        console.print(f"{config.url} has reloaded the repository", soft_wrap=True)
    for finding in findings:
        console.print(Text(finding.what, "yellow"), f"\n    {finding.mend}", sep="", soft_wrap=True)
    if not findings:
        with_server = "" if config.url is None else f" and {config.url}"
        console.print(f"{config.repository}{with_server}: no problems found", soft_wrap=True)
    return 1 if findings else 0
