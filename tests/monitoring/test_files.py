# SPDX-License-Identifier: Apache-2.0
"""The files as they stand: Prometheus takes them, the dashboard is what its source makes, the docs explain it all."""

import json
import runpy
import subprocess

import yaml

from serving.install import find_installation
from tests.monitoring.stack import (
    DASHBOARD,
    GPU_METRICS,
    GRAFANA,
    PROMETHEUS,
    ROOT,
    dashboard_queries,
    names,
    needs_prometheus,
    panels,
    rule_queries,
    rules,
)


@needs_prometheus
def test_prometheus_takes_configuration_and_rules_and_every_alert_fires_when_it_should() -> None:
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_is_wrong_and_what_to_do_and_is_tested() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    for rule in rules():
        if "alert" in rule:
            assert set(rule["annotations"]) == {"summary", "action"}
            assert any(case["alertname"] == rule["alert"] and case["exp_alerts"] for case in cases), rule["alert"]


def test_the_dashboard_is_what_its_source_makes() -> None:
    """So it holds nothing that Grafana's own types do not have."""
    made = runpy.run_path(str(GRAFANA / "dashboard.py"))["build"]()
    assert made == DASHBOARD.read_text(), "run docker/grafana/dashboard.py"


def test_panels_do_not_collide() -> None:
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = set[tuple[int, int]]()
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in cells, panel["title"]
                cells.add((x, y))
    for panel in panels():
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_grafana_asks_the_source_that_is_provided_and_rates_fit_the_scrapes() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    for panel in panels():
        assert panel["datasource"]["uid"] == source["uid"]
        assert all(target["datasource"]["uid"] == source["uid"] for target in panel["targets"])


def test_what_is_computed_ahead_is_there_and_used() -> None:
    made = {rule["record"] for rule in rules() if "record" in rule}
    asked = set[str]().union(*(names(expression) for _, expression in [*dashboard_queries(), *rule_queries()]))
    assert {name for name in asked if name.startswith("blobzero:")} == made


def test_metrics_of_a_gpu_host_are_those_that_triton_knows() -> None:
    """None is there without a GPU, so the server's own library is searched; it keeps names in pieces of 16 bytes."""
    asked = {name for _, expression in dashboard_queries() for name in names(expression) if name.startswith("nv_gpu")}
    assert asked == set(GPU_METRICS)
    site_packages = find_installation().server.parents[3]
    (library,) = site_packages.glob("nvidia_pytriton.libs/libtritonserver-*.so")
    content = library.read_bytes()
    for name in (*GPU_METRICS, "gpu_uuid"):
        assert name[:16].encode() in content


def test_the_docs_explain_every_panel_and_every_alert() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for panel in panels():
        assert f"| {panel['title']} |" in text, panel["title"]
    for rule in rules():
        assert "alert" not in rule or f"| {rule['alert']} |" in text, rule["alert"]
