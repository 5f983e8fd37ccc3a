"""Leiden on scanpy's graph of 15 neighbours, at the resolution that gives the wanted number of clusters."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc

from scrcl.cluster.partition import by_size, require_enough
from scrcl.runtime import limited_threads


def partitions(points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
    """The one partition that there is."""
    return {"": cluster(points, n_clusters, seed)}


@limited_threads(1)  # sums in an order that the number of threads does not change; and no slower
def cluster(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Cluster the rows of points [N, d] at the resolution that gives the number nearest to n_clusters.

    It is found by bisection on its logarithm.

    Returns
    -------
    Integer labels [N], 0 the largest cluster.

    Raises
    ------
    UserError
        Where there are more clusters than points.
    """
    require_enough(points, n_clusters)
    graph = neighbour_graph(points, seed)
    low, high = -7.0, 5.0  # exp: 0.001 to 150
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
    """scanpy's neighbour graph (15 neighbours, or what there are) of the rows of points."""
    graph = ad.AnnData(obsm={"X": np.asarray(points, dtype=np.float32)})
    sc.pp.neighbors(graph, n_neighbors=min(15, len(points) - 1), use_rep="X", random_state=seed)
    return graph


def at_resolution(graph: ad.AnnData, resolution: float, seed: int) -> np.ndarray:
    """Integer Leiden labels (igraph's implementation, as scanpy recommends)."""
    sc.tl.leiden(graph, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return graph.obs["leiden"].astype(int).to_numpy()
