"""Read the RNA in an h5mu file, in which MuData keeps several modalities of the same cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem

from scrcl.contents.values import require_sound_indices
from scrcl.disk import hdf5
from scrcl.messages import UserError, log, one_line
from scrcl.readers.h5ad import require_sound

RNA = ("rna", "gex")  # usual names of the modality that is read; where there is none, the first is


def locate(path: Path) -> Path | None:
    """Return a file that has the groups of an h5mu file."""
    return path if {"mod", "obs"} <= hdf5.names(path) else None


def files(path: Path) -> list[Path]:
    """Return the files that decide what is read."""
    return [path]


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read one modality, with the columns of obs that are about all modalities.

    Parameters
    ----------
    path
        The file.
    name, max_memory
        Not used: there are no images, and the values are read into memory.

    Returns
    -------
    The modality rna, else gex, else the first. Its own columns of obs win over those of the same name that are about
    all modalities.

    Raises
    ------
    UserError
        When the file is damaged or has no modality.
    """
    require_sound(path)
    try:
        with h5py.File(path) as file:
            modality = _modality(file["mod"])
            adata = read_elem(file["mod"][modality])
            if not isinstance(adata, ad.AnnData):
                raise ValueError(f"mod/{modality} is no AnnData")
            _add_columns(adata, read_elem(file["obs"]), modality)
    except Exception as error:  # h5py and anndata raise many types for damaged files
        raise UserError(f"{path} cannot be read as h5mu ({one_line(error)}); download or save it again.") from error
    require_sound_indices(adata)
    return adata


def _modality(group: h5py.Group) -> str:
    """Return the name of the modality to read, and log which it is."""
    names = [str(name) for name in group.attrs.get("mod-order", []) if name in group] or sorted(group)
    if not names:
        raise ValueError("it holds no modality")
    by_lower = {name.lower(): name for name in reversed(names)}
    modality = next((by_lower[name] for name in RNA if name in by_lower), names[0])
    log.info("The modality %s is read, of %s.", modality, ", ".join(names))
    return modality


def _add_columns(adata: ad.AnnData, table: pd.DataFrame, modality: str) -> None:
    """Add the columns that are about all modalities to obs, for the cells of this one."""
    if not table.index.is_unique:
        return
    table = table.rename(columns=lambda column: column.removeprefix(f"{modality}:"))
    table = table.loc[:, ~table.columns.duplicated() & ~table.columns.isin(adata.obs.columns)]
    adata.obs = adata.obs.join(table)
