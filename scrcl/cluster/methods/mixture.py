"""A Gaussian mixture of tied covariance on the leading PCs, the likeliest of several starts; the recipe's method."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from scrcl.cluster import lloyd, tied
from scrcl.cluster.partition import by_size, require_enough, sample, unfinished_starts_expected
from scrcl.cluster.tied import Mixture
from scrcl.prepare.components import ROWS, components
from scrcl.runtime import card_or_cpu, limited_threads

STARTS = 12  # starts of the mixture in all rounds together
WHITENED_ROUNDS = 2  # rounds of starts in the metric of the likeliest mixture so far
MIXTURE_DIMS = 20  # leading PCs that the mixture sees; a covariance of 2H dimensions cannot be estimated
CELLS_PER_DIM = 15  # at least; with fewer, the covariance is mostly noise


def partitions(points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
    """Return one partition for each of the settings' `mixture_dims`, by its number of dimensions.

    Parameters
    ----------
    points
        [N, d].
    n_clusters, seed
        As for `cluster`.
    settings
        The recipe, with mixture_dims, mixture_rounds and device.
    """
    dims = sorted({dims_for(len(points), n_dims) for n_dims in settings.mixture_dims})
    # Once for all, since the first PCs of PCs are themselves.
    points = leading_components(points, max(dims), card_or_cpu(settings.device))
    return {
        f"{n_dims} dimensions": cluster(points, n_clusters, seed, n_dims, settings.mixture_rounds, settings.device)
        for n_dims in dims
    }


@limited_threads(1)  # so that the order of sums does not depend on the number of threads; it is no slower
def cluster(
    points: np.ndarray,
    n_clusters: int,
    seed: int,
    n_dims: int = MIXTURE_DIMS,
    rounds: int = WHITENED_ROUNDS,
    device: str = "cpu",
) -> np.ndarray:
    """Cluster the rows of points by the likeliest mixture on their leading PCs.

    With more than 20,000 points, the mixture is fitted on a random 20,000.

    Parameters
    ----------
    points
        [N, d].
    n_clusters
        How many clusters; a mixture may end with fewer.
    seed
        For the starts of the mixture, and for the random part.
    n_dims
        How many leading PCs the mixture sees; fewer for few points (`dims_for`).
    rounds
        Rounds of starts in the metric of the likeliest mixture so far, see `likeliest_mixture`.
    device
        Where the mixtures are fitted if it is a CUDA card; else on the CPU, since others have no float64.

    Returns
    -------
    [N] integers, 0 the largest cluster.

    Raises
    ------
    UserError
        When there are more clusters than points.
    """
    require_enough(points, n_clusters)
    place = card_or_cpu(device)
    points = leading_components(points, dims_for(len(points), n_dims), place)
    with unfinished_starts_expected():
        part = torch.as_tensor(sample(points, n_clusters, seed), device=place)
        mixture = likeliest_mixture(part, n_clusters, seed, rounds)
    return by_size(mixture.predict(torch.as_tensor(points, device=place)).cpu().numpy())


def dims_for(n_cells: int, n_dims: int) -> int:
    """Return the number of dimensions that a mixture of so many cells can use.

    It is n_dims at most, and one per CELLS_PER_DIM cells but at least 2.
    """
    return min(n_dims, max(2, n_cells // CELLS_PER_DIM))


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def leading_components(points: np.ndarray, n_dims: int, device: str = "cpu") -> np.ndarray:
    """Return the first n_dims principal components, scaled together to unit variance.

    Parameters
    ----------
    points
        [N, d].
    n_dims
        How many; fewer are returned where there are no more.
    device
        Where products are computed: 'cpu', or a CUDA card.

    Returns
    -------
    [N, n_dims] float64.
    """
    n_dims = min(n_dims, *points.shape)
    if device == "cpu" and len(points) <= ROWS:
        points = np.asarray(points, dtype=np.float64)
        reduced = PCA(n_dims, svd_solver="covariance_eigh").fit_transform(points)
    else:  # many points would take twice their memory in float64
        reduced = components(points, n_dims, device)
    return reduced / max(reduced.std(), np.finfo(float).tiny)


def likeliest_mixture(points: Tensor, n_clusters: int, seed: int, rounds: int = WHITENED_ROUNDS) -> Mixture:
    """Return the likeliest of several Gaussian mixtures with tied covariance, each started from its own k-means.

    k-means treats all directions alike, so it starts by cutting along the directions in which every cluster is wide.
    Hence further rounds start from k-means in the metric of the likeliest mixture so far, in which clusters are round.

    Parameters
    ----------
    points
        [N, d] float64, of a variance near 1.
    n_clusters
        How many clusters.
    seed
        For k-means.
    rounds
        How many further rounds; all rounds together have STARTS starts at most.
    """
    per_round = max(1, STARTS // (1 + rounds))
    seeds = iter(np.random.SeedSequence(seed).generate_state(per_round * (1 + rounds)))
    tried: list[Mixture] = []
    seen = points  # the first round sees the points as they are
    for _ in range(1 + rounds):
        tried += _fitted(points, _starts(seen, n_clusters, [int(next(seeds)) for _ in range(per_round)]))
        likeliest = max(tried, key=lambda mixture: float(mixture.log_likelihood))
        seen = points @ likeliest.whitener
    return likeliest


def _starts(points: Tensor, n_clusters: int, seeds: list[int]) -> Tensor:
    """Return the labels of k-means for each seed, [S, N], on the device that holds the points."""
    if points.is_cuda:
        return lloyd.starts(points, n_clusters, [np.random.RandomState(seed) for seed in seeds]).labels
    fitted = (KMeans(n_clusters, n_init=1, random_state=seed).fit(points.numpy()) for seed in seeds)
    return torch.stack([torch.as_tensor(model.labels_) for model in fitted])


def _fitted(points: Tensor, starts: Tensor) -> list[Mixture]:
    """Return a mixture for each start [S, N]: on a card all at once, on a CPU one by one, which is faster there."""
    if not points.is_cuda:
        return [tied.fit(points, start) for start in starts]
    mixtures = tied.fit(points, starts)
    return [mixtures.of_start(start) for start in range(len(starts))]
