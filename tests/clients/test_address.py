# SPDX-License-Identifier: Apache-2.0
"""HOST:PORT as people write it: IPv4, names, IPv6 in brackets; what is none of them is refused in one line."""

import pytest

from blobzero.cli import main
from clients.address import is_loopback, join_url, split_url
from mcts_ext.errors import InvalidConfig
from perf.load.plan import Target


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("127.0.0.1:8001", "127.0.0.1", 8001),
        ("triton:1", "triton", 1),
        ("[::1]:8001", "::1", 8001),
        ("[::]:65535", "::", 65535),
        ("[fe80::1%eth0]:8001", "fe80::1%eth0", 8001),
    ],
)
def test_an_address_comes_apart_and_together(url: str, host: str, port: int) -> None:
    assert split_url(url) == (host, port)
    assert join_url(host, port) == url


def test_localhost_is_one_of_its_two_addresses() -> None:
    assert split_url("localhost:8001") == split_url("LocalHost:8001") == ("127.0.0.1", 8001)


@pytest.mark.parametrize(
    "url",
    [
        "", ":", ":8001", "h", "h:", "h:0", "h:65536", "h:99999999999999999999", "h:x", "h:-1", "h:+1", "h: 1", "h:1 ",
        "h:8001/", "http://h:8001", "::1", "::1:8001", "[::1]", "[::1]8001", "::1]:8001", "[]:8001", "[h]:8001",
        "[127.0.0.1]:8001", "[[::1]]:8001", "u@h:1", "a b:1", "h:1\n", "h:\u0661", "unix:/tmp/x:1",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"expected HOST:PORT of it, got .*or \[::1\]:8001 for IPv6"):
        split_url(url, what="it")


def test_only_what_cannot_leave_the_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "fd00::2", "triton", "localhost.example", "")))


def test_metrics_are_looked_for_on_the_next_port() -> None:
    assert Target("[::1]:8001").metrics_url == "[::1]:8002"
    with pytest.raises(InvalidConfig, match="a server's metrics, got '::1:8002'"):
        Target("[::1]:8001", metrics="::1:8002")


def test_top_names_a_mistaken_address_before_it_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--url", "::1:8002"]) == 1
    assert "expected HOST:PORT of an endpoint with metrics, got '::1:8002'" in capsys.readouterr().err
