"""Download files that arrive whole or not at all, and unpack archives without trusting them.

pooch keeps what has come and compares checksums; the downloader that it is given here goes on where an earlier
attempt was cut off. What to download, and where it belongs, is in sources.py and datasets/registry.yaml.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any
from urllib.parse import urlsplit

import pooch
import requests
import urllib3
from tqdm import tqdm

from utils import UserError, log, one_line

CHUNK = 2**16  # bytes
PROGRESS = 2**20  # bytes; who gets that much further is not failing, so its attempts are counted anew
LARGEST = 8 * 2**30  # bytes that one archive may unpack to

pooch.get_logger().setLevel("WARNING")  # it announces every file, with advice for programmers


class Refused(UserError):
    """The server answers, but does not give the file."""


class Changed(UserError):
    """The file has another checksum than it should."""


class Unreachable(UserError):
    """The server does not answer, or breaks off every time."""


class Unwritable(UserError):
    """The disk is full, or the folder is not to be written in: no other file will fare better."""


class _Interrupted(Exception):
    """An attempt that is worth another. wait: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """When an attempt is given up, and how many there are."""

    connect: float = 10  # seconds until the server must have answered
    silence: float = 30  # seconds without a single byte
    window: float = 60  # seconds in which at least `slowest` bytes must come
    slowest: int = 60 * 1024
    attempts: int = 5
    wait: float = 1  # seconds before the second attempt, doubled before each further one
    longest_wait: float = 60


