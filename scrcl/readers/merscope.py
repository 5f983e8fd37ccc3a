"""Read the folder that Vizgen's MERSCOPE writes: the counts and the centre of every cell.

The two tables that hold them are read directly, which takes as many lines as a call of spatialdata-io would, and works
without the folder of images that spatialdata-io insists on.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anndata as ad

from scrcl.readers import parts
from scrcl.readers.wide_table import read_cells, read_counts

PARTS = {  # public data have the section's name behind these names, or before them
    "counts": (r"cell_by_gene(.*?)\.csv", r"cell_by_gene(.*?)\.csv\.gz"),
    "cells": (r"cell_metadata(.*?)\.csv", r"cell_metadata(.*?)\.csv\.gz"),
}
INNER = ("",)
CENTRE = ("center_x", "center_y")  # um
SAMPLES_IN = partial(parts.complete_in, patterns=PARTS)


def locate(path: Path) -> Path | None:
    """Return the folder that holds both tables of a region, or folders that do; None for another."""
    return parts.root_of(path, INNER, SAMPLES_IN)


def files(root: Path) -> list[Path]:
    """Return the tables."""
    return parts.files_at(root, INNER, SAMPLES_IN)


def read(root: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read the counts and the centres of the cells of one region, or of several.

    Parameters
    ----------
    root
        What `locate` returned.
    name, max_memory
        Not used: no image is read, and the counts fit in memory.

    Returns
    -------
    Cells x features, counts in X, blanks among the features; obs has the table of cells; obsm['spatial'] is in um.
    Several regions are told apart by obs['library_id'].

    Raises
    ------
    UserError
        When a table is damaged, or the cells of the two tables differ.
    """
    samples = parts.samples_at(root, INNER, SAMPLES_IN)
    return parts.join_sections({sample: _read(found) for sample, found in samples.items()}, root)


def _read(found: dict[str, Path]) -> ad.AnnData:
    """Read one region. The first column of both tables is the cell: a number too long for a float."""
    adata, table = read_counts(found["counts"], lambda columns: columns[:1]), read_cells(found["cells"])
    adata.obs_names = adata.obs.iloc[:, 0].to_numpy()
    return parts.with_places(adata, table.set_index(table.columns[0]), CENTRE, found["cells"])
