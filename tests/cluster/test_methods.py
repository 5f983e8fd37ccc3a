"""The methods of clustering: each finds what is there, twice the same, and the registry holds them all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from scrcl.cluster import partition, tied
from scrcl.cluster.methods import kmeans, mixture
from scrcl.messages import UserError
from scrcl.methods import METHODS
from scrcl.recipes import FIELDS, RECIPES


def blobs(n: int = 150, n_blobs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(n) % n_blobs
    return rng.normal(size=(n, 30)) + 12 * np.eye(30)[truth], truth


@pytest.mark.parametrize("method", METHODS)
def test_methods_find_blobs_twice_the_same(method):
    points, truth = blobs()
    labels = METHODS[method].cluster(points, 3, 5)
    assert adjusted_rand_score(labels, truth) == 1
    assert np.array_equal(labels, METHODS[method].cluster(points, 3, 5))
    assert np.array_equal(np.unique(labels), np.arange(3))


def test_kmeans_ignores_the_length_of_rows():
    points, _ = blobs()
    lengths = np.linspace(0.1, 10, len(points))[:, None]
    assert np.array_equal(kmeans.cluster(points, 3, 0), kmeans.cluster(points * lengths, 3, 0))


@pytest.mark.parametrize("method", METHODS)
def test_identical_points_do_not_break_a_method(method):
    labels = METHODS[method].cluster(np.ones((20, 4)), 3, 0)
    assert labels.shape == (20,) and labels.min() == 0


@pytest.mark.parametrize("method", METHODS)
def test_more_clusters_than_cells(method):
    with pytest.raises(UserError, match="only 5 cells"):
        METHODS[method].cluster(np.ones((5, 2)), 6, 0)


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
def test_large_data_are_fitted_on_a_part_and_all_assigned(monkeypatch, method):
    points, truth = blobs(600)
    monkeypatch.setattr(partition, "FIT_ON", 100)
    assert adjusted_rand_score(METHODS[method].cluster(points, 3, 1), truth) == 1


@pytest.mark.parametrize("recipe", RECIPES.values())
@pytest.mark.parametrize("method", METHODS)
def test_partitions_are_those_that_the_settings_ask_for(method, recipe):
    points, truth = blobs(600)
    found = METHODS[method].partitions(points, 3, 5, recipe(cluster_method="gmm"))
    expected = [f"{n_dims} dimensions" for n_dims in recipe().mixture_dims] if method == "gmm" else [""]
    assert list(found) == expected
    assert all(adjusted_rand_score(labels, truth) == 1 for labels in found.values())


def test_a_setting_takes_the_methods_of_the_registry():
    assert FIELDS["cluster_method"].choices == tuple(METHODS)
    assert all(how.what in FIELDS["cluster_method"].help for how in METHODS.values())


# The mixture


def discs(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Four clusters that lie flat above each other: far wider than they are apart."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 4
    return np.column_stack([rng.normal(size=n), 0.02 * rng.normal(size=n) + 0.2 * truth]), truth


def test_mixtures_start_in_their_own_metric_too():
    values, truth = discs()
    points = torch.as_tensor(values)
    found = mixture.likeliest_mixture(points, 4, seed=0)
    assert adjusted_rand_score(found.predict(points), truth) == 1
    plain = mixture.likeliest_mixture(points, 4, seed=0, rounds=0)
    assert adjusted_rand_score(plain.predict(points), truth) < 0.9 and plain.log_likelihood < found.log_likelihood


def test_few_cells_have_few_dimensions():
    assert [mixture.dims_for(n, 20) for n in (3, 29, 45, 299, 300, 10**6)] == [2, 2, 3, 19, 20, 20]
    points, truth = blobs(60, 3)
    assert adjusted_rand_score(mixture.cluster(points, 3, seed=0, n_dims=30), truth) == 1


def test_a_mixture_from_a_partition_keeps_what_is_right():
    points, truth = map(torch.as_tensor, discs())
    found = tied.fit(points, 5 * truth)  # any integers name clusters
    assert found.predict(points).equal(truth) and np.allclose(found.weights, 0.25, atol=1e-3)


def test_mixtures_of_several_starts_are_those_of_each_alone():
    points, truth = map(torch.as_tensor, discs())
    points = points + torch.as_tensor(np.random.default_rng(0).normal(scale=2, size=points.shape))
    # The second start ends later than the first, and the third has no cluster 3.
    starts = torch.stack([truth, torch.arange(len(truth)) % 4, truth.clamp_max(2)])
    together, alone = tied.fit(points, starts), [tied.fit(points, start) for start in starts]
    assert together.weights[2, 3] == 0 and together.weights[1, 3] > 0.01
    labels = together.predict(points)
    for start, one in enumerate(alone):
        mine = together.of_start(start)
        assert labels[start].equal(one.predict(points)) and mine.predict(points).equal(labels[start])
        assert torch.isclose(mine.log_likelihood, one.log_likelihood, rtol=0, atol=1e-12)


def test_a_mixture_is_the_one_of_scikit_learn(monkeypatch):
    """Both start from the same partition; after every number of steps they are alike."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 2)) + 2.5 * (np.arange(300) % 3)[:, None]  # they overlap
    start = (values[:, 0] > -1).astype(int) + (values[:, 0] > 0)  # most are in the wrong cluster
    shares = np.eye(3)[start]
    begun = map(torch.as_tensor, (shares, values, values.T @ values, -np.inf))
    first = tied.maximised(*begun)
    theirs = GaussianMixture(3, covariance_type="tied", reg_covar=tied.RIDGE, max_iter=tied.MOST_STEPS)
    theirs.weights_init, theirs.means_init = first.weights.numpy(), first.means.numpy()
    theirs.precisions_init = (first.whitener @ first.whitener.T).numpy()
    theirs.fit(values)
    ours = tied.fit(torch.as_tensor(values), torch.as_tensor(start))
    constant = values.shape[1] / 2 * np.log(2 * np.pi)
    assert theirs.n_iter_ > 3
    assert np.isclose(ours.log_likelihood - constant, theirs.lower_bound_, rtol=0, atol=1e-10)
    assert np.allclose(ours.means, theirs.means_, atol=1e-8) and np.allclose(ours.weights, theirs.weights_, atol=1e-10)
    assert np.allclose(ours.whitener, theirs.precisions_cholesky_, atol=1e-8)
    assert np.array_equal(ours.predict(torch.as_tensor(values)), theirs.predict(values))
    monkeypatch.setattr(tied, "ROWS", 7)
    assert np.array_equal(ours.predict(torch.as_tensor(values)), theirs.predict(values))


def test_a_partition_for_each_number_of_dimensions():
    """On 60 cells both numbers are cut down to 4, which is one partition."""
    points, truth = blobs(60)
    settings = SimpleNamespace(mixture_dims=[20, 30], mixture_rounds=1, device="cpu")
    found = mixture.partitions(points, 3, 5, settings)
    assert list(found) == ["4 dimensions"] and adjusted_rand_score(found["4 dimensions"], truth) == 1
    points, _ = blobs(450)
    assert list(mixture.partitions(points, 3, 5, settings)) == ["20 dimensions", "30 dimensions"]


def test_leading_components_of_many_points_are_those_of_few(monkeypatch):
    points = np.random.default_rng(0).normal(size=(60, 9)).astype(np.float32) * np.arange(1, 10) + 3
    expected = mixture.leading_components(points, 4)
    monkeypatch.setattr(mixture, "ROWS", 59)
    found = mixture.leading_components(points, 4)
    assert found.std() == pytest.approx(1) and np.allclose(found * np.sign((found * expected).sum(axis=0)), expected)
