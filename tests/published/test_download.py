"""Downloads from a server that fails as real ones do, and archives that mean harm."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from local_server import Server, tag, tar_of, zip_of

from scrcl.messages import UserError
from scrcl.published import download

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.3))
    with Server() as server:
        server.files["/file.bin"] = CONTENT
        yield server


@pytest.mark.parametrize(
    ("faults", "ranges"), [([], True), ([503, "cut", "silent"], True), (["cut", 429, "cut"], False)]
)
def test_the_file_arrives_whole(server, tmp_path, faults, ranges):
    server.ranges, server.faults["/file.bin"] = ranges, list(faults)
    path = download.download(f"{server.url}/file.bin", tmp_path, SHA256)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]  # and nothing else is left
    download.download(f"{server.url}/file.bin", tmp_path, SHA256)
    assert len(server.seen) == len(faults) + 1  # what is there is not asked for again


@pytest.mark.parametrize(
    ("left", "version", "asked"),
    [
        pytest.param(CONTENT[:1000], tag(CONTENT), ["bytes=1000-"], id="the same version"),
        pytest.param(b"x" * 1000, '"old"', ["bytes=1000-"], id="changed, known by its tag"),
        pytest.param(b"x" * 1000, tag(CONTENT), ["bytes=1000-", None], id="changed, known by the checksum"),
        pytest.param(CONTENT + b"x", tag(CONTENT), ["bytes=300001-", None], id="too long"),
        pytest.param(b"x" * 1000, "", [None], id="of an unknown version"),
    ],
)
def test_parts_of_an_earlier_process(server, tmp_path, left, version, asked):
    part = tmp_path / f"127.0.0.1_{server.server_port}" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(left)
    part.with_name("file.bin.part.version").write_text(version)
    path = download.download(f"{server.url}/file.bin", tmp_path, SHA256)
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert [begin for _, begin in server.seen] == asked


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (["cut"] + [500] * 3, "the server answers 500"),
        (["cut"] * 4, "the connection ended before the whole file had come"),
        (["cut"] + ["silent"] * 3, "there is no connection to the server"),
    ],
)
def test_it_gives_up_in_the_end_and_what_came_is_used_later(server, tmp_path, faults, words):
    server.faults["/file.bin"] = faults
    with pytest.raises(UserError, match=f"cannot be downloaded: {words}; check the network .* come is kept"):
        download.download(f"{server.url}/file.bin", tmp_path)
    assert download.download(f"{server.url}/file.bin", tmp_path).read_bytes() == CONTENT
    assert server.seen[-1][1].startswith("bytes=") and len(server.seen) == 5


def test_nobody_listens(server, tmp_path):
    with Server() as gone:
        url = f"{gone.url}/file.bin"
    with pytest.raises(UserError, match="there is no connection to the server; check the network"):
        download.download(url, tmp_path)


def test_a_file_of_another_checksum_is_fetched_once_and_not_kept(server, tmp_path):
    with pytest.raises(download.Changed, match=f"{server.url}/file.bin is not the file that is expected"):
        download.download(f"{server.url}/file.bin", tmp_path, "00" * 32)
    assert len(server.seen) == 1 and not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(CONTENT)
    target.parent.mkdir()
    target.write_text("old")
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(download.shutil, "copyfile", lambda *paths: paths[1].write_text("half") and os.stat("/nowhere"))
        download.install(source, target)
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]
    download.install(source, target)
    assert target.read_bytes() == CONTENT and not source.exists()
    assert target.with_name("target.changed").read_text() == "old"


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_only_wanted_members_are_unpacked(tmp_path, make):
    archive = make(tmp_path / "a", {"top/data.txt": b"1", "top/other.txt": b"2", "data.txt.bak": b"3"})
    found = download.unpack(archive, ["data.txt"], tmp_path / "out")
    assert found == {"data.txt": tmp_path / "out" / "top" / "data.txt"} and found["data.txt"].read_bytes() == b"1"
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["data.txt"]


def link(kind, target):
    info = tarfile.TarInfo("data.txt")
    info.type, info.linkname = kind, target
    return info


def zip_link():
    info = zipfile.ZipInfo("data.txt")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("make", "members", "words"),
    [
        (zip_of, {"../data.txt": b"1"}, "points outside"),
        (zip_of, {"C:\\data.txt": b"1", "data.txt": b"1"}, "points outside"),
        (zip_of, {zip_link(): b"/etc/passwd"}, "is a link"),
        (zip_of, {"data.txt": b"0" * 200_000}, "more than 0 MB"),
        (zip_of, {"other.txt": b"1"}, "0 members 'data.txt' where one"),
        (zip_of, {"a/data.txt": b"1", "b/data.txt": b"1"}, "2 members 'data.txt' where one"),
        (tar_of, {"a/../../data.txt": b"1"}, "points outside"),
        (tar_of, {"/data.txt": b"1"}, "points outside"),
        (tar_of, {link(tarfile.LNKTYPE, "../x"): b""}, "is a link"),
        (tar_of, {link(tarfile.CHRTYPE, ""): b""}, "is a link"),
        (tar_of, {link(tarfile.SYMTYPE, "../.."): b"", "data.txt/outside": b"1"}, "is a link"),
        (tar_of, {"data.txt": b"1", "bomb": b"0" * 200_000}, "more than 0 MB"),
    ],
)
def test_archives_that_are_refused(tmp_path, monkeypatch, make, members, words):
    monkeypatch.setattr(download, "LARGEST", 100_000)
    with pytest.raises(UserError, match=words):
        download.unpack(make(tmp_path / "archive", members), ["data.txt"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_damaged_archives(tmp_path, make):
    archive = make(tmp_path / "archive", {"data.txt": CONTENT})
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(UserError, match="cannot be unpacked .*; remove it and try again"):
        download.unpack(archive, ["data.txt"], tmp_path / "out")
