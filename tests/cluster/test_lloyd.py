"""k-means of several starts at once, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from scrcl.cluster import lloyd


def points(n: int, n_clusters: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 5 + rng.normal(size=(n, d)) + 2 * rng.normal(size=(n_clusters, d))[rng.integers(n_clusters, size=n)]


@pytest.mark.parametrize(("n", "n_clusters", "d"), [(400, 2, 3), (900, 12, 10), (60, 20, 2)])
def test_every_start_is_that_of_scikit_learn(n, n_clusters, d):
    x, seeds = points(n, n_clusters, d), [1, 2, 3, 4]
    found = lloyd.starts(torch.as_tensor(x), n_clusters, [np.random.RandomState(seed) for seed in seeds])
    for i, seed in enumerate(seeds):
        asked = KMeans(n_clusters, n_init=1, random_state=seed).fit(x)
        assert np.array_equal(found.labels[i], asked.labels_)
        assert np.allclose(found.centres[i], asked.cluster_centers_) and np.isclose(found.inertia[i], asked.inertia_)
    assert np.array_equal(lloyd.labels_by(found.centres[0], torch.as_tensor(x)), found.labels[0])


def test_starts_that_share_a_random_state_are_those_of_one_fit():
    x, state = points(300, 6, 4), np.random.RandomState(7)
    found = lloyd.starts(torch.as_tensor(x), 6, [state] * 5)
    assert np.isclose(found.inertia.min(), KMeans(6, n_init=5, random_state=7).fit(x).inertia_)


def test_fewer_distinct_points_than_clusters():
    x = torch.as_tensor(np.repeat([[0.0, 0.0], [1.0, 1.0]], 5, axis=0))
    found = lloyd.starts(x, 4, [np.random.RandomState(0)])
    assert len(found.labels.unique()) == 2 and np.isclose(found.inertia, 0)
