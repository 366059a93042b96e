# SPDX-License-Identifier: Apache-2.0
"""A soak test's accounts and tools: what must be found is found, and the proxy is a good and a bad network."""

import contextlib
import gc
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blobzero.cli import main
from clients.selfplay.records import write_shard
from mcts_ext.records import Records
from perf.soak.disk import NoSmallDisk, SmallDisk
from perf.soak.faults import KINDS, schedule
from perf.soak.memory import GROWTH, Life, MemoryLog, judge_memory
from perf.soak.proxy import Proxy
from perf.soak.rounds import Bookkeeper

# -- the accounts -----------------------------------------------------------------------------------------------------


def shard(folder: Path, name: str, rounds: list[int], *, decisions: int = 3) -> Path:
    """A shard with all decisions of some rounds."""
    folder.mkdir(exist_ok=True)
    records = Records.empty(len(rounds) * decisions)
    records.round[:] = np.repeat(rounds, decisions)
    records.decision[:] = np.tile(np.arange(decisions), len(rounds))
    write_shard(folder / f"{name}.parquet", records, provenance={})
    return folder / f"{name}.parquet"


def test_a_run_without_fault_is_found_good(tmp_path: Path) -> None:
    books = Bookkeeper(tmp_path / "shards")
    shard(tmp_path / "shards", "w000-a-00000", [0, 2])
    shard(tmp_path / "shards", "w000-b-00000", [4])
    shard(tmp_path / "shards", "w001-a-00000", [1, 3])
    books.compare([1, 2], n_under_way=0)
    rounds = books.settle(5)
    assert rounds.faults == []
    assert rounds.expected == 5
    assert books.n_begun == 5


def test_lost_doubled_strange_and_vanished_are_found(tmp_path: Path) -> None:
    books = Bookkeeper(tmp_path / "shards")
    shard(tmp_path / "shards", "w000-a-00000", [0, 2])
    gone = shard(tmp_path / "shards", "w001-a-00000", [1])
    assert books.look().faults == []
    gone.unlink()
    shard(tmp_path / "shards", "w000-b-00000", [2, 9, 200_000])
    shard(tmp_path / "shards", "w001-b-00000", [3, 3])
    (tmp_path / "shards" / "w001-b-00001.parquet").write_bytes(b"PAR1")
    on_the_way = books.look()
    assert (on_the_way.lost, on_the_way.doubled, on_the_way.strange) == ([], [2, 3], [])
    rounds = books.settle(5)
    assert (rounds.lost, rounds.doubled, rounds.strange) == ([1, 4], [2, 3], [9, 200_000])
    assert rounds.faults == [
        "2 rounds lost: 1, 4",
        "2 rounds doubled: 2, 3",
        "2 rounds strange: 9, 200000",
        "1 shards vanished: w001-a-00000.parquet",
        "1 shards unreadable: w001-b-00001.parquet",
    ]
    assert books.n_begun == 200_001


@pytest.mark.parametrize(("reported", "unwritten"), [([2], 0), ([3], 1), ([0], 0), ([1], 1)])
def test_what_a_process_reports_must_stand_in_its_shards(tmp_path: Path, reported: list[int], unwritten: int) -> None:
    books = Bookkeeper(tmp_path / "shards")
    shard(tmp_path / "shards", "w000-a-00000", [0, 1, 2, 3])  # of the process before
    shard(tmp_path / "shards", "w000-b-00000", [4])
    shard(tmp_path / "shards", "w000-b-00001", [5])
    books.compare(reported, n_under_way=0)
    assert books.settle(6).unwritten == unwritten


def test_records_that_a_killed_worker_had_written_must_stand_in_shards(tmp_path: Path) -> None:
    books = Bookkeeper(tmp_path / "shards")
    shard(tmp_path / "shards", "w000-a-00000", [0, 2], decisions=3)
    assert books.look(n_written=6).faults == []
    assert books.look(n_written=8).faults == ["2 records missing that workers said they had written"]
    shard(tmp_path / "shards", "w000-b-00000", [4])  # what came later makes up for nothing
    assert books.settle(5).n_missing_records == 2


