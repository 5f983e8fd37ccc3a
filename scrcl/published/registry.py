"""Which published data sets can be fetched, where they belong, and whether they are there: what registry.yaml says.

It loads nothing heavy, since error messages elsewhere ask it for names. scrcl.commands.fetch does the fetching.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import yaml

from scrcl.disk import folders
from scrcl.disk.home import TASK_FOLDERS
from scrcl.messages import UserError, one_line
from scrcl.runtime import sha256

REGISTRY = Path(__file__).with_name("registry.yaml")
CHECKSUMS = "checksums.json"  # in the folder of all data sets: what each file was when it was fetched
HDF5 = (".h5", ".h5ad")
BEGINNINGS = {".png": b"\x89PNG", ".zip": b"PK", ".whl": b"PK", ".gz": b"\x1f\x8b"}

Task = Literal["SC", "ST"]
Status = Literal["missing", "present", "by hand", "damaged"]


class Remote(NamedTuple):
    """A file to download, as registry.yaml describes it. optional: the set can be used without it."""

    url: str
    to: str | None = None
    unpack: Mapping[str, str | None] = MappingProxyType({})
    sha256: str | None = None
    optional: bool = False

    def places(self) -> Mapping[str, str | None]:
        """Where each file that comes of it belongs, by the name in the archive or address."""
        return self.unpack or {Path(urlsplit(self.url).path).name: self.to}


class DataSet(NamedTuple):
    """A data set that is published somewhere, as registry.yaml describes it."""

    name: str
    task: Task
    origin: str
    verified: str | Literal[False]
    how: str
    files: tuple[Remote, ...] = ()
    make: str = ""
    makes: str = ""
    options: Mapping[str, Any] = MappingProxyType({})
    note: str = ""
    unless: str = ""

    def folder(self, root: Path) -> Path:
        """The folder in root of the data sets of its task."""
        return root / TASK_FOLDERS[self.task]

    def by_hand(self, root: Path) -> str:
        """What to do without this software, in words."""
        return self.how.replace("{folder}", str(self.folder(root)))

    def to_do(self, root: Path) -> str:
        """What is left to do after fetching, in words; empty where nothing is."""
        done = (self.folder(root) / self.unless).exists()
        return "" if done else self.note.replace("{folder}", str(self.folder(root)))

    def required(self) -> list[str]:
        """The files without which the set is not there, relative to its task's folder."""
        return [*self._placed(optional=False), *filter(None, [self.makes])] or [self.unless]

    def products(self) -> list[str]:
        """Those and the optional ones."""
        return self.required() + self._placed(optional=True)

    def _placed(self, optional: bool) -> list[str]:
        files = [file for file in self.files if file.optional == optional]
        return [to for file in files for to in file.places().values() if to is not None]


def command(name: str) -> str:
    """What to type to fetch a data set."""
    return f"python -m scrcl fetch {name}"


def known() -> dict[str, Task]:
    """The task, SC or ST, of every data set in the registry."""
    return {name: data_set.task for name, data_set in registry().items()}


def registry() -> dict[str, DataSet]:
    """Every data set in the registry, by name."""
    return _load(REGISTRY)


@functools.cache
def _load(path: Path) -> dict[str, DataSet]:
    data_sets = {}
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        names = entry.pop("names")
        template = json.dumps(entry, default=str)  # days become texts
        for name in names:
            words = template.replace("{name}", name).replace("{id}", names[name] if isinstance(names, dict) else name)
            filled = json.loads(words)
            files = tuple(Remote(**file) for file in filled.pop("files", ()))
            data_sets[name] = DataSet(name=name, files=files, **filled)
    return data_sets


def status(name: str, folder: Path, checksums: bool = False) -> Status:
    """Whether a published data set is there.

    Parameters
    ----------
    name
        Which data set.
    folder
        The folder of all data sets.
    checksums
        Read its files from end to end too. Without it a file of the right size is taken at its word.

    Returns
    -------
    'present' where its files are whole and as they were fetched, 'damaged' where one is not, 'by hand' where others
    are there under its name, else 'missing'.
    """
    data_set, record = registry()[name], Checksums(folder)
    where = data_set.folder(folder)
    paths = [where / file for file in data_set.required()]
    there = [path for path in paths if path.exists()]
    if any(record.fault(path, checksums) for path in there):
        return "damaged"
    if len(there) == len(paths):
        return "present"
    fetched = any(record.of_file(path) for path in there)
    return "by hand" if not fetched and _under_its_name(data_set, where) else "missing"


def _under_its_name(data_set: DataSet, where: Path) -> bool:
    """Whether an h5ad file has the name of a data set, or a folder with anything in it; runs take these too."""
    own = {parent for file in data_set.required() for parent in (where / file).parents if parent.name == data_set.name}
    places = [*own, where / data_set.name]
    return (where / f"{data_set.name}.h5ad").exists() or any(any(place.glob("*")) for place in places)


class Checksums:
    """What each file was when it was fetched: size and sha256, in a JSON file beside the data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / CHECKSUMS
        self._content: dict[str, dict[str, Any]] = {"files": {}, "addresses": {}}
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self._content = {part: dict(content[part]) for part in self._content}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path} cannot be read ({one_line(error)}); remove it to have the checksums recorded anew."
                ) from error

    def of_address(self, url: str) -> str | None:
        """The sha256 of what first came from that address."""
        return self._content["addresses"].get(url)

    def of_file(self, path: Path) -> dict[str, Any] | None:
        """Size and sha256 of a file when it was fetched."""
        return self._content["files"].get(path.relative_to(self.folder).as_posix())

    def fault(self, path: Path, checksums: bool) -> str | None:
        """What is wrong with a file, in a few words, or None. checksums: read it from end to end."""
        wrong, before = fault(path), self.of_file(path)
        if wrong or before is None:
            return wrong
        same = path.stat().st_size == before["size"] and (not checksums or sha256(path) == before["sha256"])
        return None if same else "is not as it was fetched"

    def add_address(self, url: str, path: Path) -> None:
        """Record what came from an address."""
        self._add("addresses", url, sha256(path))

    def add_file(self, path: Path) -> None:
        """Record a file that was put in place."""
        now = {"size": path.stat().st_size, "sha256": sha256(path)}
        self._add("files", path.relative_to(self.folder).as_posix(), now)

    def _add(self, part: str, key: str, value: Any) -> None:
        self._content[part][key] = value
        folders.write_safely(self.path, json.dumps(self._content, indent=1, sort_keys=True).encode())


def fault(path: Path) -> str | None:
    """What is wrong with a file, as far as its size and beginning tell, or None; HDF5 files are opened."""
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
    import h5py  # loads numpy, which takes longer than all the rest

    if not h5py.is_hdf5(path):
        return "is no HDF5 file"
    try:
        h5py.File(path, "r").close()
    except OSError:
        return "is cut off"
    return None
