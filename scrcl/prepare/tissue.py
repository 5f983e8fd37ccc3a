"""Prepare spots: as cells, but with a graph in space, and with genes weighted by how much neighbours share them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import scanpy as sc
from scipy import sparse
from sklearn.preprocessing import normalize

from scrcl.contents.places import placed, section_members, sections
from scrcl.contents.several import section_key
from scrcl.keys import HIGHLY_VARIABLE, OURS, SPATIAL, SPATIAL_PCS, SPATIAL_WEIGHT
from scrcl.messages import log
from scrcl.prepare import batches, genes, graphs
from scrcl.prepare.features import Features
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
    without_batches,
)
from scrcl.prepare.scales import RINGS, at_scales
from scrcl.recipes import TissueSettings
from scrcl.runtime import Stopwatch, card_or_cpu

MORAN_VALUES = 100_000_000  # most values made dense at a time


def prepare(adata: ad.AnnData, settings: TissueSettings, watch: Stopwatch) -> Prepared:
    """Prepare spots for training: values, HVGs, the spatial graph, gene weights, PCs and their means over neighbours.

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
    The data set as training needs it. Its cells have obsm['spatial'], obsm['X_pca'], obsm['X_pca_spatial'] (means of
    the PCs over neighbours), obsp['scrcl_graph'] and, where genes are weighted, var['spatial_weight'].

    Raises
    ------
    UserError
        When the input cannot be used.
    """
    with watch("preprocess"):
        cells, values = preprocessed(placed(adata), settings)
        known = known_labels(adata.obs, settings, cells)
        if SPATIAL in adata.uns:  # squidpy's images and scale factors
            cells.uns[SPATIAL] = adata.uns[SPATIAL]
    with watch("graphs"):
        key = section_key(cells, settings.section_key)
        members, places = sections(cells.obs, key), cells.obsm[SPATIAL]
        graph = graphs.spatial_graph(places, settings.graph, settings.n_neighbors, settings.radius, members)
        cells.obsp[OURS.graph] = graph
        n_voters = settings.refine_neighbors
        smoothing_graph = graphs.nearest_spots(places, n_voters, members) if n_voters else None

    def weigh(values: Matrix) -> Matrix:
        hvgs = cells.var[HIGHLY_VARIABLE]
        if SPATIAL_WEIGHT not in cells.var:
            cells.var.loc[hvgs, SPATIAL_WEIGHT] = spatial_weights(values, graph, members)
        return weighted(values, cells)

    with watch("preprocess"):
        planned = plan_of(cells, settings)
        log.info("Training: %s.", planned.in_words())
        weighing = {"weigh": weigh} if settings.gene_weights == "spatial" else {}
        plain = _plain_pcs(cells, settings, planned) if settings.embedding == "views" and weighing else None
        inputs = pcs_and_inputs(cells, settings, planned, **weighing)
        cells.obsm[SPATIAL_PCS] = graphs.neighbour_mean(pcs_of(cells), graph)
        views = {}
        if settings.embedding == "views":
            views = views_of(pcs_of(cells), pcs_of(cells) if plain is None else plain, places, members)
        inputs, order = in_training_order(inputs, places, planned)
    joined = cells.obsm[SPATIAL_PCS]
    return Prepared(
        cells, inputs, joined, known, values, smoothing_graph, planned.block, order, key, settings.batch_key, views
    )


def _plain_pcs(cells: ad.AnnData, settings: TissueSettings, planned: Plan) -> np.ndarray:
    """Return the PCs of genes without weights; made before the inputs, so that only one set of values is in memory."""
    of_spots, device = batches.batches_of(cells.obs, settings.batch_key), card_or_cpu(settings.device)
    scaled = without_batches(genes.values_for(cells, "scaled", planned.block > 0, device), cells, settings, of_spots)
    pcs = genes.principal_components(scaled, settings.n_pcs, device)
    return pcs if of_spots is None else batches.corrected_points(pcs, of_spots)


def weighted(values: Matrix, cells: ad.AnnData) -> Matrix:
    """Return the highly variable genes times var['spatial_weight']; dense values are overwritten.

    Parameters
    ----------
    values
        [N, G].
    cells
        With the weights, and var['highly_variable'].
    """
    weights = cells.var.loc[cells.var[HIGHLY_VARIABLE], SPATIAL_WEIGHT].to_numpy(dtype=np.float32)
    return values.weighted(weights) if isinstance(values, Features) else np.multiply(values, weights, out=values)


def views_of(
    weighted: np.ndarray, plain: np.ndarray, places: np.ndarray, sections: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return the views that need no training, by name; the first is of the genes that the encoder sees.

    The rows of the plain genes are at unit length, so that a spot's number of cells and its quality do not count.
    One of these views has the first ring alone, since two rings reach far where spots are large.

    Parameters
    ----------
    weighted, plain
        [N, d], PCs of the genes with the weights of `spatial_weights`, and without.
    places, sections
        As for `at_scales`.
    """
    plain = normalize(plain)
    return {
        "genes of the encoder": at_scales(weighted, places, sections),
        "genes, one ring": at_scales(plain, places, sections, rings=RINGS[:1]),
        "genes, two rings": at_scales(plain, places, sections),
    }


def spatial_weights(
    values: np.ndarray | Features, graph: sparse.spmatrix, sections: np.ndarray | None = None
) -> np.ndarray:
    """Return the weight of each gene: Moran's I, not below 0, scaled to a mean square of 1.

    Take a gene's standardised value as a signal that neighbours share plus noise that they do not. Then Moran's I is
    about the signal's share of the variance, and the value times this share is the best linear guess of the signal.

    Moran's I is taken within sections and averaged over their spots, so that a difference between slides is not
    mistaken for variation in space.

    Parameters
    ----------
    values
        [N, G].
    graph
        [N, N], the graph of the spots.
    sections
        [N], the section of each spot; None for a single section.

    Returns
    -------
    [G] float32.
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
    """Return scanpy's Moran's I of every column of values, 0 for a constant column.

    Columns are processed in groups, to keep memory low.

    Parameters
    ----------
    graph
        [N, N], the graph of the spots.
    values
        [N, G].

    Returns
    -------
    [G] float64.
    """
    varies = np.flatnonzero(values.spread() if isinstance(values, Features) else np.ptp(values, axis=0))
    share = np.zeros(values.shape[1])
    columns = max(1, min(500, MORAN_VALUES // values.shape[0]))
    for block in np.array_split(varies, -(-len(varies) // columns) or 1):
        if len(block):
            dense = values.columns(block) if isinstance(values, Features) else values[:, block]
            share[block] = sc.metrics.morans_i(graph.tocsr(), np.ascontiguousarray(dense.T))
    return share