def test_no_more_rounds_may_be_missing_than_were_under_way(tmp_path: Path) -> None:
    books = Bookkeeper(tmp_path / "shards")
    shard(tmp_path / "shards", "w000-a-00000", [0, 2, 8])  # of every other one, 4 and 6 are missing
    shard(tmp_path / "shards", "w001-a-00000", [1])
    books.compare([3, 1], n_under_way=2)
    assert books.look().unwritten == 0
    books.compare([3, 1], n_under_way=1)
    assert books.look().unwritten == 1


def life(sizes: list[float], *, seconds: float = 300.0) -> Life:
    return Life("worker", np.linspace(0.0, seconds, len(sizes)).tolist(), [int(1e8 * size) for size in sizes])


def test_memory_that_grows_after_warm_up_is_found() -> None:
    flat = life([0.2, 0.5] + [1.0] * 58)
    growing = life([0.2, 0.5, *np.linspace(1.0, 1.2, 58).tolist()])
    stepped = life([0.2, 0.5, *[1.0] * 20, *[1.3] * 38])
    short = life([1.0, 5.0], seconds=20.0)
    assert flat.growth == pytest.approx(0.0)
    assert growing.growth is not None
    assert growing.growth > GROWTH
    assert stepped.growth == pytest.approx(0.3)
    assert short.growth is None
    (verdict,) = judge_memory([flat, short])
    assert verdict.fault is None
    assert (verdict.lives, verdict.judged) == (2, 1)
    (verdict,) = judge_memory([flat, growing, short])
    assert verdict.fault == f"memory of a worker grew by {100 * growing.growth:.1f}%"


def test_where_more_is_asked_of_a_process_it_may_grow_once_and_must_be_flat_before_and_after() -> None:
    stepped = life([0.2, 0.5, *[1.0] * 28, *[1.3] * 30])
    stepped.marks = [150.0]
    assert stepped.growth == pytest.approx(0.0)
    assert stepped.growth_in_all == pytest.approx(0.3)
    growing = life([0.2, 0.5, *[1.0] * 28, *np.linspace(1.3, 1.5, 30).tolist()])
    growing.marks = [150.0]
    assert growing.growth is not None
    assert growing.growth > GROWTH
    only_steps = life([1.0] * 60, seconds=160.0)
    only_steps.marks = [80.0]
    assert only_steps.growth is None


def test_a_process_is_marked_twice_at_most_and_only_while_it_lives() -> None:
    log = MemoryLog()
    log.mark("soak", 0.5)
    for at in (1.0, 2.0, 3.0):
        log.record(at, {os.getpid(): "soak"})
        log.mark("soak", at)
        log.mark("server", at)
    log.record(4.0, {})
    log.mark("soak", 4.0)
    (found,) = log.lives
    assert found.marks == [1.0, 2.0]


def test_processes_are_weighed_and_those_that_are_gone_left_out() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        log = MemoryLog()
        log.record(0.0, {os.getpid(): "soak", child.pid: "worker"})
        child.kill()
        child.wait()
        log.record(1.0, {os.getpid(): "soak", child.pid: "worker"})
    found = {one.role: list(one.at) for one in log.lives}
    assert found == {"soak": [0.0, 1.0], "worker": [0.0]}
    assert all(size > 0 for one in log.lives for size in one.bytes)


# -- the schedule -----------------------------------------------------------------------------------------------------


def test_every_kind_comes_before_any_comes_again_and_in_time() -> None:
    plan = schedule(20, kinds=list(KINDS), begin_s=30.0, end_s=330.0, seed=3)
    assert plan == schedule(20, kinds=list(KINDS), begin_s=30.0, end_s=330.0, seed=3)
    assert plan != schedule(20, kinds=list(KINDS), begin_s=30.0, end_s=330.0, seed=4)
    assert {kind for _, kind in plan[: len(KINDS)]} == set(KINDS)
    assert set(Counter(kind for _, kind in plan).values()) == {2, 3}
    moments = [at for at, _ in plan]
    assert moments == sorted(moments)
    assert moments[0] >= 30.0
    assert moments[-1] < 330.0
    assert schedule(0, kinds=list(KINDS), begin_s=30.0, end_s=330.0, seed=3) == []


# -- the network ------------------------------------------------------------------------------------------------------


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that sends everything back."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Proxy(f"127.0.0.1:{server.server_address[1]}") as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def connect(proxy: Proxy) -> socket.socket:
    host, port = proxy.url.split(":")
    return socket.create_connection((host, int(port)), timeout=5.0)


