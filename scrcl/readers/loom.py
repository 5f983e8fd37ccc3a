"""Read loom files.

The few groups of the file are read directly: loompy, which anndata's `read_loom` needs, would be one more package, and
holds the whole matrix in memory twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.disk import hdf5
from scrcl.messages import UserError, log, one_line
from scrcl.readers.h5ad import require_sound

CELL_NAMES = (
    "CellID",
    "cell_names",
    "obs_names",
    "cell_id",
    "cellid",
    "CellIDs",
    "barcode",
    "barcodes",
    "Cell",
    "cell",
)
GENE_NAMES = (
    *("Gene", "gene_names", "var_names", "GeneName", "gene_name", "Genes", "gene", "gene_symbols", "Symbol", "symbol"),
    *("Accession", "accession", "gene_ids", "gene_id", "EnsemblID", "ensembl_id"),
)
AT_ONCE = 2**25  # values of the dense matrix that are read together


def locate(path: Path) -> Path | None:
    """Return a file that has the groups of a loom file."""
    return path if {"matrix", "row_attrs", "col_attrs"} <= hdf5.names(path) else None


def files(path: Path) -> list[Path]:
    """Return the files that decide what is read."""
    return [path]


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read the matrix, the layers and the attributes of a loom file.

    Parameters
    ----------
    path
        The file.
    name, max_memory
        Not used: there are no images, and the values are read into memory.

    Returns
    -------
    Cells x genes, float32 CSR. Attributes of one value per cell or gene become obs and var, those of several obsm and
    varm. Cells and genes without a name known as such are named by the first attribute that is different for each of
    them, or numbered.

    Raises
    ------
    UserError
        When the file is damaged.
    """
    require_sound(path)
    try:
        with h5py.File(path) as file:
            n_genes, n_cells = file["matrix"].shape
            obs, obsm = _attributes(file["col_attrs"], n_cells)
            var, varm = _attributes(file["row_attrs"], n_genes)
            layers = {key: _transposed(item) for key, item in file.get("layers", {}).items()}
            adata = ad.AnnData(_transposed(file["matrix"]), layers=layers, obsm=obsm, varm=varm)
        adata.obs = _named(obs, CELL_NAMES, "cells")
        adata.var = _named(var, GENE_NAMES, "genes")
    except Exception as error:  # h5py, numpy and anndata raise many types for damaged files
        raise UserError(f"{path} cannot be read as loom ({one_line(error)}); download or save it again.") from error
    adata.var_names_make_unique()
    return adata


def _transposed(item: h5py.Dataset) -> sparse.csr_matrix:
    """Return a dense matrix of genes x cells as cells x genes, float32 CSR, without ever holding all of it."""
    n_genes, n_cells = item.shape
    width = item.chunks[1] if item.chunks else 1
    step = max(AT_ONCE // max(n_genes, 1) // width, 1) * width  # whole chunks, each of which is unpacked once
    blocks = [
        sparse.csr_matrix(item[:, start : start + step].T.astype(np.float32)) for start in range(0, n_cells, step)
    ]
    return sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix((0, n_genes), dtype=np.float32)


def _attributes(group: h5py.Group, n: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the attributes of n cells or genes: those of one value each, and those of several numbers each."""
    single: dict[str, np.ndarray] = {}
    several: dict[str, np.ndarray] = {}
    for key, item in group.items():
        values = item[()] if isinstance(item, h5py.Dataset) and item.ndim in (1, 2) else None
        if values is None or len(values) != n:
            log.info("The attribute %s is left out: it has no value for each of the %d.", key, n)
        elif values.ndim == 1:
            single[key] = _as_text(values) if values.dtype.kind in "OS" else values
        elif values.dtype.kind in "iuf":
            several[key] = values
    return pd.DataFrame(single, index=pd.RangeIndex(n).astype(str)), several


def _as_text(values: np.ndarray) -> np.ndarray:
    """Return bytes as text."""
    decoded = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]
    return np.array(decoded, dtype=object)


def _named(table: pd.DataFrame, usual: Sequence[str], what: str) -> pd.DataFrame:
    """Return the table of cells or genes, indexed by their names.

    Symbols of genes repeat, so the first of the usual names is taken for genes; names of cells must be unique.
    """
    known = [name for name in usual if name in table and (what == "genes" or table[name].is_unique)]
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name].dtype) and table[name].is_unique]
    best = next(iter([*known, *texts, *(name for name in usual if name in table)]), None)
    if best is None:
        log.warning("The %s have no names, so they are numbered; their attributes are %s.", what, ", ".join(table))
        return table
    if best not in usual:
        log.warning("The %s have no name that is known as such: they are named by %s.", what, best)
    return table.drop(columns=best).set_index(pd.Index(table[best].astype(str).to_numpy()))
