"""Cluster an embedding, and estimate the number of clusters, without any label."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

from utils import UserError, limited_threads

N_INIT = 8  # starts of k-means and of the mixture; the best by its own objective is kept
FIT_ON = 20_000  # cells a mixture or k-means is fitted on; all are assigned
MIXTURE_DIMS = 20  # leading PCs the mixture sees: a covariance of 2H dimensions cannot be estimated
VOTE_STARTS = 6  # partitions the vote starts from, those that agree best with the others
VOTE_ROUNDS = 50  # at most; a handful suffices
AGREEMENT_ON = 5_000  # cells on which partitions are compared with each other

# Estimating the number of clusters
RESOLUTIONS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)
N_SUBSETS = 6
SUBSET_SHARE = 0.8
STABLE = 0.9
ESTIMATE_ON = 20_000  # cells


class Consensus(NamedTuple):
    """labels: [N] integers, 0 the largest cluster; membership: [N, K] float32, each cluster's share of the votes on a cell."""

    labels: np.ndarray
    membership: np.ndarray

    def confidence(self, labels: np.ndarray) -> np.ndarray:
        """[N], the share of all partitions that agree with labels, integers from 0 as those of the consensus."""
        return self.membership[np.arange(len(labels)), labels]


@limited_threads(1)  # sums in an order that the number of threads does not change; and no slower
def cluster(points: np.ndarray, n_clusters: int, method: str, seed: int) -> np.ndarray:
    """Cluster rows of points [N, d] into n_clusters; integer labels [N], 0 the largest cluster.

    method: 'gmm' (Gaussian mixture with tied covariance on 20 PCs), 'kmeans' (cosine: on
    rows of unit length), both fitted on a random 20,000 of more points; 'leiden' (scanpy's graph of 15
    neighbours, resolution searched). A method may end with another number of clusters.
    Raises UserError where there are more clusters than points.
    """
    require_enough(points, n_clusters)
    if method == "leiden":
        return _by_size(_leiden(points, n_clusters, seed))
    if method == "gmm":
        points = leading_components(points, MIXTURE_DIMS)
        model = GaussianMixture(n_clusters, covariance_type="tied", n_init=N_INIT, max_iter=200, random_state=seed)
    else:
        points = normalize(points)
        model = KMeans(n_clusters, n_init=N_INIT, random_state=seed)
    part = points
    if len(points) > FIT_ON:
        chosen = np.random.default_rng(seed).choice(len(points), max(FIT_ON, n_clusters), replace=False)
        part = points[np.sort(chosen)]
    with _no_convergence_warning():
        return _by_size(model.fit(part).predict(points))


def _by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters numbered 0, 1, ... by falling size."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[inverse]


def consensus(partitions: list[np.ndarray], n_clusters: int) -> Consensus:
    """What several partitions of the same cells agree on, by voting.

    Clusters of every partition are matched with those of the consensus, one to one and with the most
    votes in common (Hungarian method); the consensus is the mean of the matched partitions; repeated
    until nothing changes (fixed point of Dimitriadou, Weingessel and Hornik 2002, A combination
    scheme for fuzzy clustering). Of several starts, the one with the clearest votes stays. Linear in cells.

    partitions: [N] integers from 0 each. Clusters beyond n_clusters have no vote.
    A consensus may have fewer clusters than its partitions.
    """
    partitions = [np.unique(labels, return_inverse=True)[1] for labels in partitions]
    found = [_vote(partitions, start, n_clusters) for start in _most_agreeing(partitions, VOTE_STARTS)]
    membership = max(found, key=lambda shares: np.round((shares.astype(np.float64) ** 2).sum(), 6))
    labels = membership.argmax(axis=1)
    order = np.argsort(-np.bincount(labels, minlength=n_clusters), kind="stable")  # the largest first
    return Consensus(np.argsort(order)[labels], membership[:, order])


def _vote(partitions: list[np.ndarray], start: np.ndarray, n_clusters: int) -> np.ndarray:
    """The consensus' membership, [N, K], that voting ends in from one partition."""
    shares = one_hot(start, max(n_clusters, start.max() + 1))[:, :n_clusters].toarray()
    for _ in range(VOTE_ROUNDS):
        votes = np.zeros_like(shares)
        for labels in partitions:
            common = one_hot(labels, labels.max() + 1).T @ shares
            ours, consensus_of = linear_sum_assignment(common, maximize=True)
            match = np.full(labels.max() + 1, -1)
            match[ours] = consensus_of
            cells = np.flatnonzero(match[labels] >= 0)
            votes[cells, match[labels[cells]]] += 1
        votes /= len(partitions)
        if np.array_equal(votes, shares):
            break
        shares = votes
    return shares