def echo(link: socket.socket, data: bytes) -> float:
    """Send and await the echo; the seconds it took."""
    began = time.monotonic()
    sender = threading.Thread(target=link.sendall, args=(data,))
    sender.start()
    found = b""
    while len(found) < len(data):
        part = link.recv(1 << 16)
        assert part, "the connection broke"
        found += part
    sender.join()
    assert found == data
    return time.monotonic() - began


def test_a_good_network_passes_everything(proxy: Proxy) -> None:
    with connect(proxy) as first, connect(proxy) as second:
        echo(first, bytes(range(256)) * 8192)
        echo(second, b"second")


def test_a_cut_breaks_connections_and_refuses_new_ones_until_it_is_mended(proxy: Proxy) -> None:
    with connect(proxy) as link:
        echo(link, b"before")
        proxy.cut()
        with pytest.raises(ConnectionError), connect(proxy):
            pass
        with contextlib.suppress(ConnectionError):
            assert link.recv(1) == b""
    proxy.mend()
    with connect(proxy) as link:
        echo(link, b"after")


def test_a_stalled_network_delivers_later(proxy: Proxy) -> None:
    with connect(proxy) as link:
        echo(link, b"before")
        proxy.stall()
        link.sendall(b"late")
        link.settimeout(0.3)
        with pytest.raises(TimeoutError):
            link.recv(1)
        link.settimeout(5.0)
        proxy.mend()
        assert link.recv(4) == b"late"


def test_a_slow_network_takes_its_time(proxy: Proxy) -> None:
    with connect(proxy) as link:
        echo(link, b"before")
        proxy.slow(latency_s=0.1, bytes_per_s=1e6)
        assert echo(link, b"small") >= 0.2  # there and back
        assert echo(link, bytes(500_000)) >= 0.5
        proxy.mend()
        assert echo(link, b"small") < 0.2


# -- the disk ---------------------------------------------------------------------------------------------------------

FILL = """
import sys
from pathlib import Path
from perf.soak.disk import SmallDisk
folder = Path(sys.argv[1])
with SmallDisk(folder) as disk:
    (folder / "kept").write_bytes(bytes(300_000))
    disk.fill()
    try:
        (folder / "shard").write_bytes(bytes(6 << 20))
        sys.exit("there was room")
    except OSError as error:
        print(error.strerror)
    (folder / "shard").unlink()
    disk.empty()
    (folder / "shard").write_bytes(bytes(6 << 20))
"""


def may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def test_a_small_disk_is_full_and_has_room_again_and_its_files_stay(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("no file system may be mounted here")
    folder = tmp_path / "shards"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(folder)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "No space left on device\n", "")
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == {"kept": 300_000, "shard": 6 << 20}
    assert not folder.is_mount()


def test_where_nothing_may_be_mounted_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def unshare(self, _flags: int) -> int:
            return -1

    monkeypatch.setattr("perf.soak.disk.ctypes.CDLL", lambda *_a, **_k: Libc())
    with pytest.raises(NoSmallDisk), SmallDisk(tmp_path):
        pass


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--minutes", "0"], "expected --minutes above 0"),
        (["--workers", "0"], "--workers of 1 or more"),
        (["--kinds"], "at least one of --kinds"),
        (["--preset", "huge"], "expected --preset of"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    flags: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["soak", *flags, "--out", str(tmp_path / "soak")]) == 1
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "soak").exists()


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["soak", "--out", str(tmp_path / "file" / "soak")]) == 1
    captured = capsys.readouterr()
    assert "expected a folder to write" in captured.err
    assert captured.err.count("\n") == 1


def test_a_folder_that_is_used_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["soak", "--out", str(tmp_path)]) == 1
    assert "expected an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.filterwarnings("error")
def test_a_proxy_closes_what_it_was_just_accepting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        for _ in range(20):
            with Proxy(f"127.0.0.1:{target.getsockname()[1]}") as proxy:
                host, port = proxy.url.split(":")
                clients = [socket.create_connection((host, int(port))) for _ in range(4)]
            for client in clients:
                client.close()
            gc.collect()  # what is left open is warned of here
