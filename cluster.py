"""Cluster an embedding, and estimate the number of clusters, without any label."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import anndata as ad
import numpy as np
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

N_INIT = 8  # starts of k-means; the best by its own objective is kept
STARTS = 12  # of the mixture, in all rounds together
WHITENED_ROUNDS = 2  # rounds of starts in the metric of the likeliest mixture so far
FIT_ON = 20_000  # cells a mixture or k-means is fitted on; all are assigned
MIXTURE_DIMS = 20  # leading PCs the mixture sees: a covariance of 2H dimensions cannot be estimated
CELLS_PER_DIM = 15  # at least: with fewer, the covariance is mostly noise
RIDGE = 1e-6  # added to the variances of a mixture, as scikit-learn does; PCs are scaled to a variance of 1
VOTE_STARTS = 6  # partitions the vote starts from, those that agree best with the others
VOTE_ROUNDS = 50  # at most; a handful suffices
AGREEMENT_ON = 5_000  # cells on which partitions are compared with each other

# Estimating the number of clusters
CONFIRMED = 0.85  # agreement of labels with the cell graph
PAIR_CONFIRMED = 0.5  # the same of any two clusters alone
MANY_CELLS = 2000  # with fewer, 15 neighbours reach out of a cluster more often
FEW_CELLS = 500  # with fewer, single cells make PCs of their own, and the cell graph confirms hardly any number
PAIR_APART = 0.1  # agreement of two clusters of few cells, below which they are one
GIVE_UP_AFTER = 3  # mixtures in a row that agree less
TRY_AT_LEAST = 12  # clusters: with few, a mixture may be spent on what lies far off
CELLS_PER_CLUSTER = 5


@limited_threads(1)  # sums in an order that the number of threads does not change; and no slower
def cluster(
    points: np.ndarray,
    n_clusters: int,
    method: str,
    seed: int,
    n_dims: int = MIXTURE_DIMS,
    rounds: int = WHITENED_ROUNDS,
) -> np.ndarray:
    """Cluster rows of points [N, d] into n_clusters; integer labels [N], 0 the largest cluster.

    method: 'gmm' (Gaussian mixture with tied covariance on n_dims PCs, on fewer of few points: dims_for), 'kmeans' (cosine: on
    rows of unit length), both fitted on a random 20,000 of more points; 'leiden' (scanpy's graph of 15
    neighbours, resolution searched). A method may end with another number of clusters. rounds: of the mixture's starts, see likeliest_mixture.
    Raises UserError where there are more clusters than points.
    """
    require_enough(points, n_clusters)
    if method == "leiden":
        return _by_size(_leiden(points, n_clusters, seed))
    points = leading_components(points, dims_for(len(points), n_dims)) if method == "gmm" else normalize(points)
    part = points
    if len(points) > FIT_ON:
        chosen = np.random.default_rng(seed).choice(len(points), max(FIT_ON, n_clusters), replace=False)
        part = points[np.sort(chosen)]
    with _no_convergence_warning():
        if method == "gmm":
            model = likeliest_mixture(part, n_clusters, seed, rounds)
        else:
            model = KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit(part)
        return _by_size(model.predict(points))


def dims_for(n_cells: int, n_dims: int) -> int:
    """n_dims, or as many as so few cells allow a mixture, though never fewer than 2 for that."""
    return min(n_dims, max(2, n_cells // CELLS_PER_DIM))


def likeliest_mixture(points: np.ndarray, n_clusters: int, seed: int, rounds: int = WHITENED_ROUNDS) -> GaussianMixture:
    """The likeliest of several Gaussian mixtures with tied covariance, each started from a k-means of its own.

    k-means takes all directions for alike, and so starts by cutting along those in which every cluster is wide. Hence so many
    rounds more, of at most STARTS in all, start from k-means in the metric of the likeliest mixture so far, in which clusters are round.
    points: [N, d] float64, of a variance near 1.
    """
    per_round = max(1, STARTS // (1 + rounds))
    seeds = iter(np.random.SeedSequence(seed).generate_state(per_round * (1 + rounds)))
    tried: list[GaussianMixture] = []
    metric = np.eye(points.shape[1])
    for _ in range(1 + rounds):
        for _ in range(per_round):
            start = KMeans(n_clusters, n_init=1, random_state=int(next(seeds))).fit_predict(points @ metric)
            tried.append(mixture_from(points, start))
        likeliest = max(tried, key=lambda mixture: mixture.lower_bound_)
        metric = likeliest.precisions_cholesky_
    return likeliest


def mixture_from(points: np.ndarray, labels: np.ndarray) -> GaussianMixture:
    """A Gaussian mixture with tied covariance, fitted from the means, weights and covariance of a partition."""
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means = (one_hot(labels, len(sizes)).T @ points) / sizes[:, None]
    rest = points - means[labels]
    covariance = rest.T @ rest / len(points) + RIDGE * np.eye(points.shape[1])
    model = GaussianMixture(
        len(sizes),
        covariance_type="tied",
        reg_covar=RIDGE,
        max_iter=200,
        weights_init=sizes / len(points),
        means_init=means,
        precisions_init=np.linalg.inv(covariance),
        random_state=0,  # nothing is drawn
    )
    return model.fit(points)


def agreement_with_graph(labels: np.ndarray, graph: sparse.spmatrix) -> float:
    """How much more often the ends of an edge share a label than by chance, as a share of the most possible: 1 where all do, near 0 for random labels.

    The assortativity of Newman 2003 (Mixing patterns in networks, eq. 2), which is Cohen's kappa of the labels of neighbours.
    Big clusters cut in two lose many edges; one cluster of nearly all cells gains none, since chance does as well.
    labels: [N] integers from 0; graph: [N, N] symmetric. 0 for a graph without edges, and for a single label.
    """
    return _agreement(edges_between(labels, graph))


def edges_between(labels: np.ndarray, graph: sparse.spmatrix) -> np.ndarray:
    """[K, K] float64, the weight of the edges from cluster to cluster."""
    ends = one_hot(labels, labels.max() + 1).astype(np.float64)  # float32 counts no further than to 2^24
    return (ends.T @ graph @ ends).toarray()


def _agreement(between: np.ndarray) -> float:
    return float(_assortativity(np.trace(between), between.sum(axis=1)))


def _assortativity(inside: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of edges of which inside, [...], are within clusters, and that have so many ends in each, [..., K]; 0 where it is not defined."""
    total = ends.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_chance = (ends**2).sum(axis=-1) / total**2
        return np.nan_to_num((inside / total - by_chance) / (1 - by_chance), posinf=0.0, neginf=0.0)


