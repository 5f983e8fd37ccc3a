"""A data set as training needs it, and what preparing cells and spots have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.contents import blocks
from scrcl.contents.labels import find_labels
from scrcl.contents.values import find_expression
from scrcl.keys import HIGHLY_VARIABLE, OURS, PCS
from scrcl.prepare import genes, graphs, on_disk, plan
from scrcl.prepare.features import Features
from scrcl.recipes import CellSettings, TissueSettings

Matrix = np.ndarray | Features  # [N, G], dense, or sparse where cells are worked on in blocks


@dataclass
class Prepared:
    """A data set as training needs it.

    Attributes
    ----------
    cells
        AnnData of the cells (or spots) that have counts, with X log-normalised, obsm['X_pca'] and obsp['scrcl_graph'],
        the cell graph A.
    inputs
        [N, G] float32, what the encoders see; sparse where the cells are worked on in blocks.
    pcs
        [N, d] float32, what stands beside the encoder's embedding: the PCs, of few cells with long rows shortened, of
        spots their means over the neighbourhood.
    known
        Known types of these cells, or None.
    values
        In words, what the values are and where they were found.
    voters
        [N, N] sparse, row i marks the spots whose labels smooth that of i; None for no smoothing.
    block
        Cells that training takes at a time, 0 for all.
    order
        [N], the order in which training takes the cells and in which inputs has them; None for that of cells.
    """

    cells: ad.AnnData
    inputs: Matrix
    pcs: np.ndarray
    known: pd.Series | None
    values: str
    voters: sparse.csr_matrix | None = None
    block: int = 0
    order: np.ndarray | None = None

    @property
    def graph(self) -> sparse.csr_matrix:
        """The cell graph in the order of the cells."""
        return self.cells.obsp[OURS.graph]

    @property
    def graph_in_training(self) -> sparse.csr_matrix:
        """The cell graph in the order of training."""
        return self.graph if self.order is None else self.graph[self.order][:, self.order]


def preprocessing(settings: CellSettings | TissueSettings) -> dict[str, Any]:
    """What `genes.preprocess` and `on_disk.preprocess` take of the settings."""
    return {name: getattr(settings, name) for name in ("target_sum", "n_top_genes", "hvg_flavor", "min_cells")}


def preprocessed(adata: ad.AnnData, settings: CellSettings | TissueSettings) -> tuple[ad.AnnData, str]:
    """The cells as `genes.preprocess` makes them, and in words what values they are; of values on disk, with HVGs alone."""
    how = preprocessing(settings)
    if blocks.is_backed(adata):
        return on_disk.preprocess(adata, settings.layer, **how)
    expression = find_expression(adata, settings.layer)
    return genes.preprocess(expression, **how), expression.in_words()


def plan_of(cells: ad.AnnData, settings: CellSettings | TissueSettings) -> plan.Plan:
    """How many cells training takes at a time."""
    hvgs = cells.var[HIGHLY_VARIABLE].to_numpy()
    stored = int(cells.X.getnnz(axis=0)[hvgs].sum())
    sizes = cells.n_obs, int(hvgs.sum()), stored, settings.n_neighbors, settings.hidden, settings.refined_width
    return plan.plan(*sizes, settings.max_memory)


def pcs_and_inputs(
    cells: ad.AnnData,
    settings: CellSettings | TissueSettings,
    planned: plan.Plan,
    weigh: Callable[[Matrix], Matrix] = lambda values: values,
) -> Matrix:
    """Write obsm['X_pca'], the PCs of the scaled HVGs, and return what the encoders see, [N, G] float32.

    weigh makes weighted genes of others; it is first called with the scaled ones.
    """
    kind = genes.sparse_encoder_values if planned.block else genes.encoder_values
    scaled = weigh(kind(cells, "scaled"))
    cells.obsm[PCS] = genes.principal_components(scaled, settings.n_pcs)
    return scaled if settings.encoder_input == "scaled" else weigh(kind(cells, settings.encoder_input))


def in_training_order(inputs: Matrix, graph: sparse.csr_matrix) -> tuple[Matrix, np.ndarray | None]:
    """Inputs with neighbours near each other, and their order; small ones, which the cache holds anyway, as they are."""
    if not isinstance(inputs, Features):
        return inputs, None
    order = graphs.near_order(graph)
    return inputs.reordered(order), order


def known_labels(obs: pd.DataFrame, settings: CellSettings | TissueSettings, cells: ad.AnnData) -> pd.Series | None:
    """The known labels of these cells, or None where none of them has one."""
    known = find_labels(obs, settings.label_key, settings.usual_labels)
    return None if known is None or known.loc[cells.obs_names].isna().all() else known.loc[cells.obs_names]
