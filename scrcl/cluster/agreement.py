"""How well labels agree with a graph of the cells: no known label is needed for that."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from scrcl.cluster.partition import one_hot


def agreement_with_graph(labels: np.ndarray, graph: sparse.spmatrix) -> float:
    """How much more often the ends of an edge share a label than by chance, as a share of the most possible: 1 where all do, near 0 for random labels.

    The assortativity of Newman 2003 (Mixing patterns in networks, eq. 2), which is Cohen's kappa of the labels of neighbours.
    Big clusters cut in two lose many edges; one cluster of nearly all cells gains none, since chance does as well.
    labels: [N] integers from 0; graph: [N, N] symmetric. 0 for a graph without edges, and for a single label.
    """
    return agreement_of_edges(edges_between(labels, graph))


def edges_between(labels: np.ndarray, graph: sparse.spmatrix) -> np.ndarray:
    """[K, K] float64, the weight of the edges from cluster to cluster."""
    ends = one_hot(labels, labels.max() + 1).astype(np.float64)  # float32 counts no further than to 2^24
    return (ends.T @ graph @ ends).toarray()


def agreement_of_edges(between: np.ndarray) -> float:
    return float(assortativity(np.trace(between), between.sum(axis=1)))


def assortativity(inside: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of edges of which inside, [...], are within clusters, and that have so many ends in each, [..., K]; 0 where it is not defined."""
    total = ends.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_chance = (ends**2).sum(axis=-1) / total**2
        return np.nan_to_num((inside / total - by_chance) / (1 - by_chance), posinf=0.0, neginf=0.0)
