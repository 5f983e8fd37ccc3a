"""Hold cells with labels in the form that the ranking of genes and its figures need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anndata as ad
import pandas as pd

from scrcl.genes.further import Bulk
from scrcl.recipes import RECIPES


@dataclass
class Labelled:
    """Cells (or spots) that have a label.

    Attributes
    ----------
    name, task
        The name of the data set, and SC or ST.
    cells
        X log-normalised with all genes, var_names as people read them, obs['cluster'] (categorical of strings),
        obsm['X_umap']; for spots also obsm['spatial'], and uns['spatial'] as squidpy keeps it.
    known
        Known types of these cells, or None.
    sections
        The section of each spot, or None if all are in one section.
    labels_from, values, umap_from
        For people to read: where the labels are from, what the values were before normalisation, and what the UMAP was
        computed from.
    label_name, own
        The name of the labels' column, and whether they are the final labels of a run.
    files
        The files that were read.
    bulk
        Counts summed per cluster and sample, where conditions are to be compared.
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
    bulk: Bulk | None = None

    @property
    def unit(self) -> str:
        """What a row is, in the plural: cells or spots."""
        return RECIPES[self.task].unit
