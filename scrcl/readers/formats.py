"""The registry of file formats: each format is one file in this folder and one line below.

The module of a format has three functions.

- `locate(path)` returns the file or folder to read when path has the format, else None. It looks at what is there, not
  at names, and raises nothing.
- `read(path, name, max_memory)` reads the AnnData at what `locate` returned; `name` is the library of its images. A
  format that can leave large values on disk decides by `max_memory`, see `h5ad.read`.
- `files(path)` returns the files or folders that decide what is read, whose hashes a run records.

Formats are tried in this order. Both tasks take all of them: the cells of an imaging platform are spots for one task
and cells for the other. Modules are loaded when there is a path to read, so that --help and the errors that list
formats take no time.
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
    module
        The module in `scrcl.readers` that reads it.
    """

    what: str
    module: str

    @property
    def reader(self) -> ModuleType:
        """The module that reads the format."""
        return import_module(f"scrcl.readers.{self.module}")


# Folders of other platforms hold 10x matrices too, so theirs stand before 10x; h5ad takes what is damaged HDF5.
FORMATS = {
    "visium": Format("Visium (HD)", "visium"),
    "xenium": Format("Xenium", "xenium"),
    "cosmx": Format("CosMx", "cosmx"),
    "merscope": Format("MERSCOPE", "merscope"),
    "stereoseq": Format("Stereo-seq (GEF)", "stereoseq"),
    "spatialdata": Format("SpatialData zarr", "sdata_zarr"),
    "h5mu": Format("h5mu", "h5mu"),
    "loom": Format("loom", "loom"),
    "zarr": Format("AnnData zarr", "anndata_zarr"),
    "h5ad": Format("h5ad", "h5ad"),
    "10x": Format("10x (h5 or mtx)", "tenx"),
    "table": Format("tables of numbers", "text_matrix"),
}


def in_words() -> str:
    """Return a phrase that lists all formats."""
    *most, last = (entry.what for entry in FORMATS.values())
    return f"{', '.join(most)} and {last}"


class Located(NamedTuple):
    """A file or folder, and the module that reads it."""

    path: Path
    reader: ModuleType


def locate(path: Path) -> Located | None:
    """Return what to read at a path, or None when the path has none of the formats.

    Parameters
    ----------
    path
        A file or folder.

    Returns
    -------
    The file or folder to read, and the reader of the first format that fits.
    """
    for entry in FORMATS.values():
        if (found := entry.reader.locate(path)) is not None:
            return Located(found, entry.reader)
    return None
