"""Cell and gene graphs as sparse matrices. Nothing here is dense in N x N."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from utils import UserError, log

# Exact search costs N^2. On two cores and 50 PCs: 2 s at 30,000 cells, 7 s at 60,000;
# approximate search 3 s at 60,000, after 17 s of compiling. So exact up to where they meet.
EXACT_UP_TO = 60_000


def nearest_neighbors(points: np.ndarray, k: int, metric: str, seed: int) -> sparse.csr_matrix:
    """Directed k-nearest-neighbour graph, 0/1, without self: row i marks i's neighbours.

    points: [n, d]. Exact (scikit-learn) up to 60,000 points, approximate (pynndescent) beyond.
    Raises UserError for fewer than k + 1 points.
    """
    n = len(points)
    if k >= n:
        raise UserError(f"There are {n} cells, too few for {k} neighbours each; lower --n-neighbors to at most {n}.")
    if n <= EXACT_UP_TO:
        index = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(points)
        neighbours = index.kneighbors(return_distance=False)  # without points: every one but itself
    else:
        neighbours = _approximate(points, k, metric, seed)
    rows = np.repeat(np.arange(n), neighbours.shape[1])
    keep = (neighbours.ravel() != rows) & (neighbours.ravel() >= 0)
    shape = (n, n)
    return sparse.csr_matrix(
        (np.ones(keep.sum(), dtype=np.float32), (rows[keep], neighbours.ravel()[keep])), shape=shape
    )


def _approximate(points: np.ndarray, k: int, metric: str, seed: int) -> np.ndarray:
    from pynndescent import NNDescent  # compiles on import, so only where it is used

    log.info("%d cells: approximate nearest neighbours (pynndescent).", len(points))
    with warnings.catch_warnings():  # its own note that some points have fewer neighbours found
        warnings.filterwarnings("ignore", message="Failed to correctly find n_neighbors")
        return NNDescent(points, metric=metric, n_neighbors=k + 1, random_state=seed).neighbor_graph[0]


def cell_graph(points: np.ndarray, n_neighbors: int, metric: str, seed: int) -> sparse.csr_matrix:
    """A of the paper: [N, N], 0/1, symmetric (either cell names the other), zero diagonal.

    n_neighbors counts the cell itself, as in scanpy and in the paper.
    """
    directed = nearest_neighbors(points, n_neighbors - 1, metric, seed)
    return directed.maximum(directed.T).tocsr()


def gene_graph(values: np.ndarray, n_neighbors: int) -> sparse.csr_matrix:
    """B of the paper: [G, G], 0/1, directed, each gene points at its n_neighbors nearest, itself included.

    values: [N, G] as the encoders see them; Euclidean distance between columns.
    """
    k = min(n_neighbors, values.shape[1]) - 1
    self_loops = sparse.identity(values.shape[1], dtype=np.float32, format="csr")
    return self_loops if k == 0 else (nearest_neighbors(values.T, k, "euclidean", seed=0) + self_loops).tocsr()


def with_self_loops(graph: sparse.spmatrix) -> sparse.csr_matrix:
    """A + I."""
    return (graph + sparse.identity(graph.shape[0], dtype=np.float32)).tocsr()


def normalised(graph: sparse.spmatrix) -> sparse.csr_matrix:
    """D^-1/2 M^T D^-1/2 with D the column sums of M: GCN normalisation by in-degree.

    M holds its own self-loops. Row n of the result weighs the messages that n
    receives, from every g whose row in M points at n. For a symmetric M = A + I
    this is A_hat of the paper.
    """
    scale = sparse.diags(1 / np.sqrt(np.asarray(graph.sum(axis=0)).ravel()))
    return (scale @ graph.T @ scale).tocsr()


def smooth(values: np.ndarray, a_hat: sparse.spmatrix, hops: int) -> np.ndarray:
    """A_hat^hops X, [N, G]."""
    for _ in range(hops):
        values = a_hat @ values
    return values
