"""Get files from where they are published, whole or not at all, and unpack archives without trusting them.

pooch keeps the files, compares checksums, tries again and unpacks. Here is what it lacks: a downloader that goes on
where an earlier one was cut off, a look into archives before they are unpacked, and errors of one sentence.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrcl.disk.folders import flush
from scrcl.messages import UserError, log, one_line, progress

if TYPE_CHECKING:
    import requests

CHUNK = 2**16  # bytes
TIMEOUT = (10, 30)  # seconds until the server must have answered, and without a single byte
RETRIES = 3
LARGEST = 8 * 2**30  # bytes that one archive may unpack to
REFUSALS = {401: "needs a login", 403: "may not be downloaded", 404: "does not exist", 410: "does not exist any more"}
REASONS = {  # requests' errors in a few words
    "SSLError": "the server's certificate is not trusted here",
    "ProxyError": "the proxy does not let it through",
    "ConnectTimeout": "the server does not answer in time",
    "ReadTimeout": "the server does not answer in time",
    "ChunkedEncodingError": "the connection ended before the whole file had come",
    "ConnectionError": "there is no connection to the server",
}


class Refused(UserError):
    """The server answers, but does not give the file."""


class Changed(UserError):
    """The file has another checksum than it should."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"What comes from {url} is not the file that is expected: it was replaced there, or damaged on its way."
        )


class Unwritable(UserError):
    """The disk is full, or the folder is not to be written in: no other file will fare better."""


def download(url: str, folder: Path, sha256: str | None = None) -> Path:
    """The file of an address, whole; one that is there already is not downloaded again.

    Parameters
    ----------
    url
        The address.
    folder
        Holds all downloads; a file lies in it under its server's name and path.
    sha256
        The checksum that it must have, where it is known.

    Raises
    ------
    Refused, Changed
        See there.
    UserError
        Where the server does not answer, or breaks off every time. What came is kept for the next time.
    OSError
        Where the folder cannot be written.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # it announces every file, with advice for programmers
    server, path = urlsplit(url).netloc.replace(":", "_"), urlsplit(url).path.lstrip("/")
    file = f"{server}/{path}"
    keeper = pooch.create(folder, "", registry={file: sha256}, urls={file: url}, retry_if_failed=RETRIES)
    try:
        return Path(keeper.fetch(file, downloader=_Resuming(folder / file)))
    except requests.RequestException as error:
        raise UserError(
            f"{url} cannot be downloaded: {_in_words(error)}; check the network connection, or try again later. "
            "What has come is kept."
        ) from error
    except ValueError as error:  # pooch's word for another checksum
        raise Changed(url) from error


class _Resuming:
    """A downloader for pooch that keeps what has come in NAME.part, and asks for the rest at the next attempt.

    NAME.part.version holds by what the server tells versions of the file apart. Without it nothing is continued.
    """

    def __init__(self, target: Path) -> None:
        self.part = target.with_name(f"{target.name}.part")
        self.version = target.with_name(f"{target.name}.part.version")
        self.name, self.again, self.whole = target.name, False, False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests

        os.unlink(output_file)  # pooch's empty file, which would stay behind if this process were killed
        if self.whole:  # it came at once, and pooch asks again since the checksum is another
            raise Changed(url)
        log.info("Downloading %s%s.", url, " again" if self.again else "")
        self.again = True
        version = self.version.read_text(encoding="utf-8") if self.version.exists() else ""
        begun = self.part.stat().st_size if version and self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # compressed on the way, bytes could not be counted
        if begun:
            headers |= {"Range": f"bytes={begun}-", "If-Range": version}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            self._require_file(response, begun, version)
            continued = response.status_code == 206
            self._receive(response, begun if continued else 0)
        self.version.unlink()
        os.replace(self.part, output_file)
        self.whole = not continued

    def _require_file(self, response: requests.Response, begun: int, version: str) -> None:
        """Raise Refused unless this is the file or its rest, and a requests error where another attempt may help."""
        import requests

        status = response.status_code
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        rest = status == 206 and start == str(begun) and _version(response) in ("", version)
        if status in (206, 416) and not rest:
            self.part.unlink(missing_ok=True)
            raise requests.RequestException("it has changed on the server meanwhile")
        if status in (408, 429) or status >= 500:
            response.raise_for_status()
        if status not in (200, 206):
            raise Refused(f"{response.url} {REFUSALS.get(status, 'is refused')} (the server answers {status}).")

    def _receive(self, response: requests.Response, begun: int) -> None:
        """Write what comes behind the first `begun` bytes; requests raises where less comes than was announced."""
        announced = int(response.headers.get("Content-Length", 0))
        bar = progress(
            total=begun + announced or None, initial=begun, desc=self.name, unit="B", unit_scale=True, leave=False
        )
        with self.part.open("ab" if begun else "wb") as file, bar:
            if not begun:
                self.version.write_text(_version(response), encoding="utf-8")
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _version(response: requests.Response) -> str:
    """What If-Range takes: a strong ETag, or else the day; '' where there is neither, or bytes cannot be counted."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return ""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag


