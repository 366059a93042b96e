# SPDX-License-Identifier: Apache-2.0
"""The compose files as Compose reads them, which checks them against its schema: for a GPU, and how a CPU differs."""

import json
import os
import re
import subprocess
from typing import Any

import pytest

from serving.install import find_installation
from tests.stack.conftest import CHECKOUT

OURS = ("init", "triton", "selfplay", "trainer")


def services(*words: str, **variables: str) -> dict[str, dict[str, Any]]:
    """The services as Compose merges and fills them in, with its own defaults for every other variable."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("BLOBZERO_", "TRITON_"))}
    done = subprocess.run(
        ["docker", "compose", *words, "--profile", "*", "config", "--format", "json"],
        cwd=CHECKOUT,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


@pytest.fixture(scope="module")
def gpu(engine: None) -> dict[str, dict[str, Any]]:
    return services("-f", "compose.yaml")


@pytest.fixture(scope="module")
def cpu(engine: None) -> dict[str, dict[str, Any]]:
    return services("-f", "compose.yaml", "-f", "compose.cpu.yaml")


def test_gpu_and_cpu_differ_in_this_alone(gpu: dict[str, dict[str, Any]], cpu: dict[str, dict[str, Any]]) -> None:
    assert gpu.keys() == cpu.keys() == {*OURS, "loadtest", "prometheus", "grafana"}
    different: dict[str, set[str]] = {}
    for name, here in gpu.items():
        for key in here.keys() | cpu[name].keys():
            if here.get(key) != cpu[name].get(key):
                different.setdefault(name, set()).add(key)
    assert different == {
        "triton": {"image", "build", "command", "healthcheck", "tmpfs", "ulimits", "deploy"},
        "selfplay": {"deploy"},
        "init": {"environment"},
    }


def test_the_server_knows_every_flag_of_the_gpu_command(gpu: dict[str, dict[str, Any]]) -> None:
    installation = find_installation()
    known = subprocess.run(
        [str(installation.server), "--help"], env=installation.environment, capture_output=True, text=True, check=False
    )
    wanted = set(re.findall(r"--([a-z-]+)", gpu["triton"]["command"][-1]))
    assert len(wanted) >= 8
    assert wanted <= set(re.findall(r"--([a-z-]+)", known.stdout + known.stderr))


def test_a_gpu_is_reserved_and_the_configuration_for_it_exists(gpu: dict[str, dict[str, Any]]) -> None:
    (device,) = gpu["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    name = re.search(r"--model-config-name=(\S+)", gpu["triton"]["command"][-1])
    assert name is not None
    assert (CHECKOUT / "model_repo" / "blobnet" / "configs" / f"{name[1]}.pbtxt").is_file()


def test_an_image_can_be_held_to_a_digest(gpu: dict[str, dict[str, Any]]) -> None:
    digest = f"sha256:{'0' * 64}"
    pinned = {"TRITON_IMAGE": f"nvcr.io/nvidia/tritonserver:26.10-py3@{digest}"}
    pinned |= {"PROMETHEUS_TAG": f"v3.5.0@{digest}", "GRAFANA_TAG": f"12.1.1@{digest}"}
    found = services("-f", "compose.yaml", **pinned)
    for name in ("triton", "prometheus", "grafana"):
        assert found[name]["image"].removesuffix(f"@{digest}").partition(":")[0] == gpu[name]["image"].partition(":")[0]
        assert found[name]["image"].endswith(f"@{digest}")
    assert services("-f", "compose.yaml", TRITON_TAG="26.11")["triton"]["image"].endswith("/tritonserver:26.11-py3")


def test_every_service_has_a_limit_of_processes(gpu: dict[str, dict[str, Any]], cpu: dict[str, dict[str, Any]]) -> None:
    for found in (gpu, cpu):
        for name, service in found.items():
            limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
            assert service.get("pids_limit", limits.get("pids")) == 4096, name


def test_everything_is_closed_but_what_listens_on_this_host(gpu: dict[str, dict[str, Any]]) -> None:
    for name, service in gpu.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["user"].split(":")[0] not in ("", "root", "0"), name
        assert "no-new-privileges:true" in service["security_opt"], name
    assert {name for name, service in gpu.items() if service.get("ports")} == {"triton", "prometheus", "grafana"}
    keys = {name for name, service in gpu.items() for mount in service.get("volumes", []) if mount["target"] == "/keys"}
    assert keys == {"init", "triton", "trainer"}
