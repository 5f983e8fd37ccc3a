"""k-means on rows of unit length, so by cosine distance, as published."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from scrcl.cluster.partition import by_size, require_enough, sample, unfinished_starts_expected
from scrcl.runtime import limited_threads

N_INIT = 8  # starts of k-means; the best by its own objective is kept


def partitions(points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
    """The one partition that there is."""
    return {"": cluster(points, n_clusters, seed)}


@limited_threads(1)  # sums in an order that the number of threads does not change; and no slower
def cluster(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Cluster the rows of points [N, d] by the direction in which they point; integer labels [N], 0 the largest cluster.

    Fitted on a random 20,000 of more points.

    Raises
    ------
    UserError
        Where there are more clusters than points.
    """
    require_enough(points, n_clusters)
    points = normalize(points)
    with unfinished_starts_expected():
        model = KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit(sample(points, n_clusters, seed))
        return by_size(model.predict(points))
