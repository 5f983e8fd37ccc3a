"""Leiden on scanpy's graph of 15 neighbours, at the resolution that gives the number of clusters asked for."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc

from scrcl.cluster.partition import by_size, require_enough
from scrcl.runtime import compiled_once, limited_threads


def partitions(points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
    """Return the only partition that this method gives, under the key ''."""
    return {"": cluster(points, n_clusters, seed)}


@limited_threads(1)  # so that the order of sums does not depend on the number of threads; it is no slower
def cluster(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Cluster the rows of points at the resolution whose number of clusters is nearest to n_clusters.

    The resolution is found by bisection on its logarithm.

    Parameters
    ----------
    points
        [N, d].
    n_clusters
        How many clusters.
    seed
        For the graph and for Leiden.

    Returns
    -------
    [N] integers, 0 the largest cluster.

    Raises
    ------
    UserError
        When there are more clusters than points.
    """
    require_enough(points, n_clusters)
    graph = neighbour_graph(points, seed)
    low, high = -7.0, 5.0  # logarithms of the resolutions 0.001 and 150
    best = at_resolution(graph, 1.0, seed)
    for _ in range(25):
        if best.max() + 1 == n_clusters:
            break
        middle = (low + high) / 2
        labels = at_resolution(graph, float(np.exp(middle)), seed)
        low, high = (middle, high) if labels.max() + 1 < n_clusters else (low, middle)
        best = min(best, labels, key=lambda found: abs(found.max() + 1 - n_clusters))
    return by_size(best)


def neighbour_graph(points: np.ndarray, seed: int) -> ad.AnnData:
    """Return scanpy's neighbour graph of the rows of points (15 neighbours, or as many as there are) in an AnnData."""
    graph = ad.AnnData(obsm={"X": np.asarray(points, dtype=np.float32)})
    with compiled_once("umap"):
        sc.pp.neighbors(graph, n_neighbors=min(15, len(points) - 1), use_rep="X", random_state=seed)
    return graph


def at_resolution(graph: ad.AnnData, resolution: float, seed: int) -> np.ndarray:
    """Return Leiden's integer labels at a resolution (igraph's implementation, as scanpy recommends).

    Parameters
    ----------
    graph
        What `neighbour_graph` returns; its obs['leiden'] is written.
    resolution
        Higher values give more clusters.
    seed
        For Leiden.
    """
    sc.tl.leiden(graph, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return graph.obs["leiden"].astype(int).to_numpy()
