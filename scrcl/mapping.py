"""Place new cells among the clusters of a finished run: the kept network encodes them, and nothing is trained."""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.sparsefuncs import mean_variance_axis

from scrcl.cluster.embedding import shortened_rows
from scrcl.contents.values import find_expression
from scrcl.keys import HIGHLY_VARIABLE, OURS, PCS, UMAP
from scrcl.messages import UserError, log
from scrcl.method.inputs import host_inputs, on_device
from scrcl.method.kernels import unit_rows
from scrcl.method.network import Architecture, ScRCL
from scrcl.prepare import batches, genes
from scrcl.prepare.features import BLOCK, Features
from scrcl.prepare.prepared import Matrix, first_points
from scrcl.recipes import CellSettings
from scrcl.runtime import limited_threads

NEIGHBORS = 15  # cells that are asked about a new one
UNLIKE = 0.85  # rank among the run's own cells, as a share, that a new cell and those like it have on average
FEWEST_SHARED = 0.2  # share of the run's genes that new cells must have


class Mapped(NamedTuple):
    """Where new cells belong.

    Attributes
    ----------
    cells
        The new cells that have counts, with the genes of the run, in X log-normalised; obsm['X_pca'] and, where the run
        has a UMAP, obsm['X_umap'] are in the spaces of the run.
    labels
        [N], a categorical: the cluster of each cell.
    agreement
        [N], the share of the nearest cells of the run that are of this cluster, 0 to 1.
    unlike
        [N], whether the cell is unlike any of the run: it and the new cells around it express other genes than the
        cells of the run that are nearest. Missing where the run has batches.
    values
        What the values are, for people to read.
    """

    cells: ad.AnnData
    labels: pd.Series
    agreement: pd.Series
    unlike: pd.Series
    values: str


class Space(NamedTuple):
    """How a run turned log-normalised genes into what its encoders saw, and that into PCs.

    Attributes
    ----------
    names
        The genes.
    centre, scale
        [G]; values are divided by the scale, and then the centre is subtracted.
    axes
        [G, d], of the PCs.
    """

    names: pd.Index
    centre: np.ndarray
    scale: np.ndarray
    axes: np.ndarray

    def standardised(self, values: sparse.csr_matrix, known: np.ndarray | None = None) -> Features:
        """Return what the encoders see, [N, G]; where genes are not `known`, the run's mean, which is 0."""
        values, offset = values.copy(), np.minimum(self.centre, genes.MAX_SCALED)
        limits = -genes.MAX_SCALED, genes.MAX_SCALED
        values.data = np.clip(values.data / self.scale[values.indices] - self.centre[values.indices], *limits)
        values.data += offset[values.indices]
        if known is not None and not known.all():
            everywhere = sparse.csr_matrix(np.ones((values.shape[0], 1), dtype=np.float32))
            values = (values + everywhere @ sparse.csr_matrix(np.where(known, 0, offset)[None])).tocsr()
        return Features(sparse.csr_matrix(values, dtype=np.float32), offset.astype(np.float32))


def space_of(reference: ad.AnnData) -> Space:
    """Return the space of a run, found again from its genes and their PCs.

    Parameters
    ----------
    reference
        The run's cells, with X log-normalised, var['highly_variable'] and obsm['X_pca'].
    """
    cells = reference[:, reference.var[HIGHLY_VARIABLE].to_numpy()]
    values = sparse.csr_matrix(cells.X, dtype=np.float32)
    mean, variance = mean_variance_axis(values, axis=0)
    scale = np.sqrt(variance * (cells.n_obs / (cells.n_obs - 1)))  # the sample's variance, as in scanpy
    scale = np.where(scale == 0, 1, scale)
    space = Space(cells.var_names, mean / scale, scale, np.empty((0, 0)))
    return space._replace(axes=_axes(space.standardised(values), reference))


