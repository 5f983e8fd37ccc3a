"""Write what a run found into an AnnData: into the run's own cells, or into the caller's, which may have more cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.keys import OURS, SPATIAL, UMAP, UNSMOOTHED, Keys
from scrcl.messages import log, natural_order
from scrcl.result import Result, parameters

NEIGHBORS = ("distances", "connectivities")  # obsp: as scanpy's neighbors writes them


def write_cells(result: Result, points: np.ndarray) -> None:
    """Write labels, confidence, embedding and parameters into the run's own cells.

    Parameters
    ----------
    result
        What the run found; its cells are written to.
    points
        [N, d], what was clustered.
    """
    cells = result.cells
    cells.obsm[OURS.embedding] = points
    cells.uns[OURS.parameters] = parameters(result)
    write_labels(cells, result.labels, result.confidence, OURS)


def annotate(adata: ad.AnnData, result: Result, keys: Keys) -> None:
    """Write all that a run found into the caller's AnnData, in its own order of cells.

    Cells that could not be used have no label, NaN in the embedding, and no neighbours in the graph. A UMAP that the
    data had before stays: then that of the run goes to obsm['X_umap_scrcl'].

    Parameters
    ----------
    adata
        The caller's. Written are the keys of `keys`, and obsm['X_umap'].
    result
        Where its cells have obsm['X_umap'], that and scanpy's neighbours of the embedding are written too.
    keys
        Where to write.
    """
    cells = result.cells
    where = adata.obs_names.get_indexer(cells.obs_names)
    remove_layout(adata, keys)
    write_labels(adata, result.labels, result.confidence, keys)
    adata.obsm[keys.embedding] = rows_among(cells.obsm[OURS.embedding], where, adata.n_obs)
    adata.obsp[keys.graph] = graph_among(cells.obsp[OURS.graph], where, adata.n_obs)
    adata.uns[keys.parameters] = dict(cells.uns[OURS.parameters])
    if SPATIAL in cells.obsm and SPATIAL not in adata.obsm:  # where squidpy looks for them
        adata.obsm[SPATIAL] = rows_among(cells.obsm[SPATIAL], where, adata.n_obs)
    if UMAP in cells.obsm:
        write_layout(adata, cells, where, keys)


def remove_layout(adata: ad.AnnData, keys: Keys) -> None:
    """Remove the UMAP and the neighbours of an earlier run of this name, as its labels are."""
    before = adata.uns.get(keys.parameters)
    if isinstance(before, dict) and "umap" in before:
        adata.obsm.pop(str(before["umap"]), None)
        adata.uns.pop(keys.neighbors, None)
        for name in NEIGHBORS:
            adata.obsp.pop(f"{keys.neighbors}_{name}", None)


def write_layout(adata: ad.AnnData, cells: ad.AnnData, where: np.ndarray, keys: Keys) -> None:
    """Write the UMAP of the run's cells, and scanpy's neighbours of the embedding. where: [cells], their places."""
    umap = keys.umap if UMAP in adata.obsm else UMAP
    adata.obsm[umap] = rows_among(cells.obsm[UMAP], where, adata.n_obs)
    adata.uns[keys.parameters] |= {"umap": umap, "neighbors": keys.neighbors}
    adata.uns[keys.neighbors] = {"params": cells.uns["neighbors"]["params"]}
    for name in NEIGHBORS:
        adata.obsp[f"{keys.neighbors}_{name}"] = graph_among(cells.obsp[name], where, adata.n_obs)
        adata.uns[keys.neighbors][f"{name}_key"] = f"{keys.neighbors}_{name}"
    if umap != UMAP:
        log.info("The data had a UMAP, which stays: that of this run is obsm[%r].", umap)


def write_labels(adata: ad.AnnData, labels: pd.DataFrame, confidence: pd.Series, keys: Keys) -> None:
    """Write every column of labels to obs, as a categorical of strings in numeric order, and the confidence.

    Those of an earlier run are removed.

    Parameters
    ----------
    adata
        Written are obs['scrcl'], obs['scrcl_seed_S'], obs['scrcl_confidence'] and, of spots, obs['scrcl_unsmoothed'].
    labels, confidence
        By barcode, as in `Result`.
    keys
        The names to write under.
    """
    earlier = [name for name in adata.obs if str(name).startswith((keys.seed, keys.unsmoothed))]
    adata.obs = adata.obs.drop(columns=earlier)
    for name, column in labels.items():
        names = natural_order(column.dropna().unique())
        adata.obs[column_of(str(name), keys)] = column.astype(pd.CategoricalDtype(names))
    adata.obs[keys.confidence] = confidence


def column_of(name: str, keys: Keys) -> str:
    """The obs column of a column of `Result.labels`."""
    if name in (OURS.labels, OURS.unsmoothed):
        return keys.labels + (UNSMOOTHED if name == OURS.unsmoothed else "")
    return f"{keys.name}_{name}"


def rows_among(points: np.ndarray, where: np.ndarray, n: int) -> np.ndarray:
    """Rows of points at these places of n rows, NaN elsewhere; points itself where they fill all."""
    if len(where) == n and np.array_equal(where, np.arange(n)):
        return points
    among = np.full((n, points.shape[1]), np.nan, dtype=points.dtype)
    among[where] = points
    return among


def graph_among(graph: sparse.csr_matrix, where: np.ndarray, n: int) -> sparse.csr_matrix:
    """A graph of the cells at these places as one of n cells, the others without neighbours."""
    ones = np.ones(len(where), dtype=np.float32)
    place = sparse.csr_matrix((ones, (where, np.arange(len(where)))), shape=(n, len(where)))
    return (place @ graph @ place.T).tocsr()
