"""Read AnnData in a zarr store: a folder of version 2 or 3, or the zip file of one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata as ad
from anndata.experimental import read_dispatched
from anndata.io import sparse_dataset

from scrcl.contents.values import require_sound_indices
from scrcl.messages import UserError, one_line
from scrcl.readers.h5ad import in_memory_up_to, say_that_values_stay, size_of

OTHERS = ("tables", "table", "images", "points", "shapes", "labels")  # a SpatialData store has some of them
METADATA = (".zattrs", "zarr.json")  # of version 2 and 3


def locate(path: Path) -> Path | None:
    """Return a folder or zip file that holds an AnnData at its top."""
    try:
        names = _top(path)
        if path.is_dir():
            return path if _is_anndata(lambda name: (path / name).read_bytes(), names) else None
        with zipfile.ZipFile(path) as file:
            return path if _is_anndata(file.read, names) else None
    except (OSError, zipfile.BadZipFile):
        return None


def _top(path: Path) -> set[str]:
    """Return the names at the top of a folder or zip file."""
    if path.is_dir():
        return {entry.name for entry in path.iterdir()}
    with zipfile.ZipFile(path) as file:
        return {name.split("/")[0] for name in file.namelist()}


def _is_anndata(content: Callable[[str], bytes], names: set[str]) -> bool:
    """Return whether a store says that it is an AnnData or, if it is an old one that says nothing, looks like one."""
    if not names & {*METADATA, ".zgroup"}:
        return False
    for name in METADATA:
        try:
            found = json.loads(content(name)) if name in names else {}
            kind = {**found, **found.get("attributes", {})}.get("encoding-type")
        except (OSError, ValueError, AttributeError, TypeError, KeyError, zipfile.BadZipFile, RuntimeError):
            continue
        if kind is not None:
            return kind == "anndata"
    return {"obs", "var"} <= names and not names & set(OTHERS)


def files(path: Path) -> list[Path]:
    """Return the folder or file that decides what is read."""
    return [path]


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read an AnnData from a zarr store into memory, or leave its values on disk when they are large and may stay.

    Parameters
    ----------
    path
        The folder or zip file.
    name
        Not used: there are no images.
    max_memory
        As for `h5ad.read`. A zip file is always read into memory.

    Raises
    ------
    UserError
        When the store is damaged.
    """
    from zarr import open_group
    from zarr.storage import ZipStore

    try:
        missing = {"obs", "var"} - _top(path)
        if missing:  # anndata would number the cells or genes
            raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
        if path.is_dir() and size_of(open_group(path, mode="r")) > in_memory_up_to(max_memory):
            say_that_values_stay(path)
            adata = open_in_place(path)
        else:
            with nullcontext(path) if path.is_dir() else ZipStore(path, mode="r") as store:
                adata = ad.read_zarr(store)
    except Exception as error:  # zarr and anndata raise many types for damaged stores
        raise UserError(
            f"{path} cannot be read as AnnData in zarr ({one_line(error)}); copy or save it again as a whole."
        ) from error
    require_sound_indices(adata)
    return adata


def open_in_place(path: Path) -> ad.AnnData:
    """Open an AnnData in the folder of a zarr store with X, the layers and .raw.X left on disk."""
    from zarr import open_group

    def in_place(read: Callable[[Any], Any], name: str, item: Any, iospec: Any) -> Any:
        if iospec.encoding_type == "anndata":
            return ad.AnnData(**{key: read_dispatched(item[key], in_place) for key in item})
        if f"{name}/".startswith(("X/", "/X/", "layers/", "/layers/", "raw/X/", "/raw/X/")):
            if iospec.encoding_type in ("csr_matrix", "csc_matrix"):
                return sparse_dataset(item)
            if iospec.encoding_type == "array":
                return item
        return read(item)

    return read_dispatched(open_group(path.resolve(), mode="r"), in_place)