def place(
    adata: ad.AnnData,
    reference: ad.AnnData,
    model: dict[str, torch.Tensor],
    settings: CellSettings,
    to_median: bool = False,
) -> Mapped:
    """Place new cells among the clusters of a run.

    Each new cell is joined with the 14 cells of the run that are nearest in the run's PCs, as cells are in its cell
    graph. The kept network encodes all of them. The 15 cells of the run with the most similar code vote.

    Parameters
    ----------
    adata
        New cells x genes; values as for a run. Genes are matched by name.
    reference
        The AnnData that the run has written.
    model
        The parameters that it has written.
    settings
        The recipe of the run; layer, values and features are those of the new cells.
    to_median
        Whether the run normalised counts to the median of its cells.

    Returns
    -------
    Where the new cells belong.

    Raises
    ------
    UserError
        When the values cannot be used, or few genes of the run are in the data, or what the run took out between its
        batches is not found again.
    """
    if settings.encoder_input != "scaled":
        raise UserError(f"New cells cannot be placed in a run with --encoder-input {settings.encoder_input}.")
    expression = find_expression(adata, settings.layer, settings.values, settings.features)
    space = space_of(reference)
    known = _known(space, expression.cells.var_names)  # a gene of the data that no cell has is known to be 0
    target_sum = settings.target_sum
    if (to_median or target_sum == "median") and OURS.total in reference.obs:
        target_sum = str(float(reference.obs[OURS.total].median()))
    own = genes.log_normalised(expression, "auto" if expression.kind == "log-normalised" else target_sum)
    new = _genes_of(own, space.names)
    seen = _seen(reference, space, new, known, settings)
    index = NearestNeighbors(n_neighbors=NEIGHBORS).fit(seen.pcs_of_run)
    nearest = index.kneighbors(seen.pcs_of_new, return_distance=False)
    codes = _codes(seen, reference.obsp[OURS.graph], nearest, model, settings)
    alike = NearestNeighbors(n_neighbors=NEIGHBORS).fit(codes[0]).kneighbors(codes[1], return_distance=False)
    clusters = reference.obs[OURS.labels].cat.codes.to_numpy()
    found, agreement = _vote(clusters[alike])
    cells = ad.AnnData(new, obs=own.obs, var=reference.var.loc[space.names], obsm={PCS: seen.pcs_of_new})
    if UMAP in reference.obsm:  # the median, since a layout may tear neighbours apart
        cells.obsm[UMAP] = np.nanmedian(np.asarray(reference.obsm[UMAP])[nearest], axis=1)
    unlike = pd.Series(pd.NA, cells.obs_names, dtype="boolean")
    if settings.batch_key == "none":  # else what differs between batches would make most cells unlike any
        surprise = _surprise(new, reference[:, space.names].X, index, nearest, known, clusters, found)
        around = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(new.indptr) - 1)).fit(seen.pcs_of_new)
        unlike[:] = surprise[around.kneighbors(seen.pcs_of_new, return_distance=False)].mean(axis=1) > UNLIKE
    told = {
        "labels": pd.Series(pd.Categorical.from_codes(found, dtype=reference.obs[OURS.labels].dtype), cells.obs_names),
        "agreement": pd.Series(agreement, cells.obs_names),
        "unlike": unlike,
    }
    return Mapped(cells, **told, values=expression.in_words())


class Seen(NamedTuple):
    """What the encoders saw of the cells of a run and see of new ones, and their PCs.

    Attributes
    ----------
    run, new
        [N, G]; dense where what differs between the run's batches was taken out.
    pcs_of_run, pcs_of_new
        [N, d], in the space of the run.
    """

    run: Matrix
    new: Matrix
    pcs_of_run: np.ndarray
    pcs_of_new: np.ndarray


def _seen(
    reference: ad.AnnData, space: Space, new: sparse.csr_matrix, known: np.ndarray, settings: CellSettings
) -> Seen:
    """Return what the encoders saw and see.

    In a run with batches, dense genes are without what differs between these; its PCs show whether they are. New cells
    are of another batch, of which nothing is known, so they are standardised like cells of a batch without effect.
    """
    run, own = space.standardised(sparse.csr_matrix(reference[:, space.names].X)), space.standardised(new, known)
    plain = Seen(run, own, run.times(space.axes), own.times(space.axes))
    if settings.batch_key == "none" or _are_of_run(plain.pcs_of_run, reference):
        return plain
    of_cells = batches.batches_of(reference.obs, settings.batch_key)
    assert of_cells is not None  # with a single one, the PCs are those of the plain genes
    scaled = genes.encoder_values(reference, "scaled")
    left = batches.without_effects(scaled, first_points(scaled, settings, of_cells), of_cells)
    mean, sd = left.mean(axis=0), left.std(axis=0, ddof=1)
    both = left, np.where(known, own.columns(slice(None)), mean)
    limits = -genes.MAX_SCALED, genes.MAX_SCALED
    run, own = (np.clip((values - mean) / np.where(sd == 0, 1, sd), *limits).astype(np.float32) for values in both)
    axes = _axes(run, reference)
    evened = Seen(run, own, run @ axes, own @ axes)
    if not _are_of_run(evened.pcs_of_run, reference):
        raise UserError(
            "What the run took out between its batches cannot be found again, so no cells can be placed in it; run it "
            "again with the versions that are installed now."
        )
    return evened


def _axes(values: Matrix, reference: ad.AnnData) -> np.ndarray:
    """Return the axes of the run's PCs, [G, d], from the values that these are of, [N, G]."""
    pcs = _centred(reference)
    blocks = values.blocks() if isinstance(values, Features) else [(slice(None), values)]
    return sum(rows.T @ pcs[part] for part, rows in blocks) / np.maximum((pcs**2).sum(axis=0), np.finfo(float).tiny)


def _centred(reference: ad.AnnData) -> np.ndarray:
    """Return the PCs of a run with means of 0."""
    pcs = np.asarray(reference.obsm[PCS], dtype=np.float64)
    return pcs - pcs.mean(axis=0)


def _are_of_run(pcs: np.ndarray, reference: ad.AnnData) -> bool:
    """Return whether PCs are those of the run, up to 1 %."""
    asked = _centred(reference)
    return bool(np.linalg.norm(pcs - asked) <= 0.01 * np.linalg.norm(asked))


