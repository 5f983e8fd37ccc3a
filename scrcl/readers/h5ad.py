"""Read h5ad files, after a check for damage that could crash Python; large values can stay on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from math import inf, prod
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
from anndata.io import read_elem, sparse_dataset

from scrcl.contents.values import require_sound_indices
from scrcl.disk import hdf5
from scrcl.disk.hdf5 import missing_filters
from scrcl.keys import COUNT_LAYERS, LOG1P, SPATIAL
from scrcl.messages import UserError, log
from scrcl.readers.elements import from_group, in_words, prepare_filters, read_elements

IN_MEMORY_UP_TO = 2.0  # GiB of values; a run in memory needs up to five times as much
RESULT = "result.h5ad"  # what a run writes: data only where it is named itself
LEAST_SHARE = 20  # no file is compressed by a larger factor, so a smaller file needs no closer look


def locate(path: Path) -> Path | None:
    """Return the file itself if it is AnnData in HDF5, or the only h5ad file in a folder; None for anything else.

    Damaged HDF5 counts, and so does anything that is called h5ad and not known as something else: `read` says what is
    wrong with it. A result.h5ad that a run wrote does not count in a folder.
    """
    if path.is_file():
        names = hdf5.names(path)
        if names:
            return path if names & {"obs", "var"} and "mod" not in names else None
        return path if path.suffix.lower() == ".h5ad" or h5py.is_hdf5(path) else None
    found = sorted(file for file in path.glob("*.h5ad") if file.name != RESULT)
    return found[0] if len(found) == 1 else None


def files(path: Path) -> list[Path]:
    """Return the files that decide what is read."""
    return [path]


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read an h5ad file into memory, or leave its values on disk when they are large and may stay there.

    Parameters
    ----------
    path
        The file.
    name
        The name of the data set; an h5ad file does not need it.
    max_memory
        None reads everything into memory. Otherwise this is the memory limit in GiB (0 for no limit), and values stay
        on disk when they take more than 2 GiB or more than a tenth of the limit.

    Raises
    ------
    UserError
        When the file is not an h5ad file, or is damaged.
    """
    limit = in_memory_up_to(max_memory)
    if path.stat().st_size >= limit / LEAST_SHARE and values_size(path) > limit:
        say_that_values_stay(path)
        return open_in_place(path)
    return _checked(path, _read)


def in_memory_up_to(max_memory: float | None) -> float:
    """Return up to how many bytes values are read into memory, by the `max_memory` of `read`."""
    if max_memory is None:
        return inf
    return min(IN_MEMORY_UP_TO, max_memory / 10 or IN_MEMORY_UP_TO) * 2**30


def say_that_values_stay(path: Path) -> None:
    """Say that values are not read into memory, and what follows from it."""
    log.info("%s is large: its values stay on the disk, and the result will hold only the highly variable genes.", path)


def _read(path: Path) -> ad.AnnData:
    """Read all of a file, or all of it that can be read."""
    try:
        return ad.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many types
        return read_elements(path, error)


def open_in_place(path: Path) -> ad.AnnData:
    """Open an h5ad file with X, the layers and .raw.X left on disk.

    Only obs, var and obsm are read. The file stays open as long as the AnnData exists.

    Raises
    ------
    UserError
        As `read` does.
    """
    return _checked(path, _opened)


def _checked(path: Path, how: Callable[[Path], ad.AnnData]) -> ad.AnnData:
    """Read an h5ad file with `how`, after the checks that keep damage from crashing Python."""
    if not h5py.is_hdf5(path):
        raise UserError(f"{path} is not an h5ad file: it is no HDF5 file at all, or was cut off at its start.")
    require_sound(path)
    prepare_filters(path)
    try:
        adata = how(path)
    except UserError:
        raise
    except Exception as error:  # h5py and anndata raise many types for damaged files
        raise UserError(f"{path} {in_words(error)}.") from error
    require_sound_indices(adata)
    return adata


def require_sound(path: Path) -> None:
    """Raise UserError for an HDF5 file that crashes its reader, or whose reading never ends."""
    damage = hdf5.damage(path)
    if damage:
        raise UserError(f"{path} is damaged: {damage}; download or save it again.")


def values_size(path: Path) -> int:
    """Return how many bytes the expression values of an h5ad file take in memory.

    Counted are X, .raw and the layers that usually hold counts. A sparse matrix counts with 8 bytes per stored value
    and 4 per cell (float32 CSR with int32 indices), a dense one with 4 bytes per value.

    Parameters
    ----------
    path
        The file. Only its description of itself is read, not its values.

    Returns
    -------
    Bytes; 0 when the file is not an h5ad file or is damaged.
    """
    if not h5py.is_hdf5(path) or hdf5.damage(path):
        return 0
    try:
        with h5py.File(path) as file:
            return size_of(file)
    except Exception:  # whatever is wrong with the file, read() will meet it and report it
        return 0


def size_of(group: Any) -> int:
    """Return how many bytes the expression values of an AnnData take in memory, in a group of HDF5 or zarr."""
    names = ["X", "raw/X", "raw.X", *(f"layers/{name}" for name in COUNT_LAYERS)]
    return sum(_size(group[name]) for name in names if name in group)


def _size(item: Any) -> int:
    """Return the bytes that one item takes in memory."""
    if hasattr(item, "shape"):
        return 4 * prod(item.shape or (0,))
    if {"data", "indptr"} <= set(item.keys()):
        return 8 * item["data"].shape[0] + 4 * item["indptr"].shape[0]
    return 0


def _opened(path: Path) -> ad.AnnData:
    """Return an h5ad file as an AnnData whose matrices stay on disk."""
    with ExitStack() as on_error:
        file = on_error.enter_context(h5py.File(path))
        if isinstance(file.get("obs"), h5py.Dataset) or "raw.X" in file:  # a file from before anndata 0.7
            return ad.read_h5ad(path, backed="r")  # leaves X on disk, but reads the layers
        adata = from_group(file, path, _lazy, skip=("varm", "obsp", "varp", "uns"))
        for key in (SPATIAL, LOG1P):
            with suppress(Exception):  # the run goes on without an image
                adata.uns[key] = read_elem(file["uns"][key])
        on_error.pop_all()  # the AnnData needs the file open from now on
        return adata


def _lazy(item: h5py.Group | h5py.Dataset) -> Any:
    """Return a matrix as something that can be sliced on disk, and anything else as read.

    Only the values are large: tables of obsm and images of uns are read.
    """
    if not item.name.startswith(("/X", "/layers/", "/raw/")):
        return read_elem(item)
    if missing_filters(item):
        raise OSError("it cannot be unpacked")
    if isinstance(item, h5py.Dataset) and item.ndim == 2:
        return item
    kind = item.attrs.get("encoding-type", item.attrs.get("h5sparse_format"))
    if isinstance(item, h5py.Group) and kind in ("csr_matrix", "csc_matrix", "csr", "csc"):
        return sparse_dataset(item)
    return read_elem(item)