def _by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters numbered 0, 1, ... by falling size."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[inverse]


def consensus(partitions: list[np.ndarray], n_clusters: int) -> np.ndarray:
    """What several partitions of the same cells agree on, by voting: integer labels [N], 0 the largest cluster.

    Clusters of every partition are matched with those of the consensus, one to one and with the most
    votes in common (Hungarian method); the consensus is the mean of the matched partitions; repeated
    until nothing changes (fixed point of Dimitriadou, Weingessel and Hornik 2002, A combination
    scheme for fuzzy clustering). Of several starts, the one with the clearest votes stays. Linear in cells.

    Where its votes leave a cluster empty, the final labels are those of the partition that agrees best with the
    others: whoever asks for twelve clusters gets twelve, unless all partitions have fewer.

    partitions: [N] integers from 0 each; n_clusters: as many as were asked for.
    """
    partitions = [np.unique(labels, return_inverse=True)[1] for labels in partitions]
    starts = _most_agreeing(partitions, VOTE_STARTS)
    clearest = max((_vote(partitions, start) for start in starts), key=_clearness)
    found = [clearest.argmax(axis=1), *starts]
    return _by_size(max(found, key=lambda labels: min(len(np.unique(labels)), n_clusters)))  # the first of equals


def confidence(partitions: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """[N] float32, the share of the partitions that put a cell where labels do, their clusters matched with those of labels one to one.

    partitions, labels: [N] integers from 0 each.
    """
    return _votes(partitions, one_hot(labels, labels.max() + 1).toarray())[np.arange(len(labels)), labels]


def _vote(partitions: list[np.ndarray], start: np.ndarray) -> np.ndarray:
    """The membership, [N, K] float32, that voting ends in from one partition: each cluster's share of the votes on a cell."""
    most = max(labels.max() for labels in partitions) + 1
    shares = one_hot(start, most).toarray()
    for _ in range(VOTE_ROUNDS):
        votes = _votes(partitions, shares)
        if np.array_equal(votes, shares):
            break
        shares = votes
    return shares


def _votes(partitions: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """[N, K] float32, the mean of the partitions, the clusters of each matched with these; those that find no match have no vote."""
    votes = np.zeros_like(shares)
    for labels in partitions:
        common = one_hot(labels, labels.max() + 1).T @ shares
        ours, consensus_of = linear_sum_assignment(common, maximize=True)
        match = np.full(labels.max() + 1, -1)
        match[ours] = consensus_of
        cells = np.flatnonzero(match[labels] >= 0)
        votes[cells, match[labels[cells]]] += 1
    votes /= len(partitions)
    return votes


def _clearness(shares: np.ndarray) -> float:
    """The more the votes agree, the higher; rounded, so that equals stay equal."""
    return float(np.round((shares.astype(np.float64) ** 2).sum(), 6))


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


@limited_threads(1)  # sums in an order that the number of threads does not change
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
def estimate_n_clusters(points: np.ndarray, graph: sparse.spmatrix, seed: int, enough: float = CONFIRMED) -> int:
    """The largest number of clusters that the cell graph confirms, without labels.

    Mixtures of more and more clusters are fitted. In each, two clusters are merged while among their cells alone neighbours share
    a cluster in less than PAIR_CONFIRMED of all cases beyond chance (agreement_with_graph): a cut through what does not fall apart.
    What is left counts where it agrees with the graph by enough as a whole. The largest such number is the result, at least 2.
    Fitting ends when a few mixtures in a row, as they are, agree by less. The rule is akin to prediction
    strength (Tibshirani and Walther 2005), with neighbours in place of a second sample.

    points: [N, d], PCs; graph: [N, N] symmetric, the cell graph; enough: agreement from 0 to 1, see enough_agreement.
    """
    points = leading_components(points, MIXTURE_DIMS)
    confirmed, in_vain = 2, 0
    for number in tqdm(_numbers_to_try(len(points)), desc="number of clusters", disable=None):
        between = edges_between(cluster(points, number, "gmm", seed), graph)
        merged = _merge_unconfirmed(between)
        if _agreement(merged) >= enough:
            confirmed = max(confirmed, len(merged))
        in_vain = 0 if _agreement(between) >= enough else in_vain + 1
        if in_vain >= GIVE_UP_AFTER and number >= TRY_AT_LEAST:
            break
    return confirmed


def enough_agreement(n_cells: int) -> float:
    """Agreement with a graph of the nearest cells that confirms a number of clusters.

    The fewer cells, the farther the same number of neighbours reaches, and the more edges leave the clusters that there are. So
    below 2,000 cells more disagreement is allowed, by a power of the number of cells that was measured on parts of real data.
    """
    return 1 - (1 - CONFIRMED) * max(1.0, MANY_CELLS / n_cells) ** 0.6


@limited_threads(1)  # sums in an order that the number of threads does not change
def estimate_of_cells(points: np.ndarray, graph: sparse.spmatrix, seed: int) -> int:
    """The number of clusters of cells, without labels; at least 2.

    What the cell graph confirms (estimate_n_clusters). Of fewer than 500 cells it confirms hardly any number, since most of their
    neighbours are of other types: there it is the number of Leiden clusters at scanpy's resolution of 1, of which two are one where
    they agree with the graph by less than PAIR_APART. Like scanpy's, it is above 2 for cells that do not differ.

    points: [N, d], PCs; graph: [N, N] symmetric, the cell graph.
    """
    if len(points) >= FEW_CELLS:
        return estimate_n_clusters(points, graph, seed, enough_agreement(len(points)))
    if len(points) < 3 * CELLS_PER_CLUSTER:
        return 2
    between = edges_between(leiden(neighbour_graph(points, seed), 1.0, seed), graph)
    return max(2, len(_merge_unconfirmed(between, PAIR_APART)))


def _merge_unconfirmed(between: np.ndarray, confirmed: float = PAIR_CONFIRMED) -> np.ndarray:
    """edges_between once the pair of clusters that agrees least with the graph has been merged, again and again, while it is not confirmed."""
    while len(between) > 1:
        one, other = np.triu_indices(len(between), k=1)
        across = between[one, other]
        ends = np.stack([between[one, one] + across, between[other, other] + across], axis=-1)
        agreement = _assortativity(between[one, one] + between[other, other], ends)
        least = int(agreement.argmin())
        if agreement[least] >= confirmed:
            break
        into = np.arange(len(between))
        into[other[least]] = one[least]
        merge = one_hot(np.unique(into, return_inverse=True)[1], len(between) - 1)
        between = merge.T @ between @ merge
    return between


def _numbers_to_try(n_cells: int) -> list[int]:
    """2, 3, ..., and beyond 12 in steps of an eighth, up to a mean of CELLS_PER_CLUSTER cells each."""
    numbers = [2]
    while (following := numbers[-1] + max(1, numbers[-1] // 8 + (numbers[-1] >= 12))) * CELLS_PER_CLUSTER <= n_cells:
        numbers.append(following)
    return numbers


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