class Downloads:
    """A folder of downloads: what is there is not fetched again, what is half there is completed.

    folder: made when needed; a file lies under its server's name and path, NAME.part while it is incomplete.
    """

    def __init__(self, folder: Path, patience: Patience | None = None) -> None:
        self.folder = folder
        self.patience = patience or Patience()
        self._silent: set[str] = set()  # servers that did not answer; each further file is tried there only once

    def place(self, url: str) -> Path:
        """Where the file of that address is, or will be."""
        parts = urlsplit(url)
        return self.folder / parts.netloc.replace(":", "_") / parts.path.lstrip("/")

    def get(self, url: str, sha256: str | None = None) -> Path:
        """The file of that address, whole; of that checksum if one is given.

        Raises Refused, Changed, Unreachable and Unwritable, see there.
        """
        path, server = self.place(url), urlsplit(url).netloc
        attempts = 1 if server in self._silent else self.patience.attempts
        if not path.exists():
            log.info("Downloading %s.", url)
        try:
            with sentence_on_failure(self.folder):
                self._retrieve(url, path, sha256, attempts)
        except Unreachable:
            self._silent.add(server)
            raise
        return path

    def _retrieve(self, url: str, path: Path, sha256: str | None, attempts: int) -> None:
        while True:
            downloader = _Resuming(path.with_name(f"{path.name}.part"), self.patience, attempts)
            try:
                pooch.retrieve(url, sha256, fname=path.name, path=path.parent, downloader=downloader)
                return
            except ValueError as error:  # pooch's word for another checksum
                if not downloader.resumed:
                    raise Changed(
                        f"What comes from {url} is not the file that is expected: its sha256 is not {sha256}; "
                        "it was replaced there, or damaged on its way."
                    ) from error
                log.info("%s does not fit together with its first part: downloading it anew.", path.name)

    def tidy(self) -> None:
        """Remove the temporary files and folders that a killed process left, and folders that hold nothing."""
        for left_over in list(self.folder.rglob("tmp????????")):
            if left_over.is_dir():
                shutil.rmtree(left_over, ignore_errors=True)
            else:
                left_over.unlink(missing_ok=True)
        for folder in sorted((path for path in self.folder.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


class _Resuming:
    """A downloader for pooch that keeps what has come in a file, and asks for the rest.

    Beside that file, NAME.part, stands NAME.part.json: the address, and by what the server tells versions apart.
    """

    def __init__(self, part: Path, patience: Patience, attempts: int) -> None:
        self.part, self.patience, self.attempts = part, patience, attempts
        self.notes = part.with_name(f"{part.name}.json")
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        os.unlink(output_file)  # pooch's empty file, which would stay behind if this process were killed
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self._until_whole(url)
        os.replace(self.part, output_file)
        self.notes.unlink(missing_ok=True)

    def _until_whole(self, url: str) -> None:
        failed, furthest = 0, _size(self.part)
        while True:
            try:
                self._attempt(url)
                return
            except _Interrupted as error:
                failed = 1 if _size(self.part) > furthest + PROGRESS else failed + 1
                furthest = max(furthest, _size(self.part))
                if failed >= self.attempts:
                    raise Unreachable(self._given_up(url, str(error))) from error
                wait = min(max(error.wait, self.patience.wait * 2 ** (failed - 1)), self.patience.longest_wait)
                log.info("%s: %s; trying again in %.3g s.", self.part.stem, error, wait)
                time.sleep(wait)

    def _given_up(self, url: str, reason: str) -> str:
        kept = f"; the {_size(self.part)} bytes that came are kept, and the same command goes on from there"
        return (
            f"{url} cannot be downloaded: {reason}, after {self.attempts} {_plural('attempt', self.attempts)}"
            f"{kept if _size(self.part) else ''}; check the network connection, or try again later."
        )

    def _attempt(self, url: str) -> None:
        """Ask once, for what is missing. Raises _Interrupted where another attempt may bring more."""
        notes = self._read_notes(url)
        offset = _size(self.part) if notes else 0
        with _transport_errors(url, self.patience):
            response = requests.get(
                url,
                headers=_request_headers(offset, notes),
                stream=True,
                timeout=(self.patience.connect, self.patience.silence),
            )
        with response:
            if response.status_code == 416 and offset:
                if _total(response) != offset:  # another file than the one that was begun
                    self._forget()
                    raise _Interrupted("the file has changed on the server")
                self.resumed = True
                return
            _require_success(response, url)
            if response.status_code == 206:
                self._require_same(response, notes, offset)
                self.resumed = True
            else:  # the whole file, from its beginning
                offset = 0
            self._receive(response, url, offset)

    def _receive(self, response: requests.Response, url: str, offset: int) -> None:
        """Write what comes to the part, from offset on; raises _Interrupted where less comes than was announced."""
        total = _total(response)
        if total is not None:
            _require_space(self.part.parent, total - offset)
        with open(self.part, "ab" if offset else "wb") as file:
            self._write_notes(response, url, total)
            with tqdm(
                total=total, initial=offset, desc=self.part.stem, unit="B", unit_scale=True, leave=False, disable=None
            ) as bar:
                for chunk in _chunks(response, url, self.patience):
                    file.write(chunk)
                    bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        came = _size(self.part)
        if total is not None and came > total:
            self._forget()
            raise _Interrupted(f"{came} bytes came where {total} were announced")
        if total is not None and came < total:
            raise _Interrupted(f"the connection ended after {came} of {total} bytes")

    def _require_same(self, response: requests.Response, notes: dict[str, Any], offset: int) -> None:
        """Raise _Interrupted, and forget the part, unless the answer continues it."""
        start = response.headers.get("Content-Range", "").removeprefix("bytes").strip().partition("-")[0]
        now = _notes(response, "", _total(response))
        changed = [
            name for name in ("etag", "modified", "total") if notes[name] and now[name] not in (notes[name], None)
        ]
        if start != str(offset) or changed:
            self._forget()
            raise _Interrupted("the file has changed on the server")

    def _read_notes(self, url: str) -> dict[str, Any]:
        """What was noted about the part; nothing where it cannot be continued, and then it counts for nothing."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            usable = self.part.exists() and notes["url"] == url and notes["plain"]
            return {name: notes[name] for name in ("etag", "modified", "total")} if usable else {}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def _write_notes(self, response: requests.Response, url: str, total: int | None) -> None:
        self.notes.write_text(json.dumps(_notes(response, url, total)), encoding="utf-8")

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def _notes(response: requests.Response, url: str, total: int | None) -> dict[str, Any]:
    return {
        "url": url,
        "etag": response.headers.get("ETag"),
        "modified": response.headers.get("Last-Modified"),
        "total": total,
        "plain": _is_plain(response),
    }


def _request_headers(offset: int, notes: dict[str, Any]) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}  # compressed on the way, bytes could not be counted
    if offset:
        headers["Range"] = f"bytes={offset}-"
        strong = notes["etag"] if notes["etag"] and not notes["etag"].startswith("W/") else None
        if version := strong or notes["modified"]:
            headers["If-Range"] = version
    return headers


def _is_plain(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() == "identity"


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file, where the server says it."""
    if not _is_plain(response):
        return None
    if response.status_code in (206, 416):
        said = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        said = response.headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else None


def _require_success(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (408, 429) or status >= 500:
        asked = response.headers.get("Retry-After", "")
        raise _Interrupted(f"the server answers {status} ({response.reason})", float(asked) if asked.isdecimal() else 0)
    words = {404: "does not exist", 410: "does not exist any more", 401: "needs a login", 403: "may not be downloaded"}
    raise Refused(f"{url} {words.get(status, 'is refused')} (the server answers {status}).")


def _chunks(response: requests.Response, url: str, patience: Patience) -> Iterator[bytes]:
    """What comes, as it comes; raises _Interrupted where it comes too slowly."""
    began, came = time.monotonic(), 0
    with _transport_errors(url, patience):
        # read1 returns what is there; read would wait until a chunk is full, however slowly that goes.
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            yield chunk
            came += len(chunk)
            if time.monotonic() - began > patience.window:
                if came < patience.slowest:
                    raise _Interrupted(f"only {came} bytes came in {patience.window:.3g} s")
                began, came = time.monotonic(), 0


@contextmanager
def _transport_errors(url: str, patience: Patience) -> Iterator[None]:
    """_Interrupted for what may pass, Unreachable for what will not."""
    try:
        yield
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        raise Unreachable(
            f"{url} cannot be downloaded: no secure connection to the server ({_reason(error)}); check the date of "
            "this machine and its certificates."
        ) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        late = isinstance(error, requests.ConnectTimeout | urllib3.exceptions.ConnectTimeoutError)
        raise _Interrupted(f"no answer within {patience.connect if late else patience.silence:.3g} s") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise _Interrupted(_reason(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise _Interrupted(_reason(error)) from error
    except requests.RequestException as error:  # an impossible address, endless redirects
        raise Refused(f"{url} cannot be downloaded: {one_line(error)}.") from error


def _reason(error: BaseException) -> str:
    """In a few words, what lies under the layers of a transport error."""
    inner = error.args[0] if error.args else None
    inner = getattr(inner, "reason", inner)
    text = f"{error} {inner!r}"
    known = {
        "NameResolution": "the server's name is not known here",
        "refused": "the server refuses the connection",
        "unreachable": "the network is unreachable",
        "ProxyError": "the proxy does not let it through",
        "IncompleteRead": "the connection ended before the whole file had come",
        "reset": "the server closed the connection",
        "RemoteDisconnected": "the server closed the connection",
        "CERTIFICATE": "its certificate is not trusted",
    }
    return next((words for sign, words in known.items() if sign in text), one_line(Exception(text.strip())))


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Unwritable(
            f"The disk of {folder} has {free / 1e6:.0f} MB free where {needed / 1e6:.0f} are needed; "
            "free some, or choose another disk with --folder."
        )


@contextmanager
def sentence_on_failure(folder: Path) -> Iterator[None]:
    """Unwritable in place of the errors of the file system."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else one_line(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Unwritable(
            f"{error.filename or folder} cannot be written: {reason}; {'free some space, or ' if full else ''}choose "
            "another folder with --folder."
        ) from error


def install(source: Path, target: Path) -> None:
    """Move a whole file to its place, where it appears at once or not at all; also from another disk.

    A file that is there already is kept as NAME.changed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if _size(target):
        os.replace(target, target.with_name(f"{target.name}.changed"))
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.unfinished")
        try:
            shutil.copyfile(source, beside)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
        source.unlink()


def unpack(archive: Path, wanted: Sequence[str], folder: Path, largest: int = LARGEST) -> dict[str, Path]:
    """Unpack the wanted members of a zip or tar archive into folder; returns their paths by the names wanted.

    wanted: names as in the archive, or the ends of those, from some / on. They are
    written to folder under their last names, whatever the archive calls them.
    Raises UserError for an archive that is damaged, lacks a member or has two of one name, has
    a name that points outside, a wanted member that is a link or device, or more than `largest` bytes in all.
    """
    try:
        with sentence_on_failure(folder):
            reader = _unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar
            return dict(reader(archive, wanted, folder, largest))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"The archive {archive} cannot be unpacked ({one_line(error)}); remove it and try again."
        ) from error


def _unpack_zip(archive: Path, wanted: Sequence[str], folder: Path, largest: int) -> Iterator[tuple[str, Path]]:
    with zipfile.ZipFile(archive) as file:
        members = {info.filename: info for info in file.infolist()}
        chosen = _choose(archive, [info.filename for info in file.infolist()], wanted)
        _require_bounded(archive, (members[member].file_size for member in chosen.values()), largest)
        for name, member in chosen.items():
            if not _is_regular(members[member]):
                raise UserError(f"The archive {archive} holds {member} as a link or folder; it is not unpacked.")
            with file.open(member) as content:
                yield name, _write_member(content, folder / PurePosixPath(name).name, archive, largest)


def _is_regular(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    return not info.is_dir() and kind in (0, stat.S_IFREG)


def _unpack_tar(archive: Path, wanted: Sequence[str], folder: Path, largest: int) -> Iterator[tuple[str, Path]]:
    with tarfile.open(archive) as file:
        # Reading on to the next member unpacks the one before it, so sizes are added up on the way.
        _require_bounded(archive, (member.size for member in file), largest)
        members = {member.name: member for member in file.getmembers()}
        chosen = _choose(archive, [member.name for member in file.getmembers()], wanted)
        for name, member in chosen.items():
            safe = tarfile.data_filter(members[member], str(folder))
            content = file.extractfile(members[member]) if safe is not None and safe.isreg() else None
            if content is None:
                raise UserError(f"The archive {archive} holds {member} as a link or device; it is not unpacked.")
            with content:
                yield name, _write_member(content, folder / PurePosixPath(name).name, archive, largest)


def _choose(archive: Path, members: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """The member that each wanted name means. Raises UserError for unsafe names, and where it is not exactly one."""
    unsafe = next((member for member in members if _points_outside(member)), None)
    if unsafe is not None:
        raise UserError(f"The archive {archive} is not unpacked: the path of its member {unsafe!r} points outside.")
    chosen = {}
    for name in wanted:
        found = [member for member in members if f"/{member}".endswith(f"/{name}")]
        if len(found) != 1:
            raise UserError(f"The archive {archive} holds {len(found)} members {name!r} where one is needed.")
        chosen[name] = found[0]
    return chosen


def _points_outside(member: str) -> bool:
    windows = PureWindowsPath(member)  # knows both slashes, and drives
    return windows.is_absolute() or bool(windows.drive or windows.root) or ".." in windows.parts


def _require_bounded(archive: Path, sizes: Iterable[int], largest: int) -> None:
    total = 0
    for size in sizes:
        total += size
        if total > largest:
            raise UserError(f"The archive {archive} is not unpacked: it holds more than {largest / 1e6:.0f} MB.")


def _write_member(content: IO[bytes], path: Path, archive: Path, largest: int) -> Path:
    """Copy at most `largest` bytes, whatever the archive had declared."""
    written = 0
    with path.open("wb") as file:
        while chunk := content.read(CHUNK):
            written += len(chunk)
            _require_bounded(archive, [written], largest)
            file.write(chunk)
    return path


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
