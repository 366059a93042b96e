# SPDX-License-Identifier: Apache-2.0
"""`blobzero models`, `rollback`, `unpublish`, `doctor`: management of published versions."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from blobzero.verbs.publish import RepositoryFlags, carry_out, untold
from export.publishing.registry import Entry, Registry
from export.publishing.repository import numbers, require_repository
from ui.console import plain_console
from ui.next_step import in_repository, propose

LINE: Final = "{:>3}  {:<12}  {:<13}{:>9}{:>8}{:>10}  {}"
HEADINGS: Final = ("no.", "state", "file", "step", "KL", "same top", "since")


@dataclass(frozen=True, kw_only=True)
class ModelsConfig(RepositoryFlags):
    """List the versions of the model repository: the current one, their origins, their parity with PyTorch."""

    all: bool = False
    """Also list withdrawn and unpublished versions, with the reason."""
    json: bool = False
    """Print one JSON object instead of the table."""


@dataclass(frozen=True, kw_only=True)
class RollbackConfig(RepositoryFlags):
    """Make an earlier version's network current again, under a new number."""

    version: Annotated[int | None, tyro.conf.Positional] = None
    """Version to restore; by default the network before the current one."""
    json: bool = False
    """Also print the outcome as one JSON object."""


@dataclass(frozen=True, kw_only=True)
class UnpublishConfig(RepositoryFlags):
    """Remove a version, other than the current one, from the model repository."""

    version: Annotated[int, tyro.conf.Positional]
    """Version to remove."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(RepositoryFlags):
    """Check repository, registry and server for inconsistencies, and show how to repair them."""

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
        print(json.dumps({"repository": str(config.repository), "current": current, "versions": rows}, indent=2))
        return 0
    console = plain_console()
    console.print(config.repository)
    console.print(LINE.format(*HEADINGS), style="bold")
    for entry in shown:
        is_current = entry.version == current
        console.print(_line(entry, is_current=is_current), style="bold green" if is_current else None)
        source = entry.source if entry.same_as is None else f"version {entry.same_as}: {entry.source}"
        note = f" ({entry.note})" if entry.note else ""
        served = f"; server: {states.get(entry.version, 'not loaded')}" if config.url else ""
        console.print(f"     {source}{note}{served}")
    n_hidden = sum(1 for _ in registry) - len(known)
    if n_hidden:
        console.print(f"{n_hidden} more were withdrawn or unpublished: --all")
    there = in_repository(config.repository)
    propose(console, f"blobzero rollback{there}", f"blobzero unpublish VERSION{there}", f"blobzero doctor{there}")
    return 0


def _line(entry: Entry, *, is_current: bool) -> str:
    kl, top = entry.parity.get("mean_policy_kl"), entry.parity.get("same_top_action")
    return LINE.format(
        entry.version,
        "current" if is_current else entry.state,
        f"{' '.join(Path(name).suffix[1:] for name in entry.files)} {entry.properties.get('precision', '')}",
        entry.properties.get("step", "?"),
        "?" if kl is None else f"{kl:.1g}",
        "?" if top is None else f"{100 * top:.1f}%",
        entry.at[5:16].replace("T", " "),
    )


def rollback(config: RollbackConfig) -> int:
    """Roll back; return the exit status."""
    from export.publishing import publish as publishing

    return carry_out(publishing.rollback, config, as_json=config.json, version=config.version)


def unpublish(config: UnpublishConfig) -> int:
    """Remove a version; return the exit status."""
    from export.publishing import publish as publishing

    publishing.unpublish(config.repository, config.version, url=config.url, key_file=config.key_file)
    console = plain_console(stderr=True)
    console.print(f"version {config.version} is removed from {config.repository}")
    if config.url is None:
        console.print(untold(config.repository))
    propose(console, f"blobzero models{in_repository(config.repository)}")
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
        print(json.dumps(outcome, indent=2))
        return 1 if findings else 0
    console = plain_console()
    for finding in mended:
        console.print(f"repaired: {finding.what}")
    if config.mend and config.url is not None:
        console.print(f"{config.url} has reloaded the repository")
    for finding in findings:
        console.print(finding.what, style="yellow")
        console.print(f"    {finding.mend}")
    if not findings:
        with_server = "" if config.url is None else f" and {config.url}"
        console.print(f"{config.repository}{with_server}: no problems found")
    return 1 if findings else 0
