"""Read the GEF files of STOmics' Stereo-seq: square bins, or the cells that its software SAW made of them.

They are HDF5 files, which h5py reads directly. spatialdata-io reads only the whole folder of an early SAW, images and
outlines of cells included.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.disk import hdf5
from scrcl.keys import SPATIAL
from scrcl.messages import UserError, log, one_line
from scrcl.readers import parts
from scrcl.readers.h5ad import require_sound

CELLS, BINS = "cellBin", "geneExp"  # groups of a GEF file
BIN = 50  # DNBs along the side of a square; 50 are 25 um, and usual
PARTS = {"gef": (r"tissue(?:cut)?\.gef", r"adjusted\.cellbin\.gef", r"cellbin\.gef", r"(?<!raw\.)gef", r"raw\.gef")}
INNER = (
    *("", "outs/feature_expression", "feature_expression"),  # of SAW 8
    *(f"{place}{inner}" for place in ("", "result/") for inner in ("04.tissuecut", "041.cellcut", "02.count")),
)
SAMPLES_IN = partial(parts.complete_in, patterns=PARTS)
LEFT_OUT = ("id", "x", "y", "offset")  # columns of cells that are kept elsewhere, or mean nothing outside of the file


def locate(path: Path) -> Path | None:
    """Return a GEF file that is named itself, or the folder that holds one or several; None for another."""
    if path.is_dir():
        return parts.root_of(path, INNER, SAMPLES_IN)
    return path if hdf5.names(path) & {CELLS, BINS} else None


def files(path: Path) -> list[Path]:
    """Return the GEF files that are read."""
    return [path] if path.is_file() else parts.files_at(path, INNER, SAMPLES_IN)


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read one GEF file, or those of several chips.

    Of the files of one chip in a folder, the one with the squares in the tissue is read, or else that with cells.

    Parameters
    ----------
    path
        What `locate` returned.
    name, max_memory
        Not used: there are no images, and the counts fit in memory.

    Returns
    -------
    Cells or squares x genes, counts in X. obsm['spatial'] is in DNBs, which are 0.5 um apart: the centre of a cell, or
    the corner of a square. Several chips are told apart by obs['library_id'].

    Raises
    ------
    UserError
        When a file is damaged, or holds neither cells nor squares.
    """
    if path.is_file():
        return _read(path)
    samples = parts.samples_at(path, INNER, SAMPLES_IN)
    for found in samples.values():
        log.info("%s is read; another file is read where it is named itself.", found["gef"])
    return parts.join_sections({sample: _read(found["gef"]) for sample, found in samples.items()}, path)


def _read(path: Path) -> ad.AnnData:
    """Read one file: its cells, or else its squares."""
    if h5py.is_hdf5(path):
        require_sound(path)
    try:
        with h5py.File(path) as file:
            if CELLS not in file and BINS not in file:
                raise ValueError(f"it has neither /{CELLS} nor /{BINS}")
            adata = _cells(file[CELLS]) if CELLS in file else _squares(file[BINS], path)
    except Exception as error:  # h5py, numpy and scipy raise many types for damaged files
        raise UserError(f"{path} cannot be read as GEF ({one_line(error)}); download or copy it again.") from error
    adata.var_names_make_unique()
    return adata


def _cells(group: h5py.Group) -> ad.AnnData:
    """Read the cells, whose genes stand one cell after the other in cellExp."""
    cells, counts = pd.DataFrame(group["cell"][:]), group["cellExp"][:]
    var = _genes(group["gene"])
    starts = np.append(cells["offset"].to_numpy(dtype=np.int64), len(counts))
    _require(bool(starts[0] == 0 and (np.diff(starts) >= 0).all() and (counts["geneID"] < len(var)).all()))
    matrix = sparse.csr_matrix(
        (counts["count"].astype(np.float32), counts["geneID"].astype(np.int64), starts), shape=(len(cells), len(var))
    )
    obs = cells.drop(columns=[name for name in LEFT_OUT if name in cells]).set_axis(cells["id"].astype(str).to_numpy())
    return ad.AnnData(matrix, obs=obs, var=var, obsm={SPATIAL: cells[["x", "y"]].to_numpy(dtype=np.float64)})


def _squares(group: h5py.Group, path: Path) -> ad.AnnData:
    """Read the squares of 50 x 50 DNBs, or those that come nearest; expression has one gene after the other."""
    sizes = sorted(int(name.removeprefix("bin")) for name in group if name.removeprefix("bin").isdecimal())
    size = BIN if BIN in sizes else max((size for size in sizes if BIN % size == 0), default=0)
    size = size or min(sizes, key=lambda size: abs(size - BIN))
    side = max(size, BIN) if BIN % size == 0 else size
    log.info("%s has squares of %s DNBs a side: those of %d are read.", path.name, ", ".join(map(str, sizes)), size)
    if side != size:
        log.info("They are joined to squares of %d x %d DNBs (%g um).", side, side, side / 2)
    found, genes = group[f"bin{size}/expression"][:], group[f"bin{size}/gene"]
    var, n_places = _genes(genes), genes["count"].astype(np.int64)
    _require(n_places.sum() == len(found))
    x, y = (found[axis].astype(np.int64) for axis in "xy")
    if side != size:
        x, y = x // side * side, y // side * side
    height = np.ptp(y) + 1
    rows, places = pd.factorize((x - x.min()) * height + (y - y.min()), sort=True)
    matrix = sparse.coo_matrix(
        (found["count"].astype(np.float32), (rows, np.repeat(np.arange(len(var)), n_places))),
        shape=(len(places), len(var)),
    )
    corners = np.column_stack([places // height + x.min(), places % height + y.min()])
    obs = pd.DataFrame(index=[f"{x}_{y}" for x, y in corners])
    return ad.AnnData(matrix.tocsr(), obs=obs, var=var, obsm={SPATIAL: corners.astype(np.float64)})


def _genes(table: h5py.Dataset) -> pd.DataFrame:
    """Return the names of the genes, and their ids where a newer file has both."""
    columns = table.dtype.names
    ids, names = (
        next((pd.Series(table[name]).str.decode("utf-8").to_numpy() for name in known if name in columns), None)
        for known in (("geneID",), ("geneName", "gene", "geneID"))
    )
    return pd.DataFrame({} if ids is None else {"gene_ids": ids}, index=names)


def _require(sound: bool) -> None:
    """Raise ValueError unless the parts of a file fit together."""
    if not sound:
        raise ValueError("its counts do not belong to its cells and genes")
