"""The registry of file formats: each format is one file in this folder and one line below.

The module of a format has three functions.

- `locate(path)` returns the file or folder to read when path has the format, else None.
- `read(path, name, max_memory)` reads the AnnData at what `locate` returned; `name` is the library of its images. A
  format that can leave large values on disk decides by `max_memory`, see `h5ad.read`.
- `files(path)` returns the files that decide what is read, whose hashes a run records.

Modules are loaded when there is a path to read, so that --help and the errors that list formats take no time.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

Task = Literal["SC", "ST"]


class Format(NamedTuple):
    """One file format.

    Attributes
    ----------
    what
        What it is, in the words of --help and of errors.
    tasks
        The tasks that take it.
    module
        The module in `scrcl.readers` that reads it.
    """

    what: str
    tasks: tuple[Task, ...]
    module: str

    @property
    def reader(self) -> ModuleType:
        """The module that reads the format."""
        return import_module(f"scrcl.readers.{self.module}")


FORMATS = {
    "visium": Format(
        "a Visium or Visium HD folder (spatial/ in it, in outs/ or in binned_outputs/)", ("ST",), "visium"
    ),
    "h5ad": Format("an h5ad file, or a folder with one", ("SC", "ST"), "h5ad"),
}


def in_words(task: Task) -> str:
    """Return a phrase that lists the formats a task takes."""
    return " or ".join(entry.what for entry in FORMATS.values() if task in entry.tasks)


class Located(NamedTuple):
    """A file or folder, and the module that reads it."""

    path: Path
    reader: ModuleType


def locate(path: Path, task: Task) -> Located | None:
    """Return what to read at a path, or None when the path has none of the task's formats.

    Parameters
    ----------
    path
        A file or folder.
    task
        SC for cells, ST for spots.

    Returns
    -------
    The file or folder to read, and the reader of the first format that fits.
    """
    for entry in FORMATS.values():
        if task in entry.tasks and (found := entry.reader.locate(path)) is not None:
            return Located(found, entry.reader)
    return None
