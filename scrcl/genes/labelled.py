"""Cells with labels, as the ranking of genes and its figures need them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anndata as ad
import pandas as pd

from scrcl.recipes import RECIPES


@dataclass
class Labelled:
    """Cells (or spots) that have a label.

    Attributes
    ----------
    name, task
        Of the data set; SC or ST.
    cells
        X log-normalised with all genes, var_names as people read them, obs['cluster'] (categorical of strings),
        obsm['X_umap'], for spots obsm['spatial'] and uns['spatial'] as squidpy keeps it.
    known
        Known types of these cells, or None.
    sections
        Of the spots, or None where all are of one.
    labels_from, values, umap_from
        In words, where the labels are from, what the values were before normalisation, and what the UMAP is of.
    label_name, own
        The name of the labels' column; whether they are the final labels of a run.
    files
        What was read.
    """

    name: str
    task: Literal["SC", "ST"]
    cells: ad.AnnData
    known: pd.Series | None
    sections: pd.Series | None
    labels_from: str
    values: str
    umap_from: str
    label_name: str
    own: bool
    files: tuple[Path, ...]

    @property
    def unit(self) -> str:
        """What a row is, in the plural."""
        return RECIPES[self.task].unit
