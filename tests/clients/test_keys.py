# SPDX-License-Identifier: Apache-2.0
"""Keys as files: where a drawn one is left, who finds it there, and what is not trusted."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from blobzero.cli import main
from clients import keys
from clients.keys import (
    KeyUnreadable,
    draw_key,
    drawn_key_file,
    exposure,
    find_key,
    leave_key,
    read_key,
    runtime_folder,
)
from clients.triton.channel import key_metadata

PORT = 28_001


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where keys are left during a test."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_folder() == tmp_path / "blobzero"
    return tmp_path / "blobzero"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_drawn_key_is_for_its_user_alone_and_found_by_address(folder: Path) -> None:
    before = os.umask(0)
    try:
        key = draw_key()
        leave_key(key, drawn_key_file("127.0.0.1", PORT))
        leave_key(other := draw_key(), drawn_key_file("::1", PORT))
    finally:
        os.umask(before)
    assert key != other
    assert (mode(folder), {mode(file) for file in folder.iterdir()}) == (0o700, {0o600})
    assert len(list(folder.iterdir())) == 2  # and nothing beside them
    assert find_key(f"127.0.0.1:{PORT}", None) == key
    assert find_key(f"[::1]:{PORT}", None) == other
    assert key_metadata(f"127.0.0.1:{PORT}", None) == ((keys.GRPC_HEADER, key),)
    leave_key(newer := draw_key(), drawn_key_file("127.0.0.1", PORT))  # the one before was left by a killed server
    assert find_key(f"127.0.0.1:{PORT}", None) == newer
    assert find_key(f"localhost:{PORT}", None) == newer


def test_a_drawn_key_is_sent_to_no_other_host(folder: Path) -> None:
    for host in ("10.1.2.3", "triton", "0.0.0.0", "localhost.example", "fd00::2"):
        leave_key(draw_key(), drawn_key_file(host, PORT))  # even if one lay there
    urls = [path.name for path in folder.iterdir()]
    assert len(urls) == 5
    assert [find_key(url, None) for url in urls] == [None] * 5
    assert key_metadata(f"triton:{PORT}", None) == ()


def test_a_key_file_that_is_named_comes_first(folder: Path, tmp_path: Path) -> None:
    leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))
    (tmp_path / "key").write_text("a-key-of-our-own\n")
    assert find_key(f"127.0.0.1:{PORT}", tmp_path / "key") == "a-key-of-our-own"
    assert find_key(f"elsewhere:{PORT}", tmp_path / "key") == "a-key-of-our-own"
    with pytest.raises(KeyUnreadable, match="expected a file with a key at"):
        find_key(f"127.0.0.1:{PORT}", tmp_path / "none")


def test_a_folder_that_is_not_ours_alone_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))
    for wrong in (0o750, 0o701, 0o777):
        folder.chmod(wrong)
        assert find_key(f"127.0.0.1:{PORT}", None) is None
        with pytest.raises(KeyUnreadable, match=f"private folder of user .*mode 700.*, got .* with mode {wrong:o}"):
            leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))
    folder.chmod(0o700)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert find_key(f"127.0.0.1:{PORT}", None) is None
    with pytest.raises(KeyUnreadable, match="got no folder"):
        leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))


@pytest.mark.skipif(os.geteuid() != 0, reason="expected to be root, to give a folder away")
def test_a_folder_of_somebody_else_is_not_trusted(folder: Path) -> None:
    leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))
    os.chown(folder, 12345, 12345)
    assert find_key(f"127.0.0.1:{PORT}", None) is None
    with pytest.raises(KeyUnreadable, match="of user 12345"):
        leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))


def test_without_a_runtime_folder_keys_lie_beside_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "open").mkdir(mode=0o755)
    for unfit in ("", "relative", str(tmp_path / "none"), str(tmp_path / "open")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unfit)
        assert runtime_folder() == tmp_path / f"blobzero-{os.geteuid()}"
    leave_key(key := draw_key(), drawn_key_file("127.0.0.1", PORT))
    assert find_key(f"127.0.0.1:{PORT}", None) == key


@pytest.mark.parametrize("text", [b"", b"short", b"sixteen=letters=0", b"\xff" * 20, b"a" * 15 + b"\n", b"a\n" * 20])
def test_what_is_no_key_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(KeyUnreadable, match=r"expected a (key of 16 or more|file with a key)"):
        read_key(tmp_path / "key")


def test_no_room_for_a_key_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clients.keys.os.replace", full)
    with pytest.raises(KeyUnreadable, match=r"expected to write a key to .*No space left on device; free some space"):
        leave_key(draw_key(), drawn_key_file("127.0.0.1", PORT))
    assert list(folder.iterdir()) == []


def test_a_key_file_says_how_it_is_made(tmp_path: Path) -> None:
    for text, got in (("short", "5 characters"), ("+" * 44, "others among its 44 characters")):
        (tmp_path / "key").write_text(text)
        with pytest.raises(KeyUnreadable, match=f"- and _ only, in .*, got {got}; create one: ") as caught:
            read_key(tmp_path / "key")
    with pytest.raises(KeyUnreadable, match="got No such file or directory; create one: "):
        read_key(tmp_path / "none")
    (tmp_path / "key").unlink()
    subprocess.run(["bash", "-c", str(caught.value).partition("create one: ")[2]], check=True)
    assert len(read_key(tmp_path / "key")) == 64
    assert mode(tmp_path / "key") == 0o600


def test_a_key_of_ours_that_others_may_read_is_told_of_and_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, link = tmp_path / "key", tmp_path / "link"
    key.write_text(draw_key())
    link.symlink_to(key)
    command = ["doctor", "--repository", str(tmp_path / "none"), "--key-file"]
    for open_to_others, path in ((0o644, key), (0o620, link)):
        key.chmod(open_to_others)
        assert main([*command, str(path)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == (
            f"blobzero: the key in {path} is accessible to other users (mode {open_to_others:o}); chmod 600 {path}"
        )
        assert len(lines) == 2
        assert read_key(path)
    key.chmod(0o600)
    assert exposure(key) == exposure(link) == exposure(None) == exposure(tmp_path / "none") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="expected to be root, to give a file away")
def test_a_key_of_another_owner_is_theirs_to_answer_for(tmp_path: Path) -> None:
    """As Docker mounts a secret: root's, and readable by all in the container."""
    (tmp_path / "key").write_text(draw_key())
    (tmp_path / "key").chmod(0o444)
    os.chown(tmp_path / "key", 12345, 12345)
    assert exposure(tmp_path / "key") == ""
    assert read_key(tmp_path / "key")
