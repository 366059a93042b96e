# SPDX-License-Identifier: Apache-2.0
"""The CPU stack from `up` to `down`: each test goes on where the one before left it."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from clients.triton.channel import open_channel
from mcts_ext.contract import MODEL_NAME
from serving.ports import choose_ports
from tests.stack.conftest import CHECKOUT, Project

import grpc  # isort: skip
from tritonclient.grpc import service_pb2, service_pb2_grpc  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # images are built in the first test

COUNT = """
import json, pathlib, collections
from clients.selfplay.records import read_shard
found = {}
for run in sorted(pathlib.Path("/runs/selfplay").iterdir()):
    shards = sorted((run / "shards").glob("*.parquet"))
    columns = [read_shard(shard, ["round", "decision", "model_version"]).columns for shard in shards]
    rounds, decisions, versions = (
        [number for part in columns for number in part[name].tolist()]
        for name in ("round", "decision", "model_version")
    )
    keys = collections.Counter(zip(rounds, decisions))
    found[run.name] = {
        "shards": len(shards), "records": len(rounds), "rounds": len(set(rounds)),
        "twice": sum(n > 1 for n in keys.values()), "versions": sorted(set(versions)),
    }
print(json.dumps(found))
"""


def recorded(project: Project) -> dict[str, dict[str, Any]]:
    """What the players' shards hold, by run."""
    found: dict[str, dict[str, Any]] = json.loads(project.in_trainer("python", "-c", COUNT))
    return found


def total(found: dict[str, dict[str, Any]], what: str = "rounds") -> int:
    return sum(run[what] for run in found.values())


def wait_for(what: Callable[[], bool], *, within_s: float) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < within_s
        time.sleep(1.0)
    return time.monotonic() - began


def is_healthy(project: Project, service: str) -> bool:
    return all(container["State"]["Health"]["Status"] == "healthy" for container in project.containers(service))


def image_bytes(name: str) -> int:
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def n_tasks(container: str) -> int:
    """Processes and threads of a container, as its limit counts them."""
    command = ["docker", "stats", "--no-stream", "--format", "{{.PIDs}}", container]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_everything_is_healthy_within_two_minutes(project: Project) -> None:
    began = time.monotonic()
    project.compose("up", "-d")
    for service in ("triton", "selfplay", "trainer"):
        left_s = began + 120 - time.monotonic()
        wait_for(partial(is_healthy, project, service), within_s=left_s)


def test_status_says_so_and_where_triton_listens(project: Project) -> None:
    members = json.loads(project.blobzero("status", "--json"))
    assert {member["service"] for member in members} == {"init", "triton", "selfplay", "trainer"}
    triton = next(member for member in members if member["service"] == "triton")
    assert triton["health"] == "healthy"
    assert set(triton["listens"]) == {f"127.0.0.1:{port}" for port in project.ports.values()}


