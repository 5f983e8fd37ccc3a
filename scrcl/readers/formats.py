"""The registry of file formats: a format is one file here and one line below.

A format's module has

- `locate(path)`: the file or folder to read where path is of the format, else None;
- `read(path, name, max_memory)`: the AnnData at what `locate` gave; `name` is the library of its images; a format that
  can leave large values on the disk does so by `max_memory`, see `h5ad.read`;
- `files(path)`: the files that decide what is read, whose hashes a run records.

Modules are loaded when there is a path to read, so that --help and the errors that list formats take no time.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

Task = Literal["SC", "ST"]


class Format(NamedTuple):
    """What a format is, in the words of --help and of errors; the tasks that take it; its module."""

    what: str
    tasks: tuple[Task, ...]
    module: str

    @property
    def reader(self) -> ModuleType:
        """The module that reads it."""
        return import_module(f"scrcl.readers.{self.module}")


FORMATS = {
    "visium": Format(
        "a Visium or Visium HD folder (spatial/ in it, in outs/ or in binned_outputs/)", ("ST",), "visium"
    ),
    "h5ad": Format("an h5ad file, or a folder with one", ("SC", "ST"), "h5ad"),
}


def in_words(task: Task) -> str:
    """The formats that a task takes."""
    return " or ".join(entry.what for entry in FORMATS.values() if task in entry.tasks)


class Located(NamedTuple):
    """A file or folder, and the module that reads it."""

    path: Path
    reader: ModuleType


def locate(path: Path, task: Task) -> Located | None:
    """What is to be read at path, by the first format of the task that it is of; None where it is of none."""
    for entry in FORMATS.values():
        if task in entry.tasks and (found := entry.reader.locate(path)) is not None:
            return Located(found, entry.reader)
    return None
