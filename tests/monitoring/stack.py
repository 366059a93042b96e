# SPDX-License-Identifier: Apache-2.0
"""What the monitoring is made of, read as its users read it: Prometheus's files and Grafana's JSON."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "blobzero.json"

GPU_METRICS = ("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes")
"""What Triton has on a GPU host alone, of what we ask for; named after a published listing, a series a GPU, labelled
`gpu_uuid`, and never seen here."""

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="expected prometheus and promtool, got none; apt install prometheus",
)


def rules() -> list[dict[str, Any]]:
    """Recording rules and alerts."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Of the dashboard, those that show something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """(panel and query, expression), with Grafana's variable set as for a short time range."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']}: {target['refId']}", target["expr"].replace("$__rate_interval", "20s")


def rule_queries() -> Iterator[tuple[str, str]]:
    """(rule, expression): a recording rule's own name, and every series that an alert looks at.

    A sound alert has no answer, so the promise is that what it compares is there; rules_test.yml sees it fire.
    """
    for rule in rules():
        if "record" in rule:
            yield rule["record"], rule["record"]
        else:
            for selector in re.findall(r"\b(?:up|nv_|blobzero[_:]|process_)[a-z0-9_:]*(?:\{[^}]*\})?", rule["expr"]):
                yield f"{rule['alert']}: {selector}", selector


def names(expression: str) -> set[str]:
    """Metrics in an expression."""
    return set(re.findall(r"\b(?:up|ALERTS|nv_[a-z_]+|blobzero[a-z0-9_:]+|process_[a-z_]+)\b", expression))