def test_the_players_image_is_small(project: Project) -> None:
    """Under 350 MB with the official base image, which has 130."""
    base = re.search(r"^ARG PYTHON=(\S+)$", (CHECKOUT / "docker" / "client.Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    sizes = [image_bytes(name) for name in ("blobzero-client:test", base[1])]
    assert sizes[0] - sizes[1] < 220e6


def test_three_players_write_records(project: Project) -> None:
    project.blobzero("scale", "3")
    project.environment["BLOBZERO_SELFPLAY"] = "3"
    wait_for(lambda: sum(run["records"] != 0 for run in recorded(project).values()) >= 3, within_s=90)


def test_no_process_is_root_and_nothing_can_be_written_but_the_volumes(project: Project) -> None:
    for service in ("triton", "selfplay", "trainer"):
        for container in project.containers(service):
            seen = subprocess.run(
                ["docker", "top", container["Id"], "-eo", "pid,uid,comm"], capture_output=True, text=True, check=True
            )
            uids = {line.split()[1] for line in seen.stdout.splitlines()[1:]}
            assert uids == {"1000"}, seen.stdout
            assert container["HostConfig"]["ReadonlyRootfs"]
            assert container["HostConfig"]["CapDrop"] == ["ALL"]
            # Pools grow with the cores: room for ten times what two cores have, loading a version (213) included.
            assert 10 * n_tasks(container["Id"]) < container["HostConfig"]["PidsLimit"] == 4096
    models = [mount for mount in project.containers("triton")[0]["Mounts"] if mount["Destination"] == "/models"]
    assert [mount["RW"] for mount in models] == [False]


def test_nobody_loads_a_model_without_the_key(project: Project) -> None:
    with open_channel(f"127.0.0.1:{project.ports['TRITON_GRPC_PORT']}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name=MODEL_NAME), timeout=10)
        assert "restricted" in str(caught.value)
    publish = ["publish", "--preset", "small", "--repository", "/models", "--url", "triton:8001"]
    refused = subprocess.run(
        ["docker", "exec", project.containers("trainer")[0]["Id"], "blobzero", *publish],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "pass its file (--key-file)" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_host_reaches_grpc_alone(project: Project) -> None:
    """What is published, not what listens inside: HTTP is there for the health check at most."""
    ports = project.containers("triton")[0]["NetworkSettings"]["Ports"]
    assert {name for name, bound in ports.items() if bound} == {"8001/tcp"}


def test_other_containers_reach_grpc_and_metrics_and_no_http(project: Project) -> None:
    connect = "import socket, sys; sys.exit(socket.socket().connect_ex(('triton', int(sys.argv[1]))) == 0)"
    tries = "; ".join(f'python -c "{connect}" {port} || echo {port}' for port in (8000, 8001, 8002))
    assert project.in_trainer("sh", "-c", tries).split() == ["8001", "8002"]


def test_players_follow_a_publish(project: Project) -> None:
    publish = ["blobzero", "publish", "--preset", "small", "--seed", "5", "--repository", "/models"]
    project.in_trainer(*publish, "--url", "triton:8001", "--key-file", "/keys/admin", "--json")
    versions = json.loads(project.in_trainer("blobzero", "models", "--repository", "/models", "--json"))["versions"]
    newest = max(entry["version"] for entry in versions)
    assert newest > 1
    playing = {container["Config"]["Hostname"] for container in project.containers("selfplay")}

    def all_follow() -> bool:
        found = {name.split("-")[0]: run["versions"] for name, run in recorded(project).items()}
        return all(newest in found.get(host, []) for host in playing)

    wait_for(all_follow, within_s=90)


def test_a_second_up_changes_nothing(project: Project) -> None:
    def identities() -> set[tuple[str, str]]:
        services = ("triton", "selfplay", "trainer")
        return {(c["Id"], c["State"]["StartedAt"]) for service in services for c in project.containers(service)}

    before = identities()
    project.compose("up", "-d")
    assert identities() == before


def test_players_wait_for_a_server_that_was_killed(project: Project) -> None:
    started = {c["Id"]: c["State"]["StartedAt"] for c in project.containers("selfplay")}
    project.compose("kill", "triton")
    time.sleep(5)
    before = total(recorded(project))
    project.compose("up", "-d", "triton")
    wait_for(lambda: total(recorded(project)) > before + 100, within_s=120)
    assert {c["Id"]: c["State"]["StartedAt"] for c in project.containers("selfplay")} == started
    assert total(recorded(project), "twice") == 0


def test_down_is_quick_and_leaves_every_record_readable(project: Project) -> None:
    # Monitoring has to go too. Its image can't be pulled everywhere; any will do.
    subprocess.run(["docker", "tag", "blobzero-client:test", "prom/prometheus:blobzero-test"], check=True)
    ports = choose_ports("127.0.0.1", {"PROMETHEUS_PORT": None})
    project.environment |= {"PROMETHEUS_TAG": "blobzero-test", "PROMETHEUS_PORT": str(ports["PROMETHEUS_PORT"])}
    project.compose("--profile", "monitoring", "up", "-d", "--no-deps", "prometheus")
    before = recorded(project)
    began = time.monotonic()
    project.blobzero("down")
    assert time.monotonic() - began < 30
    left = ["docker", "ps", "-aq", "--filter", "label=com.docker.compose.project=blobzero-test"]
    assert subprocess.run(left, capture_output=True, text=True, check=True).stdout == ""
    subprocess.run(["docker", "image", "rm", "prom/prometheus:blobzero-test"], capture_output=True, check=True)
    seen = project.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "trainer", "-c", COUNT)
    after = json.loads(seen)
    assert after.keys() >= before.keys()
    for name, run in before.items():
        assert after[name]["rounds"] >= run["rounds"]  # those finished on the way down too
    assert total(after, "twice") == 0
