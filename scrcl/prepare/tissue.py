"""Prepare spots: as cells, but the graph joins neighbours in space, and genes weigh as much as neighbours share of them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import scanpy as sc
from scipy import sparse

from scrcl.contents.places import placed, section_members, sections
from scrcl.keys import HIGHLY_VARIABLE, OURS, PCS, SPATIAL, SPATIAL_PCS, SPATIAL_WEIGHT
from scrcl.messages import log
from scrcl.prepare import graphs
from scrcl.prepare.features import Features
from scrcl.prepare.prepared import (
    Matrix,
    Prepared,
    in_training_order,
    known_labels,
    pcs_and_inputs,
    plan_of,
    preprocessed,
)
from scrcl.recipes import TissueSettings
from scrcl.runtime import Stopwatch

MORAN_VALUES = 100_000_000  # made dense at a time


def prepare(adata: ad.AnnData, settings: TissueSettings, watch: Stopwatch) -> Prepared:
    """Everything before training: values, HVGs, the spatial graph, weights of genes, PCs and their neighbour means.

    Parameters
    ----------
    adata
        Spots x genes, which stays as it is; values as for cells, positions in obsm['spatial'] or in x and y (or the
        like) of obs.
    settings
        The recipe.
    watch
        Collects the seconds of the stages 'preprocess' and 'graphs'.

    Returns
    -------
    Its cells have obsm['spatial'], obsm['X_pca_spatial'] (means of the PCs over neighbours) and var['spatial_weight'].

    Raises
    ------
    UserError
        For input that cannot be used.
    """
    with watch("preprocess"):
        cells, values = preprocessed(placed(adata), settings)
        known = known_labels(adata.obs, settings, cells)
        if SPATIAL in adata.uns:  # squidpy's images and scale factors
            cells.uns[SPATIAL] = adata.uns[SPATIAL]
    with watch("graphs"):
        members, places = sections(cells.obs, settings.section_key), cells.obsm[SPATIAL]
        graph = graphs.spatial_graph(places, settings.graph, settings.n_neighbors, settings.radius, members)
        cells.obsp[OURS.graph] = graph
        n_voters = settings.refine_neighbors
        voters = graphs.nearest_spots(places, n_voters, members) if n_voters else None

    def weigh(values: Matrix) -> Matrix:
        hvgs = cells.var[HIGHLY_VARIABLE]
        if SPATIAL_WEIGHT not in cells.var:
            cells.var.loc[hvgs, SPATIAL_WEIGHT] = spatial_weights(values, graph, members)
        weights = cells.var.loc[hvgs, SPATIAL_WEIGHT].to_numpy(dtype=np.float32)
        return values.weighted(weights) if isinstance(values, Features) else np.multiply(values, weights, out=values)

    with watch("preprocess"):
        planned = plan_of(cells, settings)
        log.info("Training: %s.", planned.in_words())
        weighing = {"weigh": weigh} if settings.gene_weights == "spatial" else {}
        inputs = pcs_and_inputs(cells, settings, planned, **weighing)
        cells.obsm[SPATIAL_PCS] = graphs.neighbour_mean(cells.obsm[PCS], graph)
        inputs, order = in_training_order(inputs, graph)
    return Prepared(cells, inputs, cells.obsm[SPATIAL_PCS], known, values, voters, planned.block, order)


def spatial_weights(
    values: np.ndarray | Features, graph: sparse.spmatrix, sections: np.ndarray | None = None
) -> np.ndarray:
    """How much of a gene is shared with the neighbours: Moran's I, not below 0, [G] float32, with a mean square of 1.

    values: [N, G]; graph: [N, N] of the spots; sections: [N], of each spot. Moran's I is
    taken within sections, and averaged over their spots, so that what differs between slides
    is not mistaken for what varies in space.

    Take a gene's standardised value as signal that neighbours share plus noise that they
    do not. Then Moran's I is about the signal's share of the variance, and the value times this
    share is the best linear guess of the signal.
    """
    share = np.zeros(values.shape[1])
    for member in section_members(sections, values.shape[0]):
        edges = graph[member][:, member]
        if edges.nnz:
            share += len(member) * morans_i(edges, values[member])
    share = share.clip(min=0)
    if not share.any():
        log.info("No gene varies in space, so all genes weigh the same.")
        share[:] = 1
    return (share / np.sqrt(np.mean(share**2))).astype(np.float32)


def morans_i(graph: sparse.spmatrix, values: np.ndarray | Features) -> np.ndarray:
    """scanpy's Moran's I of every column of values, 0 for a constant one; some columns at a time, to keep memory low."""
    varies = np.flatnonzero(values.spread() if isinstance(values, Features) else np.ptp(values, axis=0))
    share = np.zeros(values.shape[1])
    columns = max(1, min(500, MORAN_VALUES // values.shape[0]))
    for block in np.array_split(varies, -(-len(varies) // columns) or 1):
        if len(block):
            dense = values.columns(block) if isinstance(values, Features) else values[:, block]
            share[block] = sc.metrics.morans_i(graph.tocsr(), np.ascontiguousarray(dense.T))
    return share