def _vote(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most frequent code of every row, the lowest of equals, and its share; labels: [N, k] integers."""
    votes = np.stack([(labels == code).sum(axis=1) for code in range(labels.max() + 1)], axis=1)
    return votes.argmax(axis=1), (votes.max(axis=1) / labels.shape[1]).astype(np.float32)


def annotate(adata: ad.AnnData, found: Mapped, key: str) -> None:
    """Write obs[key], obs[key_confidence] and obs[key_unlike]; missing for cells that could not be used."""
    rows = adata.obs_names
    adata.obs[key] = found.labels.reindex(rows).astype(found.labels.dtype)
    adata.obs[f"{key}_confidence"] = found.agreement.reindex(rows)
    adata.obs[f"{key}_unlike"] = found.unlike.reindex(rows).astype("boolean")


def _known(space: Space, names: pd.Index) -> np.ndarray:
    """Return which genes of the run are in the data, and say how many are not; UserError where these are most."""
    known = space.names.isin(names)
    if known.mean() < FEWEST_SHARED:
        raise UserError(
            f"Only {known.sum()} of the run's {len(known)} highly variable genes are in the new data: the run has "
            f"names such as {space.names[0]}, the new data such as {names[0]}; give both the same names."
        )
    if not known.all():
        log.info("%d of the run's %d highly variable genes are not in the new data.", (~known).sum(), len(known))
    return known


def _genes_of(own: ad.AnnData, names: pd.Index) -> sparse.csr_matrix:
    """Return the values of these genes in their order, 0 where they are missing."""
    at = own.var_names.get_indexer(names)
    there = np.flatnonzero(at >= 0)
    ones = np.ones(len(there), dtype=np.float32)
    return (own.X @ sparse.csr_matrix((ones, (at[there], there)), shape=(own.n_vars, len(names)))).tocsr()


def _codes(
    seen: Seen,
    graph: sparse.csr_matrix,
    nearest: np.ndarray,
    model: dict[str, torch.Tensor],
    settings: CellSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the kept network makes of the run's cells and of the new ones, [N, 2H] each, with shortened rows."""
    n_run, n_new = len(graph.indptr) - 1, len(nearest)
    neighbours = nearest[:, : settings.n_neighbors - 1]
    rows = np.repeat(np.arange(n_new), neighbours.shape[1])
    ones = np.ones(neighbours.size, dtype=np.float32)
    edges = sparse.csr_matrix((ones, (rows, neighbours.ravel())), shape=(n_new, n_run))
    joined = sparse.bmat([[graph, edges.T], [edges, None]], format="csr").astype(np.float32)
    values: Matrix
    if isinstance(seen.run, Features) and isinstance(seen.new, Features):
        values = Features(sparse.vstack([seen.run.values, seen.new.values]).tocsr(), seen.run.offset)
    else:
        values = np.vstack([np.asarray(seen.run), np.asarray(seen.new)])
    no_genes = sparse.identity(values.shape[1], dtype=np.float32, format="csr")  # their encoder has no part
    inputs = on_device(host_inputs(values, joined, no_genes, settings.hops, BLOCK), torch.device("cpu"))
    width = len(model["gene_encoder.bias"])
    network = ScRCL(n_run, values.shape[1], Architecture(settings.hidden, width, settings.dropout)).eval()
    network.load_state_dict(model)
    with torch.no_grad():
        hidden = network.encode(inputs)
        lengths = torch.stack([h.norm(dim=1) for h in hidden], dim=1).numpy()
        points = shortened_rows(torch.cat([unit_rows(h) for h in hidden], dim=1).numpy(), lengths)
    return points[:n_run], points[n_run:]


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def _surprise(
    new: sparse.csr_matrix,
    run: sparse.spmatrix,
    index: NearestNeighbors,
    nearest: np.ndarray,
    known: np.ndarray,
    clusters: np.ndarray,
    found: np.ndarray,
) -> np.ndarray:
    """Return how little each new cell is like its nearest cells of the run, as a rank among the cells of its cluster.

    It is the share of the run's cells of that cluster that correlate better with the mean of their own nearest cells.
    """
    run = sparse.csr_matrix(run)[:, known]
    own = _correlation(run, run, index.kneighbors(return_distance=False))
    others = _correlation(sparse.csr_matrix(new)[:, known], run, nearest)
    usual = {code: np.sort(own[clusters == code]) for code in np.unique(clusters)}
    return np.array([1 - np.searchsorted(usual[c], r) / len(usual[c]) for c, r in zip(found, others)])


def _correlation(cells: sparse.csr_matrix, run: sparse.csr_matrix, nearest: np.ndarray) -> np.ndarray:
    """Return the correlation of every cell's genes with their mean over its nearest cells of the run."""
    n, k = nearest.shape
    shares = np.full(nearest.size, 1 / k, dtype=np.float32)
    mean_of = sparse.csr_matrix((shares, nearest.ravel(), np.arange(0, nearest.size + 1, k)), shape=(n, run.shape[0]))
    found = []
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        one, other = cells[part].toarray(), (mean_of[part] @ run).toarray()
        one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        found.append((one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny))
    return np.concatenate(found)
