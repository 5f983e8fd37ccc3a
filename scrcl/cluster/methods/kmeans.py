"""k-means on rows of unit length, and so by cosine distance, as published."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from scrcl.cluster import lloyd
from scrcl.cluster.partition import by_size, require_enough, sample, unfinished_starts_expected
from scrcl.runtime import card_or_cpu, limited_threads

N_INIT = 8  # starts of k-means; the best by k-means' own objective is kept


def partitions(points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
    """Return the only partition that this method gives, under the key ''."""
    return {"": cluster(points, n_clusters, seed, card_or_cpu(settings.device))}


def cluster(points: np.ndarray, n_clusters: int, seed: int, device: str = "cpu") -> np.ndarray:
    """Cluster the rows of points by the direction they point in.

    Parameters
    ----------
    points
        [N, d].
    n_clusters
        How many clusters.
    seed
        For the starts, and for the random part that k-means is fitted on where there are more than 20,000 points.
    device
        'cpu', or a CUDA card.

    Returns
    -------
    [N] integers, 0 the largest cluster.

    Raises
    ------
    UserError
        When there are more clusters than points.
    """
    require_enough(points, n_clusters)
    return by_size(best_of(N_INIT, normalize(points), n_clusters, seed, device))


@limited_threads(1)  # so that the order of sums does not depend on the number of threads; it is no slower
def best_of(n_init: int, points: np.ndarray, n_clusters: int, seed: int, device: str = "cpu") -> np.ndarray:
    """Return k-means' labels of the points as they are, the best by its own objective of several starts.

    Parameters
    ----------
    n_init
        How many starts.
    points, n_clusters, seed
        As for `cluster`.
    device
        'cpu', or a CUDA card, which runs all starts at once.

    Returns
    -------
    [N] integers, in no order.
    """
    if device != "cpu":
        part, all_points = (
            torch.as_tensor(own, dtype=torch.float64, device=device)
            for own in (sample(points, n_clusters, seed), points)
        )
        found = lloyd.starts(part, n_clusters, [np.random.RandomState(seed)] * n_init)
        return lloyd.labels_by(found.centres[found.inertia.argmin()], all_points).cpu().numpy()
    with unfinished_starts_expected():
        model = KMeans(n_clusters, n_init=n_init, random_state=seed).fit(sample(points, n_clusters, seed))
        return model.predict(points)
