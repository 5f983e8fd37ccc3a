"""Which published data sets can be fetched, where they belong, and whether they are there.

The list is datasets/registry.yaml; datasets/fetch.py fetches. This module loads neither pooch nor scanpy.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import h5py
import yaml

import folders
from utils import UserError, one_line, sha256

FOLDER = Path(__file__).parent / "datasets"  # holds scdata/ and stdata/
REGISTRY = FOLDER / "registry.yaml"
CHECKSUMS = "checksums.json"  # in the folder: what each file was when it was fetched
TASK_FOLDERS = {"SC": "scdata", "ST": "stdata"}
HDF5 = (".h5", ".h5ad")
BEGINNINGS = {".png": b"\x89PNG", ".zip": b"PK", ".whl": b"PK", ".gz": b"\x1f\x8b"}

Status = Literal["missing", "present", "by hand", "damaged"]


class Remote(NamedTuple):
    """A file to download.

    to: where it belongs, relative to scdata/ or stdata/, or the folder for what is
    unpacked from it; None if it only serves to make the set. unpack: the members wanted.
    optional: the set can be used without it.
    """

    url: str
    to: str | None
    sha256: str | None
    unpack: tuple[str, ...]
    optional: bool

    def members(self) -> dict[str, str | None]:
        """Each file that comes of it, by the name in the archive or address, and where it belongs."""
        if not self.unpack:
            return {Path(urlsplit(self.url).path).name: self.to}
        return {name: self.to if self.to is None else str(Path(self.to, Path(name).name)) for name in self.unpack}


class Source(NamedTuple):
    """A data set that is published somewhere.

    origin: for people. verified: whether somebody has downloaded it by these addresses,
    with the date. make: the conversion that makes the files `makes`, and its options.
    how: what to do by hand; note: what is still to do after fetching. Both lead to the file `unless`.
    """

    name: str
    task: str
    origin: str
    verified: str
    files: tuple[Remote, ...]
    make: str | None
    makes: tuple[str, ...]
    options: dict[str, Any]
    how: str
    note: str
    unless: str

    def folder(self, root: Path) -> Path:
        """scdata/ or stdata/ in root."""
        return root / TASK_FOLDERS[self.task]

    def by_hand(self, root: Path) -> str:
        """What to do without fetch.py, in words."""
        return self.how.replace("{folder}", str(self.folder(root)))

    def to_do(self, root: Path) -> str:
        """What is left to do after fetching, in words; empty where nothing is."""
        done = not self.note or (self.folder(root) / self.unless).exists()
        return "" if done else self.note.replace("{folder}", str(self.folder(root)))

    def required(self) -> tuple[str, ...]:
        """The files without which the set is not there, relative to its task's folder."""
        return self._placed(optional=False) + self.makes or (self.unless,)

    def products(self) -> tuple[str, ...]:
        """Those and the optional ones."""
        return self.required() + self._placed(optional=True)

    def _placed(self, optional: bool) -> tuple[str, ...]:
        files = [file for file in self.files if file.optional == optional]
        return tuple(to for file in files for to in file.members().values() if to is not None)


def command(name: str) -> str:
    """What to type to fetch a data set, from wherever the scripts are started."""
    script = FOLDER / "fetch.py"
    near = script.is_relative_to(Path.cwd())
    return f"python {script.relative_to(Path.cwd()) if near else script} {name}"


def known() -> dict[str, str]:
    """The task, SC or ST, of every data set in the registry."""
    return {name: source.task for name, source in registry().items()}


def registry() -> dict[str, Source]:
    """Every data set in the registry, by name."""
    return _load(REGISTRY)


@functools.cache
def _load(path: Path) -> dict[str, Source]:
    sources = {}
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        names = entry.pop("names")
        for name in names:
            filled = _filled(entry, name=name, id=names[name] if isinstance(names, dict) else name)
            sources[name] = _source(name, filled)
    return sources


