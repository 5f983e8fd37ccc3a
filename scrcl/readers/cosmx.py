"""Read the flat files of Bruker's (NanoString's) CosMx: the counts and the centre of every cell.

The two tables that hold them are read directly. spatialdata-io insists on the images of all fields of view, and reads
the positions within a field of view; here they are those on the slide.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anndata as ad
import pandas as pd

from scrcl.keys import LIBRARY
from scrcl.messages import UserError
from scrcl.readers import parts
from scrcl.readers.wide_table import read_cells, read_counts

PARTS = {
    "counts": (r"exprMat_file\.csv", r"exprMat_file\.csv\.gz"),
    "cells": (r"metadata_file\.csv", r"metadata_file\.csv\.gz"),
}
INNER = ("",)
CENTRE = ("CenterX_global_px", "CenterY_global_px")
SLIDES = ("slide_ID", "slide_ID_numeric")  # in later and in earlier exports
NAMES = ("cell_ID", "fov", *SLIDES)  # cell_ID counts the cells of a field of view; 0 is what lies outside of cells
NOT_GENES = (*NAMES, "cell", "cell_id")
SAMPLES_IN = partial(parts.complete_in, patterns=PARTS)


def locate(path: Path) -> Path | None:
    """Return the folder that holds both tables of a slide, or folders that do; None for another."""
    return parts.root_of(path, INNER, SAMPLES_IN)


def files(root: Path) -> list[Path]:
    """Return the tables."""
    return parts.files_at(root, INNER, SAMPLES_IN)


def read(root: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read the counts and the centres of the cells of one slide, or of several.

    Parameters
    ----------
    root
        What `locate` returned.
    name, max_memory
        Not used: no image is read, and the counts fit in memory.

    Returns
    -------
    Cells x features, counts in X, controls among the features; obs has the table of cells, with 'fov' as a category;
    obsm['spatial'] is in pixels of the slide. A cell is called CELL_FOV, as squidpy calls it, and CELL_FOV_SLIDE where
    the tables hold several slides. Several slides are told apart by obs['library_id'].

    Raises
    ------
    UserError
        When a table is damaged, or the cells of the two tables differ.
    """
    samples = parts.samples_at(root, INNER, SAMPLES_IN)
    return parts.join_sections({sample: _read(found) for sample, found in samples.items()}, root)


def _read(found: dict[str, Path]) -> ad.AnnData:
    """Read the two tables of one export."""
    adata = read_counts(found["counts"], lambda columns: [name for name in columns if name in NOT_GENES])
    table = read_cells(found["cells"])
    names = [name for name in NAMES if name in table and name in adata.obs]
    if missing := [name for name in NAMES[:2] if name not in names]:
        raise UserError(f"{found['counts']} and {found['cells']} must both have a column {' and '.join(missing)}.")
    several = [name for name in names[2:] if max(table[name].nunique(), adata.obs[name].nunique()) > 1]
    adata.obs_names = _names(adata.obs[[*NAMES[:2], *several]])
    if not adata.obs_names.is_unique:
        raise UserError(f"{found['counts']} has a cell of one fov more than once; export every slide on its own.")
    table = table.set_index(_names(table[[*NAMES[:2], *several]]))
    placed = parts.with_places(adata, table, CENTRE, found["cells"])
    placed.obs["fov"] = pd.Categorical(placed.obs["fov"].astype(str))
    if several and placed.obs[several[0]].nunique() > 1:
        placed.obs[LIBRARY] = pd.Categorical(placed.obs[several[0]].astype(str))
    return placed


def _names(columns: pd.DataFrame) -> pd.Index:
    """Return one text per row: the values of the columns, joined."""
    first, *others = (columns[name].astype(str) for name in columns)
    return pd.Index(first.str.cat(others, sep="_").to_numpy())