def _in_words(error: requests.RequestException) -> str:
    """What is wrong with a connection, in a few words in place of requests' many."""
    if error.response is not None:
        return f"the server answers {error.response.status_code}"
    return REASONS.get(type(error).__name__, one_line(error).rstrip("."))


@contextmanager
def sentence_on_failure(folder: Path) -> Iterator[None]:
    """Within the block errors of the file system are Unwritable."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Unwritable(
            f"{error.filename or folder} cannot be written: {error.strerror or one_line(error)}; "
            f"{'free some space, or ' if full else ''}choose another folder with --folder."
        ) from error


def install(path: Path, target: Path) -> None:
    """Move a whole file to its place, also on another disk; it appears there at once or not at all.

    One that is there already is kept as NAME.changed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.copyfile(path, beside)
        flush(beside)
        if target.exists():
            os.replace(target, target.with_name(f"{target.name}.changed"))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    path.unlink()


def unpack(archive: Path, wanted: Sequence[str], folder: Path) -> dict[str, Path]:
    """Unpack members of a zip or tar archive.

    Parameters
    ----------
    archive
        The archive; a wheel is one too.
    wanted
        Names as in the archive, or the ends of those, from some / on.
    folder
        Where to.

    Returns
    -------
    The path of each by the name wanted.

    Raises
    ------
    UserError
        For an archive that is damaged, lacks a member or has two of one name, holds paths that point outside, links or
        devices, or is too large.
    """
    import pooch

    try:
        chosen = _choose(archive, wanted)
        processor = pooch.Unzip if zipfile.is_zipfile(archive) else pooch.Untar
        processor(list(chosen.values()), os.path.relpath(folder, archive.parent))(str(archive), "download", None)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(
            f"The archive {archive} cannot be unpacked ({one_line(error)}); remove it and try again."
        ) from error
    return {name: folder / member for name, member in chosen.items()}


def _choose(archive: Path, wanted: Sequence[str]) -> dict[str, str]:
    """The member that each wanted name means.

    On Python 3.11 pooch's Untar follows links and paths that point outside, and it takes whatever begins with a
    name. So an archive with anything but files and folders within is not unpacked at all.
    """
    names, total = [], 0
    for name, harmless, size in _contents(archive):
        windows = PureWindowsPath(name)  # knows both slashes, and drives
        if not harmless or windows.drive or windows.root or ".." in windows.parts:
            raise UserError(f"The archive {archive} is not unpacked: {name!r} in it is a link, or points outside.")
        names.append(name)
        total += size
        if total > LARGEST:
            raise UserError(f"The archive {archive} is not unpacked: it holds more than {LARGEST / 1e6:.0f} MB.")
    chosen = {}
    for end in wanted:
        found = [name for name in names if f"/{name}".endswith(f"/{end}")]
        if len(found) != 1:
            raise UserError(f"The archive {archive} holds {len(found)} members {end!r} where one is needed.")
        chosen[end] = found[0]
    return chosen


def _contents(archive: Path) -> Iterator[tuple[str, bool, int]]:
    """Each member's name, whether it is a file or folder, and its size."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on Unix
                yield entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), entry.file_size
    else:
        with tarfile.open(archive) as file:
            for member in file:
                yield member.name, member.isreg() or member.isdir(), member.size