def _filled(value: Any, **words: str) -> Any:
    """value with {name} and {id} replaced in every text within it; other braces stay."""
    if isinstance(value, dict):
        return {key: _filled(item, **words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, **words) for item in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(f"{{{word}}}", text)
    return value


def _source(name: str, entry: dict[str, Any]) -> Source:
    files = tuple(
        Remote(
            url=file["url"],
            to=file.get("to"),
            sha256=file.get("sha256"),
            unpack=tuple(file.get("unpack", ())),
            optional=file.get("optional", False),
        )
        for file in entry.get("files", ())
    )
    return Source(
        name=name,
        task=entry["task"],
        origin=entry["origin"],
        verified=str(entry["verified"] or "no"),
        files=files,
        make=entry.get("make"),
        makes=tuple(entry.get("makes", ())),
        options=entry.get("options", {}),
        how=entry.get("how", ""),
        note=entry.get("note", ""),
        unless=entry.get("unless", ""),
    )


def status(name: str, folder: Path = FOLDER, checksums: bool = False) -> Status:
    """Whether the files of a data set are in folder, whole and as they were fetched; 'by hand' for others under its name.

    checksums: read the files from end to end too; without it a file of the right size is taken at its word.
    """
    source, record = registry()[name], Checksums(folder)
    where = source.folder(folder)
    paths = [where / file for file in source.required()]
    there = [path for path in paths if path.exists()]
    if any(record.fault(path, checksums) for path in there):
        return "damaged"
    if len(there) == len(paths):
        return "present"
    fetched = any(record.has(path) for path in there)
    return "by hand" if not fetched and _under_its_name(source, where) else "missing"


def _under_its_name(source: Source, where: Path) -> bool:
    """Whether there is an h5ad file or a folder with anything in it that has the name of a data set, which the scripts take too."""
    own = {parent for file in source.required() for parent in (where / file).parents if parent.name == source.name}
    places = [*own, where / source.name]
    return (where / f"{source.name}.h5ad").exists() or any(any(place.glob("*")) for place in places)


class Checksums:
    """What each file was when it was fetched: size and sha256, in a JSON file beside the data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / CHECKSUMS
        self._files: dict[str, dict[str, Any]] = {}
        self._addresses: dict[str, str] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self._files, self._addresses = dict(content["files"]), dict(content["addresses"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path} cannot be read ({one_line(error)}); remove it to have the checksums recorded anew."
            ) from error

    def of_address(self, url: str) -> str | None:
        """The sha256 of what first came from that address."""
        return self._addresses.get(url)

    def has(self, path: Path) -> bool:
        """Whether a file was fetched."""
        return self._key(path) in self._files

    def fault(self, path: Path, checksums: bool) -> str | None:
        """What is wrong with a file, in a few words, None for nothing. checksums: read it from end to end."""
        wrong = fault(path)
        before = self._files.get(self._key(path))
        if wrong or before is None:
            return wrong
        same = path.stat().st_size == before["size"] and (not checksums or sha256(path) == before["sha256"])
        return None if same else "is not as it was fetched"

    def add_address(self, url: str, digest: str) -> None:
        """Record what came from an address."""
        self._addresses[url] = digest
        self._write()

    def add_file(self, path: Path) -> None:
        """Record a file that was put in place."""
        self._files[self._key(path)] = {"size": path.stat().st_size, "sha256": sha256(path)}
        self._write()

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _write(self) -> None:
        content = {"files": self._files, "addresses": self._addresses}
        folders.write_safely(self.path, json.dumps(content, indent=1, sort_keys=True).encode())


def fault(path: Path) -> str | None:
    """What is wrong with a file, as far as its size and beginning tell; None for nothing.

    HDF5 files are opened, which finds those that were cut off.
    """
    try:
        if path.stat().st_size == 0:
            return "is empty"
        if path.suffix in HDF5:
            return _hdf5_fault(path)
        with path.open("rb") as file:
            first = file.read(512)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if path.suffix in BEGINNINGS:
        return None if first.startswith(BEGINNINGS[path.suffix]) else f"is no {path.suffix[1:]} file"
    page = first.lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return "is a web page" if page else None


def _hdf5_fault(path: Path) -> str | None:
    if not h5py.is_hdf5(path):
        return "is no HDF5 file"
    try:
        h5py.File(path, "r").close()
    except OSError:
        return "is cut off"
    return None
