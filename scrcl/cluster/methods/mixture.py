"""A Gaussian mixture of tied covariance on the leading components, the likeliest of several starts: the recipe's method."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from scrcl.cluster.partition import by_size, one_hot, require_enough, sample, unfinished_starts_expected
from scrcl.runtime import limited_threads

STARTS = 12  # of the mixture, in all rounds together
WHITENED_ROUNDS = 2  # rounds of starts in the metric of the likeliest mixture so far
MIXTURE_DIMS = 20  # leading PCs the mixture sees: a covariance of 2H dimensions cannot be estimated
CELLS_PER_DIM = 15  # at least: with fewer, the covariance is mostly noise
RIDGE = 1e-6  # added to the variances of a mixture, as scikit-learn does; PCs are scaled to a variance of 1


def partitions(points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
    """A partition for each of the settings' `mixture_dims`, by its number of dimensions in words."""
    dims = sorted({dims_for(len(points), n_dims) for n_dims in settings.mixture_dims})
    points = leading_components(points, max(dims))
    return {
        f"{n_dims} dimensions": cluster(points, n_clusters, seed, n_dims, settings.mixture_rounds) for n_dims in dims
    }


@limited_threads(1)  # sums in an order that the number of threads does not change; and no slower
def cluster(
    points: np.ndarray, n_clusters: int, seed: int, n_dims: int = MIXTURE_DIMS, rounds: int = WHITENED_ROUNDS
) -> np.ndarray:
    """Cluster the rows of points [N, d] by the likeliest mixture on n_dims PCs, on fewer of few points (`dims_for`).

    Parameters
    ----------
    points, n_clusters, seed
        What is clustered, into how many clusters (a mixture may end with fewer), and where its starts come from.
    n_dims
        Leading components that the mixture sees.
    rounds
        Of starts in the metric of the likeliest mixture so far, see `likeliest_mixture`.

    Returns
    -------
    Integer labels [N], 0 the largest cluster. The mixture is fitted on a random 20,000 of more points.

    Raises
    ------
    UserError
        Where there are more clusters than points.
    """
    require_enough(points, n_clusters)
    points = leading_components(points, dims_for(len(points), n_dims))
    with unfinished_starts_expected():
        return by_size(likeliest_mixture(sample(points, n_clusters, seed), n_clusters, seed, rounds).predict(points))


def dims_for(n_cells: int, n_dims: int) -> int:
    """n_dims, or as many as so few cells allow a mixture, though never fewer than 2 for that."""
    return min(n_dims, max(2, n_cells // CELLS_PER_DIM))


@limited_threads(1)  # sums in an order that the number of threads does not change
def leading_components(points: np.ndarray, n_dims: int) -> np.ndarray:
    """The first n_dims principal components in float64, scaled to unit variance in all."""
    points = np.asarray(points, dtype=np.float64)
    reduced = PCA(min(n_dims, *points.shape), svd_solver="covariance_eigh").fit_transform(points)
    return reduced / max(reduced.std(), np.finfo(float).tiny)


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
