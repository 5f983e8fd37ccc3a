"""The data set as training needs it, and the steps that preparing cells and preparing spots share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl import processes
from scrcl.contents import blocks
from scrcl.contents.gene_groups import GeneFilter
from scrcl.contents.labels import find_labels
from scrcl.contents.values import find_expression
from scrcl.keys import HARMONY, HIGHLY_VARIABLE, OURS, PCS
from scrcl.messages import log
from scrcl.prepare import batches, genes, halving, on_disk, plan
from scrcl.prepare.features import SPARSE_UP_TO, Features
from scrcl.prepare.filters import Filter
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.runtime import card_memory_gib, card_or_cpu, limited_threads

Matrix = np.ndarray | Features  # [N, G], dense, or sparse where cells are worked on in blocks or few values are stored


@dataclass
class Prepared:
    """A data set as training needs it.

    Attributes
    ----------
    cells
        AnnData of the cells (or spots) that have counts, with X log-normalised, obsm['X_pca'] and obsp['scrcl_graph'],
        the cell graph A.
    inputs
        [N, G] float32, what the encoders see; sparse when the cells are taken in blocks, or few values are stored.
    pcs
        [N, d] float32, what is joined to the trained embedding for clustering: the PCs for cells (with long rows
        shortened when there are few cells), the means of the PCs over the neighbourhood for spots.
    known
        The known labels of these cells, or None.
    values
        What the values are and where they were found, for people to read.
    smoothing_graph
        [N, N] sparse; row i marks the spots whose labels smooth the label of i. None for no smoothing.
    block
        How many cells training takes at a time; 0 for all.
    order
        [N], the order in which training takes the cells and in which `inputs` holds them; None for the order of
        `cells`.
    section_key
        The obs column that tells sections apart, or 'none'.
    batch_key
        The obs column whose batches were evened out, or 'none'.
    views
        [N, d] by name, further views to cluster that need no training; empty where the recipe asks for none.
    """

    cells: ad.AnnData
    inputs: Matrix
    pcs: np.ndarray
    known: pd.Series | None
    values: str
    smoothing_graph: sparse.csr_matrix | None = None
    block: int = 0
    order: np.ndarray | None = None
    section_key: str = "none"
    batch_key: str = "none"
    views: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def graph(self) -> sparse.csr_matrix:
        """The cell graph, with rows in the order of the cells."""
        return self.cells.obsp[OURS.graph]

    @property
    def graph_in_training(self) -> sparse.csr_matrix:
        """The cell graph, with rows in the order of training."""
        return self.graph if self.order is None else self.graph[self.order][:, self.order]


def preprocessing(settings: CellSettings | TissueSettings) -> dict[str, Any]:
    """Return the settings that `genes.preprocess` and `on_disk.preprocess` take, by name."""
    own = {name: getattr(settings, name) for name in ("target_sum", "n_top_genes", "hvg_flavor", "min_cells")}
    keep = Filter(settings.min_counts, settings.min_genes, settings.max_mito)
    return own | {"keep": keep, "among": GeneFilter(tuple(settings.exclude_genes), settings.genes)}


def preprocessed(adata: ad.AnnData, settings: CellSettings | TissueSettings) -> tuple[ad.AnnData, str]:
    """Preprocess the cells, in memory or in blocks.

    Parameters
    ----------
    adata
        Cells or spots x genes.
    settings
        The recipe.

    Returns
    -------
    The cells as `genes.preprocess` returns them, and what their values are, for people to read. When the values are on
    disk, the cells have the highly variable genes only.

    Raises
    ------
    UserError
        When the values cannot be used.
    """
    find: dict[str, Any] = {name: getattr(settings, name) for name in ("layer", "values", "features")}
    how = preprocessing(settings)
    if blocks.is_lazy(adata):
        return on_disk.preprocess(adata, **find, **how)
    expression = find_expression(adata, **find)
    return genes.preprocess(expression, **how), expression.in_words()


def plan_of(cells: ad.AnnData, settings: CellSettings | TissueSettings) -> plan.Plan:
    """Return how many cells training takes at a time.

    Parameters
    ----------
    cells
        Preprocessed cells, with var['highly_variable'].
    settings
        The recipe, with max_memory and device.

    Raises
    ------
    UserError
        When max_memory is too small, or the card.
    """
    n_genes = int(cells.var[HIGHLY_VARIABLE].sum())
    sizes = cells.n_obs, n_genes, cells.X.nnz, settings.n_neighbors, settings.hidden, settings.refined_width
    of_cards = card_memory_gib(settings.device) * processes.number()  # each has a share of the cells, and a card
    return plan.plan(*sizes, settings.max_memory, of_cards)


def pcs_and_inputs(
    cells: ad.AnnData,
    settings: CellSettings | TissueSettings,
    planned: plan.Plan,
    weigh: Callable[[Matrix], Matrix] = lambda values: values,
) -> Matrix:
    """Write obsm['X_pca'], the PCs of the scaled HVGs, and return what the encoders see.

    With batches, obsm['X_pca_harmony'] is written too. What differs between them is taken out of the scaled genes as
    well, unless these are sparse.

    Parameters
    ----------
    cells
        Preprocessed cells, with var['highly_variable'].
    settings
        The recipe.
    planned
        How many cells training takes at a time. In blocks values stay sparse, and where few are stored.
    weigh
        Multiplies genes by weights; it is first called with the scaled genes.

    Returns
    -------
    [N, G] float32.
    """
    of_cells, device = batches.batches_of(cells.obs, settings.batch_key), card_or_cpu(settings.device)
    stay_sparse = planned.block > 0 or (of_cells is None and _few_are_stored(cells, settings))
    scaled = genes.values_for(cells, "scaled", stay_sparse, device)
    scaled = weigh(without_batches(scaled, cells, settings, of_cells))
    # In one thread, so that the order of sums does not depend on their number; in blocks that would take too long.
    with limited_threads(0 if planned.block else 1):
        cells.obsm[PCS] = genes.principal_components(scaled, settings.n_pcs, device)
    if of_cells is not None:
        cells.obsm[HARMONY] = batches.corrected_points(cells.obsm[PCS], of_cells)
    return (
        scaled
        if settings.encoder_input == "scaled"
        else weigh(genes.values_for(cells, settings.encoder_input, stay_sparse, device))
    )


def _few_are_stored(cells: ad.AnnData, settings: CellSettings | TissueSettings) -> bool:
    """Return whether cells are worked on faster with sparse values, as those of droplets; smoothed values are dense."""
    if settings.task != "SC" or any(settings.hops):
        return False
    hvgs = cells.var[HIGHLY_VARIABLE].to_numpy()
    return bool(cells.X.getnnz(axis=0)[hvgs].sum() <= SPARSE_UP_TO * cells.n_obs * hvgs.sum())


def without_batches(
    scaled: Matrix, cells: ad.AnnData, settings: CellSettings | TissueSettings, of_cells: pd.Series | None
) -> Matrix:
    """Return scaled genes without what differs between batches; as they are where they are sparse.

    obsm['X_pca_harmony'] decides which cells are alike; if it is not there yet, that of these genes does.
    """
    if of_cells is None:
        return scaled
    if isinstance(scaled, Features):
        log.info("Batches: the values stay sparse, so what differs between batches is taken out of the PCs alone.")
        return scaled
    points = cells.obsm.get(HARMONY)
    if points is None:
        points = first_points(scaled, settings, of_cells)
    return batches.corrected_values(scaled, points, of_cells)


def first_points(scaled: np.ndarray, settings: CellSettings | TissueSettings, of_cells: pd.Series) -> np.ndarray:
    """Return the PCs of scaled genes without what differs between batches, in which like cells are near each other."""
    pcs = genes.principal_components(scaled, settings.n_pcs, card_or_cpu(settings.device))
    return batches.corrected_points(pcs, of_cells)


def pcs_of(cells: ad.AnnData) -> np.ndarray:
    """Return the PCs that cells are compared by: without what differs between batches, where there are any."""
    return cells.obsm[HARMONY if HARMONY in cells.obsm else PCS]


def in_training_order(inputs: Matrix, points: np.ndarray, planned: plan.Plan) -> tuple[Matrix, np.ndarray | None]:
    """Return the inputs with cells near each other that are so among these points, and their order.

    Where all cells are trained on at once, they stay as they are, with None for the order: the cache holds them anyway.

    Parameters
    ----------
    inputs
        [N, G].
    points
        [N, d], where the graph joins near points.
    planned
        How many cells training takes at a time.
    """
    if not isinstance(inputs, Features) or planned.block == 0:
        return inputs, None
    order = halving.near_order(points)
    return inputs.reordered(order), order


def known_labels(obs: pd.DataFrame, settings: CellSettings | TissueSettings, cells: ad.AnnData) -> pd.Series | None:
    """Return the known labels of these cells, or None if they do not have two different ones.

    Parameters
    ----------
    obs
        The table of all cells of the input.
    settings
        The recipe, with label_key.
    cells
        The cells that are used.

    Raises
    ------
    UserError
        When label_key names a column that is not in obs.
    """
    known = find_labels(obs, settings.label_key, settings.usual_labels)
    if known is None:
        return None
    known = known.loc[cells.obs_names].set_axis(cells.obs_names)  # whose type of text may be another
    return known if known.nunique() > 1 else None