def _most_agreeing(partitions: list[np.ndarray], n: int) -> list[np.ndarray]:
    """Those n that agree best with the others (mean ARI among all; the first of equals)."""
    step = max(1, len(partitions[0]) // AGREEMENT_ON)
    agreement = [np.mean([adjusted_rand_score(a[::step], b[::step]) for b in partitions]) for a in partitions]
    return [partitions[i] for i in np.argsort(-np.round(agreement, 12), kind="stable")[:n]]


def one_hot(labels: np.ndarray, n_columns: int) -> sparse.csr_matrix:
    """[N, n_columns] float32, a one per row in the column of its label."""
    return sparse.csr_matrix(
        (np.ones(len(labels), dtype=np.float32), labels, np.arange(len(labels) + 1)), shape=(len(labels), n_columns)
    )


def require_enough(points: np.ndarray, n_clusters: int) -> None:
    """Raise UserError where there are more clusters than points."""
    if n_clusters > len(points):
        raise UserError(
            f"{n_clusters} clusters were asked for, but there are only {len(points)} cells with counts; lower --n-clusters."
        )


def leading_components(points: np.ndarray, n_dims: int) -> np.ndarray:
    """The first n_dims principal components in float64, scaled to unit variance in all."""
    points = np.asarray(points, dtype=np.float64)
    reduced = PCA(min(n_dims, *points.shape), svd_solver="covariance_eigh").fit_transform(points)
    return reduced / max(reduced.std(), np.finfo(float).tiny)


def _leiden(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Leiden at the resolution whose number of clusters is nearest to the wanted one (bisection on its logarithm)."""
    graph = neighbour_graph(points, seed)
    low, high = -7.0, 5.0  # exp: 0.001 to 150
    best = leiden(graph, 1.0, seed)
    for _ in range(25):
        if best.max() + 1 == n_clusters:
            break
        middle = (low + high) / 2
        labels = leiden(graph, float(np.exp(middle)), seed)
        low, high = (middle, high) if labels.max() + 1 < n_clusters else (low, middle)
        best = min(best, labels, key=lambda found: abs(found.max() + 1 - n_clusters))
    return best


def neighbour_graph(points: np.ndarray, seed: int) -> ad.AnnData:
    """scanpy's neighbour graph (15 neighbours, or what there are) of the rows of points."""
    graph = ad.AnnData(obsm={"X": np.asarray(points, dtype=np.float32)})
    sc.pp.neighbors(graph, n_neighbors=min(15, len(points) - 1), use_rep="X", random_state=seed)
    return graph


def leiden(graph: ad.AnnData, resolution: float, seed: int) -> np.ndarray:
    """Integer Leiden labels (igraph's implementation, as scanpy recommends)."""
    sc.tl.leiden(graph, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return graph.obs["leiden"].astype(int).to_numpy()


@limited_threads(1)  # sums in an order that the number of threads does not change
def estimate_n_clusters(points: np.ndarray, seed: int) -> int:
    """The finest number of clusters that the data reproduce, without labels.

    Leiden partitions subsets of 80 % of the cells at each of several resolutions.
    The stability of a resolution is the mean ARI between pairs of subsets, on the
    cells they share. The result is the largest median number of clusters among
    the resolutions of stability 0.9 or more; where there is none, the smallest
    of all: what cannot be reproduced is not split. At least 2.

    points: [N, d], PCs; of more than 20,000 cells, a random 20,000 decide.
    """
    rng = np.random.default_rng(seed)
    if len(points) > ESTIMATE_ON:
        points = points[np.sort(rng.choice(len(points), ESTIMATE_ON, replace=False))]
    graph = neighbour_graph(points, seed)
    size = max(2, round(SUBSET_SHARE * len(points)))
    subsets = [np.sort(rng.choice(len(points), size, replace=False)) for _ in range(N_SUBSETS)]
    graphs = [graph[subset].copy() for subset in subsets]
    numbers, stabilities = [], []
    for resolution in tqdm(RESOLUTIONS, desc="number of clusters", unit="resolution", disable=None):
        labels = [pd.Series(leiden(part, resolution, seed), index=subset) for part, subset in zip(graphs, subsets)]
        numbers.append(int(np.median([found.nunique() for found in labels])))
        stabilities.append(np.mean([_agreement(a, b) for a, b in combinations(labels, 2)]))
    stable = [number for number, stability in zip(numbers, stabilities) if number > 1 and stability >= STABLE]
    return max(stable, default=max(2, min(numbers)))


def _agreement(a: pd.Series, b: pd.Series) -> float:
    shared = a.index.intersection(b.index)
    return adjusted_rand_score(a[shared], b[shared])


def majority(labels: np.ndarray, nearest: sparse.csr_matrix) -> np.ndarray:
    """Every spot's most frequent label among its nearest spots and itself, [N].

    labels: [N] integers from 0; nearest: [N, N], 0/1, row i marks the spots that vote on i.
    Of equally frequent labels the spot's own wins, else the lowest, that of the larger cluster.
    """
    own = one_hot(labels, labels.max() + 1)
    votes = (nearest @ own + 1.5 * own).toarray()  # half a vote more for the own label decides ties, and nothing else
    return votes.argmax(axis=1)


def nearest(labels: list[np.ndarray], final: np.ndarray) -> int:
    """Which of several labellings agrees best with the final one (ARI; the first of equals)."""
    return int(np.argmax(np.round([adjusted_rand_score(own, final) for own in labels], 12)))


@contextmanager
def _no_convergence_warning() -> Iterator[None]:
    """An unfinished start, or fewer distinct points than clusters: cluster() says what it means for the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
