"""Read the folder that 10x Genomics' Xenium writes: the counts and the centre of every cell.

The two files that hold them are read directly. spatialdata-io also wants experiment.xenium and cells.zarr.zip, which
partial downloads lack, and would read no more of the table.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
from scipy import sparse

from scrcl.readers import parts
from scrcl.readers.tenx_matrix import read_matrix
from scrcl.readers.wide_table import read_cells

PARTS = {
    "matrix": (r"cell_feature_matrix\.h5", r"cell_feature_matrix"),
    "cells": (r"cells\.parquet", r"cells\.csv\.gz", r"cells\.csv"),
}
INNER = ("", "outs")  # Xenium Ranger writes outs/
CENTRE = ("x_centroid", "y_centroid")  # um
SCALE = "protein_scaling_factor"  # by which the means of protein stains were multiplied to be stored as whole numbers
SAMPLES_IN = partial(parts.complete_in, patterns=PARTS)


def locate(path: Path) -> Path | None:
    """Return the folder that holds a matrix of cells and the table of cells, or folders that do; None for another."""
    return parts.root_of(path, INNER, SAMPLES_IN)


def files(root: Path) -> list[Path]:
    """Return the files of the matrices and the tables of cells."""
    return parts.files_at(root, INNER, SAMPLES_IN)


def read(root: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read the counts and the centres of the cells of one run, or of several.

    Parameters
    ----------
    root
        What `locate` returned.
    name, max_memory
        Not used: no image is read, and the counts fit in memory.

    Returns
    -------
    Cells x features, counts in X; var['feature_types'] tells genes from controls; obs has the table of cells;
    obsm['spatial'] is in um. Several runs are told apart by obs['library_id'].

    Raises
    ------
    UserError
        When a file is damaged, or the cells of the two files differ.
    """
    samples = parts.samples_at(root, INNER, SAMPLES_IN)
    return parts.join_sections({sample: _read(found) for sample, found in samples.items()}, root)


def _read(found: dict[str, Path]) -> ad.AnnData:
    """Read one run."""
    adata, table = read_matrix(found["matrix"]), read_cells(found["cells"])
    if not found["matrix"].is_dir():
        _undo_scaling(adata, found["matrix"])
    first = "cell_id" if "cell_id" in table else table.columns[0]
    return parts.with_places(
        adata, table.set_index(table[first].astype(str)).drop(columns=first), CENTRE, found["cells"]
    )


def _undo_scaling(adata: ad.AnnData, path: Path) -> None:
    """Divide the protein stains by the factor that the file names, as 10x says to."""
    with h5py.File(path) as file:
        factor = float(np.ravel(file.attrs.get(SCALE, 1))[0])
    proteins = (adata.var["feature_types"] == "Protein Expression").to_numpy()
    if factor != 1 and proteins.any():
        weights = np.where(proteins, 1 / factor, 1).astype(np.float32)
        adata.X = (adata.X @ sparse.diags(weights)).tocsr().astype(np.float32)
