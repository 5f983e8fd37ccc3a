"""Read an AnnData element by element, so that one that cannot be read does not keep the others from being read."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

from scrcl.disk.hdf5 import missing_filters
from scrcl.messages import UserError, log, one_line

SPARSE = {"csr_matrix": sparse.csr_matrix, "csc_matrix": sparse.csc_matrix}
MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp", "uns")
Read = Callable[[h5py.Group | h5py.Dataset], Any]


def read_element(item: h5py.Group | h5py.Dataset) -> Any:
    """Read one element as anndata does, but sparse matrices of half precision, which scipy lacks, as float32."""
    form = SPARSE.get(str(item.attrs.get("encoding-type")))
    if form is None or item["data"].dtype != np.float16:
        return read_elem(item)
    parts = (item["data"][()].astype(np.float32), item["indices"][()], item["indptr"][()])
    return form(parts, shape=tuple(item.attrs["shape"]))


def prepare_filters(path: Path) -> None:
    """Load the package that unpacks what HDF5 itself does not, where a file needs it and the package is there."""
    with suppress(OSError, RuntimeError, ImportError), h5py.File(path) as file:
        if missing_filters(file):
            importlib.import_module("hdf5plugin")


def read_elements(path: Path, error: Exception) -> ad.AnnData:
    """Read all that can be read of an h5ad file, and say what cannot.

    Parameters
    ----------
    path
        The file.
    error
        What reading all of it has raised.

    Raises
    ------
    UserError
        When the names of cells or genes, or all values, cannot be read; with the cause.
    """
    try:
        with h5py.File(path) as file:
            return from_group(file, path, error=error)
    except (OSError, RuntimeError) as fault:
        raise UserError(f"{path} {in_words(fault)}.") from fault


def from_group(
    group: h5py.Group,
    path: Path,
    read: Read = read_element,
    error: Exception | None = None,
    skip: Collection[str] = (),
) -> ad.AnnData:
    """Read all that can be read of an AnnData in an HDF5 group, as `read_elements` does of a file.

    Parameters
    ----------
    group
        The group with obs and var.
    path
        The file, as named in messages.
    read
        How one element is read.
    error
        What reading all at once has raised.
    skip
        Names of `MAPPINGS` that are not read.

    Raises
    ------
    UserError
        As `read_elements` does.
    """
    if not all(isinstance(group.get(name), h5py.Group) for name in ("obs", "var")):
        cause = in_words(error) if error is not None and set(group) >= {"obs", "var"} else (
            f"is no AnnData: it holds {', '.join(list(group)[:8]) or 'nothing'}, where obs and var are needed"
        )  # fmt: skip
        raise UserError(f"{path} {cause}.")
    left_out: dict[str, str] = {}

    def attempt(name: str, item: h5py.Group | h5py.Dataset) -> Any:
        try:
            return read(item)
        except Exception as fault:  # h5py and anndata raise many types
            left_out[name] = _cause(item, fault)
            return None

    parts: dict[str, Any] = {name: _table(group[name], name, left_out, path) for name in ("obs", "var")}
    if "X" in group:
        parts["X"] = attempt("X", group["X"])
    for slot in MAPPINGS:
        if slot not in skip and isinstance(group.get(slot), h5py.Group):
            found = {key: attempt(f"{slot}[{key!r}]", item) for key, item in group[slot].items()}
            parts[slot] = {key: value for key, value in found.items() if value is not None}
    raw = group.get("raw")
    if isinstance(raw, h5py.Group) and "X" in raw and isinstance(raw.get("var"), h5py.Group):
        values = attempt(".raw", raw["X"])
        if values is not None:
            parts["raw"] = {"X": values, "var": _table(raw["var"], "raw/var", left_out, path)}
    if left_out and parts.get("X") is None and not parts.get("layers") and "raw" not in parts:
        cause = next(cause for name, cause in left_out.items() if not name.startswith(("obs", "var")))
        raise UserError(f"{path} {cause}.")
    _say(left_out, path)
    return _assembled(parts, path)


def _assembled(parts: dict[str, Any], path: Path) -> ad.AnnData:
    """Return the AnnData of the parts, or raise UserError when they do not fit together."""
    try:
        return ad.AnnData(**parts)
    except Exception as fault:  # shapes that do not fit
        raise UserError(
            f"{path} is damaged: its parts do not fit together ({one_line(fault)}); save or download it again."
        ) from fault


def _table(group: h5py.Group, name: str, left_out: dict[str, str], path: Path) -> pd.DataFrame:
    """Return obs or var, without the columns that cannot be read."""
    try:
        table = read_elem(group)
        if isinstance(table, pd.DataFrame):
            return table
        raise TypeError("it is no table")
    except Exception as fault:
        index = group.attrs.get("_index", "_index")
        try:
            names = pd.Index(np.asarray(read_elem(group[index])).astype(str), dtype=object)
        except Exception:
            raise UserError(f"{path} {_cause(group, fault)}.") from fault
    columns = {}
    for key in _columns(group, index):
        try:
            values = read_elem(group[key])
            columns[key] = pd.Series(values, index=names)
        except Exception as fault:
            left_out[f"{name}[{key!r}]"] = _cause(group[key], fault)
    return pd.DataFrame(columns, index=names)


def _columns(group: h5py.Group, index: str) -> Iterator[str]:
    """Yield the columns of a table in their order, without its index."""
    order = [str(key) for key in group.attrs.get("column-order", list(group))]
    yield from (key for key in order if key in group and key != index)


def _say(left_out: dict[str, str], path: Path) -> None:
    """Log what was left out, one line for each cause."""
    for cause in dict.fromkeys(left_out.values()):
        names = [name for name, own in left_out.items() if own == cause]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        log.warning("%s: left out %s%s, which %s.", path.name, ", ".join(names[:5]), more, cause)


def _cause(item: h5py.Group | h5py.Dataset, error: BaseException) -> str:
    """Return why an element cannot be read, in words that follow its name."""
    filters = missing_filters(item)
    if filters:
        return (
            f"is compressed with {', '.join(filters)}, which needs a package: `pip install hdf5plugin`, and run again"
        )
    return in_words(error)


def in_words(error: BaseException) -> str:
    """Return what an error says of a file or element, in words that follow its name."""
    told = one_line(error)
    if isinstance(error, ImportError):
        named = re.search(r"name '(\w+)'", told)  # anndata says: cannot import name 'awkward'
        package = named[1] if named else error.name or told
        return f"needs a package: `pip install {package}`, and run again"
    if type(error).__name__ == "IORegistryError":
        return f"is written in a way that this anndata does not know ({told}); `pip install --upgrade anndata` may help"
    if "truncated file" in told:
        return f"is cut off ({told}); download or save it again"
    return f"is damaged ({told}); download or save it again"
