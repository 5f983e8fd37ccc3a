"""Prepare cells: values, highly variable genes, PCs, and the graph of cells with similar expression."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import anndata as ad
import numpy as np

from scrcl import scheduler
from scrcl.contents import blocks
from scrcl.keys import COUNTS, HARMONY, OURS
from scrcl.messages import log, nothing_said_twice
from scrcl.prepare import genes, graphs
from scrcl.prepare.plan import Plan
from scrcl.prepare.prepared import (
    Matrix,
    Prepared,
    in_training_order,
    known_labels,
    pcs_and_inputs,
    pcs_of,
    plan_of,
    preprocessed,
    preprocessing,
)
from scrcl.recipes import CellSettings
from scrcl.runtime import Stopwatch, card_or_cpu, release_memory

DEPTH_IS_FIRST_PC = 0.75  # R^2 of the first PC and log(counts) above which the first PC only shows depth
PCS_FROM = 10_000  # from so many cells on, the published cell graph is built on PCs instead of genes
# With fewer cells, single cells make PCs of their own.
FEW_CELLS = 500


def prepare(adata: ad.AnnData, settings: CellSettings, watch: Stopwatch) -> Prepared:
    """Prepare cells for training: values, HVGs, PCs and the cell graph.

    Parameters
    ----------
    adata
        Cells x genes, which stays as it is; values in X, a layer or .raw.
    settings
        The recipe.
    watch
        Collects the seconds of the stages 'preprocess' and 'graphs'.

    Returns
    -------
    The data set as training needs it. Its cells have obsm['X_pca'] and obsp['scrcl_graph'].

    Raises
    ------
    UserError
        When the input cannot be used.
    """
    with watch("preprocess"):
        cells, values, planned, inputs = depth_corrected(adata, settings)
        log.info("Training: %s.", planned.in_words())
        known = known_labels(adata.obs, settings, cells)
    with watch("graphs"):
        on_genes = settings.graph_on == "genes" and cells.n_obs < PCS_FROM
        points = genes.encoder_values(cells, "lognorm") if on_genes else pcs_of(cells)
        graph = graphs.cell_graph(points, settings.n_neighbors, settings.metric, 0, card_or_cpu(settings.device))
        cells.obsp[OURS.graph] = graph
        inputs, order = in_training_order(inputs, pcs_of(cells), planned)
    pcs = pcs_of(cells) if cells.n_obs >= FEW_CELLS else long_rows_shortened(pcs_of(cells))
    return Prepared(cells, inputs, pcs, known, values, block=planned.block, order=order, batch_key=settings.batch_key)


class Encoded(NamedTuple):
    """Preprocessed cells, and what the encoders see.

    Attributes
    ----------
    cells
        Cells with X and obsm['X_pca'].
    values
        What the values are, for people to read.
    planned
        How many cells training takes at a time.
    inputs
        [N, G], what the encoders see.
    """

    cells: ad.AnnData
    values: str
    planned: Plan
    inputs: Matrix


def encoded(adata: ad.AnnData, settings: CellSettings) -> Encoded:
    """Preprocess the cells, compute their PCs, and return them with what the encoders see."""
    lazy = blocks.is_lazy(adata)
    if not lazy and settings.dask_scheduler != "none":
        log.warning("--dask-scheduler has no effect: the values are in memory; h5ad and zarr can be read in blocks.")
    with scheduler.connected(settings.dask_scheduler if lazy else "none"):
        cells, values = preprocessed(adata, settings)
    return _encoded(cells, values, settings)


def _encoded(cells: ad.AnnData, values: str, settings: CellSettings) -> Encoded:
    """Return preprocessed cells with their PCs, and what the encoders see."""
    planned = plan_of(cells, settings)
    return Encoded(cells, values, planned, pcs_and_inputs(cells, settings, planned))


def depth_corrected(adata: ad.AnnData, settings: CellSettings) -> Encoded:
    """Return `encoded`, normalised to the median where the first PC would only show the number of counts.

    This applies to target_sum 'auto', where 10,000 makes the first PC the number of counts. See
    `genes.depth_in_first_pc` for how that happens when counts are scaled up.
    """
    found = encoded(adata, settings)
    depth = genes.depth_in_first_pc(found.cells)
    if settings.target_sum != "auto" or depth < DEPTH_IS_FIRST_PC or not genes.blown_up(found.cells):
        return found
    log.info(
        "At 10,000 per cell the first PC is only the number of counts (R^2 %.2f), "
        "so counts are normalised to the median.",
        depth,
    )
    cells, values = found.cells, found.values
    del found  # before the next is made, since two of them could fill the memory
    release_memory()
    settings = dataclasses.replace(settings, target_sum="median")
    with nothing_said_twice():
        if COUNTS in cells.layers and not blocks.is_lazy(adata):
            how = preprocessing(settings)
            del how["keep"]  # they were kept before
            genes.normalised_anew(cells, **how)
            cells.obsm.pop(HARMONY, None)  # else it would decide which cells are alike
            found = _encoded(cells, values, settings)
        else:
            del cells
            found = encoded(adata, settings)
    return found._replace(values=f"{found.values}, normalised to the median")


def long_rows_shortened(points: np.ndarray) -> np.ndarray:
    """Shorten long rows: return x / sqrt(|x|^2 + 4 median |x|^2) of every row.

    Short rows are all scaled alike; the longest approach a length of 1.

    Parameters
    ----------
    points
        [N, d].

    Returns
    -------
    [N, d] float32.
    """
    squares = (points.astype(np.float64) ** 2).sum(axis=1, keepdims=True)
    scale = np.sqrt(squares + max(4 * np.median(squares), np.finfo(np.float64).tiny))
    return (points / scale).astype(np.float32)
