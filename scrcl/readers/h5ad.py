"""Read h5ad files: checked first, since damage in them can crash Python, and left on the disk where they are large."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
from anndata.io import read_elem, sparse_dataset

from scrcl.contents.values import require_sound_indices
from scrcl.disk import hdf5
from scrcl.keys import COUNT_LAYERS
from scrcl.messages import UserError, log, one_line

IN_MEMORY_UP_TO = 2.0  # GiB of values, of which a run in memory holds up to five times as much
LEAST_SHARE = 20  # no file is compressed by more


def locate(path: Path) -> Path | None:
    """The file itself, or the only h5ad file in a folder; None for anything else."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.h5ad"))
    return found[0] if len(found) == 1 else None


def files(path: Path) -> list[Path]:
    """The files that decide what is read."""
    return [path]


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read an h5ad file, into memory or, where it is large and may stay there, with its values on the disk.

    Parameters
    ----------
    path
        The file.
    name
        Of the data set; an h5ad file does not need it.
    max_memory
        None to read all into memory. Else values of more than 2 GiB stay on the disk, or of more than a tenth of so many
        GiB (0 for no limit).

    Raises
    ------
    UserError
        For a file that is no h5ad file, or is damaged.
    """
    if max_memory is not None:
        limit = min(IN_MEMORY_UP_TO, max_memory / 10 or IN_MEMORY_UP_TO) * 2**30
        if path.stat().st_size >= limit / LEAST_SHARE and values_size(path) > limit:
            log.info(
                "%s is large: its values stay on the disk, and the result will hold the highly variable genes alone.",
                path,
            )
            return open_in_place(path)
    return _checked(path, ad.read_h5ad)


def open_in_place(path: Path) -> ad.AnnData:
    """Open an h5ad file with X, the layers and .raw.X left on the disk; obs, var and obsm are read, nothing else.

    The file stays open as long as the AnnData is there.

    Raises
    ------
    UserError
        As `read` does.
    """
    return _checked(path, _opened)


def _checked(path: Path, how: Callable[[Path], ad.AnnData]) -> ad.AnnData:
    if not h5py.is_hdf5(path):
        raise UserError(f"{path} is not an h5ad file: it is no HDF5 file at all, or was cut off at its start.")
    require_sound(path)
    try:
        adata = how(path)
    except Exception as error:  # h5py and anndata raise many types for damaged files
        raise UserError(
            f"{path} cannot be read as h5ad ({one_line(error)}); it may be cut off, so download or save it again."
        ) from error
    require_sound_indices(adata)
    return adata


def require_sound(path: Path) -> None:
    """Raise UserError for an HDF5 file that cannot be read without a crash, or without end."""
    damage = hdf5.damage(path)
    if damage:
        raise UserError(f"{path} is damaged: {damage}; download or save it again.")


def values_size(path: Path) -> int:
    """Bytes of the expression values of an h5ad file in memory: X, .raw and the layers that usually hold counts.

    A sparse matrix counts with 8 bytes per stored value and 4 per cell (float32 CSR with int32 indices), a dense one
    with 4 per value. Read from what the file says about itself; 0 for what is no h5ad file, or damaged.
    """
    if not h5py.is_hdf5(path) or hdf5.damage(path):
        return 0
    try:
        with h5py.File(path) as file:
            names = ["X", "raw/X", "raw.X", *(f"layers/{name}" for name in COUNT_LAYERS)]
            return sum(_size(file[name]) for name in names if name in file)
    except Exception:  # whatever is odd about it, read will meet it and say it
        return 0


def _size(item: h5py.Group | h5py.Dataset) -> int:
    if isinstance(item, h5py.Dataset):
        return 4 * prod(item.shape or (0,))
    if {"data", "indptr"} <= item.keys():
        return 8 * len(item["data"]) + 4 * len(item["indptr"])
    return 0


def _opened(path: Path) -> ad.AnnData:
    with ExitStack() as on_error:
        file = on_error.enter_context(h5py.File(path))
        if isinstance(file["obs"], h5py.Dataset) or "raw.X" in file:  # from before anndata 0.7
            return ad.read_h5ad(path, backed="r")  # which reads the layers
        raw = file.get("raw")
        with_raw = isinstance(raw, h5py.Group)
        adata = ad.AnnData(
            X=_lazy(file["X"]) if "X" in file else None,
            obs=read_elem(file["obs"]),
            var=read_elem(file["var"]),
            obsm=read_elem(file["obsm"]) if "obsm" in file else None,
            layers={name: _lazy(item) for name, item in file["layers"].items()} if "layers" in file else None,
            raw={"X": _lazy(raw["X"]), "var": read_elem(raw["var"])} if with_raw else None,
        )
        on_error.pop_all()
        return adata


def _lazy(item: h5py.Group | h5py.Dataset) -> Any:
    """A matrix as something that can be sliced on disk; anything else as read."""
    if isinstance(item, h5py.Dataset) and item.ndim == 2:
        return item
    kind = item.attrs.get("encoding-type", item.attrs.get("h5sparse_format"))
    if isinstance(item, h5py.Group) and kind in ("csr_matrix", "csc_matrix", "csr", "csc"):
        return sparse_dataset(item)
    return read_elem(item)
