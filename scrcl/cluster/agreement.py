"""Measure how well labels agree with a graph of the cells, for which no known labels are needed."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def agreement_with_graph(labels: np.ndarray, graph: sparse.spmatrix) -> float:
    """Return how much more often than by chance the two ends of an edge share a label, as a share of the most possible.

    It is 1 when all edges join cells of one label, and near 0 for random labels. This is the assortativity of Newman
    2003 (Mixing patterns in networks, eq. 2), which is Cohen's kappa of the labels of neighbours. Large clusters that
    are cut in two lose many edges. One cluster of nearly all cells gains nothing, since chance does as well.

    Parameters
    ----------
    labels
        [N] integers from 0.
    graph
        [N, N] symmetric.

    Returns
    -------
    The agreement, at most 1; 0 for a graph without edges, and for a single label.
    """
    return agreement_of_edges(edges_between(labels, graph))


def edges_between(labels: np.ndarray, graph: sparse.spmatrix) -> np.ndarray:
    """Return the weight of the edges from each cluster to each other one, [K, K] float64.

    The diagonal holds the edges within a cluster, which a symmetric graph counts from both ends.

    Parameters
    ----------
    labels
        [N] integers from 0.
    graph
        [N, N] symmetric.
    """
    edges, n = graph.tocoo(), int(labels.max()) + 1
    between = np.bincount(labels[edges.row] * n + labels[edges.col], weights=edges.data, minlength=n**2)
    return between.reshape(n, n).astype(np.float64)


def agreement_of_edges(between: np.ndarray) -> float:
    """Return `agreement_with_graph` from the result of `edges_between`."""
    return float(assortativity(np.trace(between), between.sum(axis=1)))


def agreement_of_pairs(between: np.ndarray) -> np.ndarray:
    """Return `agreement_with_graph` of every two clusters on their own cells alone.

    Edges that leave the pair are ignored, so an end in a cluster is an edge within it or across to the other.

    Parameters
    ----------
    between
        As `edges_between` returns, [K, K].

    Returns
    -------
    [K, K] symmetric; the diagonal means nothing.
    """
    within = np.diag(between)
    ends = np.stack([within[:, None] + between, within[None, :] + between], axis=-1)
    return assortativity(within[:, None] + within[None, :], ends)


def assortativity(inside: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the assortativity of edges from how many lie within clusters and how many ends each cluster has.

    Parameters
    ----------
    inside
        [...], the weight of the edges within clusters.
    ends
        [..., K], the weight of the edge ends in each cluster.

    Returns
    -------
    [...]; 0 where it is not defined.
    """
    total = ends.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 without edges, or with all of them in one cluster
        # If ends were joined at random, an edge would lie within a cluster with the square of the cluster's share.
        by_chance = (ends**2).sum(axis=-1) / total**2
        return np.nan_to_num((inside / total - by_chance) / (1 - by_chance), posinf=0.0, neginf=0.0)
