"""Clustering is deterministic and label-free; scores are those worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, cohen_kappa_score

import cluster
import graphs
from score import matched_types, score
from utils import UserError


def blobs(n: int = 150, n_blobs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(n) % n_blobs
    return rng.normal(size=(n, 30)) + 12 * np.eye(30)[truth], truth


@pytest.mark.parametrize("method", ["kmeans", "gmm", "leiden"])
def test_methods_find_blobs_twice_the_same(method):
    points, truth = blobs()
    labels = cluster.cluster(points, 3, method, seed=5)
    assert adjusted_rand_score(labels, truth) == 1
    assert np.array_equal(labels, cluster.cluster(points, 3, method, seed=5))
    assert np.array_equal(np.unique(labels), np.arange(3))


def test_kmeans_ignores_the_length_of_rows():
    points, _ = blobs()
    lengths = np.linspace(0.1, 10, len(points))[:, None]
    assert np.array_equal(cluster.cluster(points, 3, "kmeans", 0), cluster.cluster(points * lengths, 3, "kmeans", 0))


@pytest.mark.parametrize("method", ["kmeans", "gmm", "leiden"])
def test_identical_points_do_not_break_a_method(method):
    labels = cluster.cluster(np.ones((20, 4)), 3, method, seed=0)
    assert labels.shape == (20,) and labels.min() == 0


def test_more_clusters_than_cells():
    with pytest.raises(UserError, match="only 5 cells"):
        cluster.cluster(np.ones((5, 2)), 6, "gmm", seed=0)


def test_a_consensus_by_hand():
    """Three partitions of six cells under other names: two say 000111, one puts the third cell on the other side."""
    votes = [np.array(labels) for labels in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [5, 5, 2, 2, 2, 2])]
    agreed = cluster.consensus(votes, 2)
    assert agreed.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.allclose(cluster.confidence(votes, agreed), [1, 1, 2 / 3, 1, 1, 1])
    assert np.allclose(cluster.confidence(votes, np.array([0, 0, 1, 1, 1, 1])), [1, 1, 1 / 3, 1, 1, 1])


def test_clusters_are_numbered_by_size():
    assert cluster.consensus([np.array([7, 2, 2, 2, 7, 5])], 3).tolist() == [1, 0, 0, 0, 1, 2]


def test_partitions_with_more_or_fewer_clusters_vote_too():
    votes = [np.array(labels) for labels in ([0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 0, 0], [0, 0, 1, 1])]
    agreed = cluster.consensus(votes, 2)
    assert agreed.tolist() == [0, 0, 1, 1]
    # The third cluster of one of them is none of the two.
    assert np.allclose(cluster.confidence(votes, agreed), [1, 1, 0.75, 0.5])


def test_clusters_beyond_what_was_asked_for_stay_apart():
    """Leiden finds three parts where two were asked for: they are not joined."""
    parts = [np.array([0, 0, 0, 1, 1, 2]), np.array([2, 2, 2, 0, 0, 1])]
    for votes in (parts[:1], parts):
        agreed = cluster.consensus(votes, 2)
        assert agreed.tolist() == [0, 0, 0, 1, 1, 2] and (cluster.confidence(votes, agreed) == 1).all()


def test_as_many_clusters_as_were_asked_for():
    """Five partitions agree on two clusters, and each has a third cell alone: votes leave the third cluster empty, one of the five is taken."""
    votes = [np.where(np.arange(8) == alone, 2, np.arange(8) // 4) for alone in (1, 2, 3, 5, 6)]
    agreed = cluster.consensus(votes, 3)
    assert agreed.tolist() == [1, 2, 1, 1, 0, 0, 0, 0]  # the first of the five, the largest cluster first
    assert np.allclose(cluster.confidence(votes, agreed), [1, 0.2, 0.8, 0.8, 1, 0.8, 0.8, 1])
    assert len(np.unique(cluster.consensus(votes, 2))) == 2


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(5, 60), k=st.integers(2, 5), n_partitions=st.integers(1, 6))
def test_any_partitions_give_a_consensus(seed, n, k, n_partitions):
    rng = np.random.default_rng(seed)
    truth = np.append(np.arange(k), rng.integers(0, k, n - k))
    votes = [np.where(rng.random(n) < 0.2, rng.integers(0, k, n), truth) for _ in range(n_partitions)]
    agreed = cluster.consensus(votes, k)
    assert len(np.unique(agreed)) == max(len(np.unique(own)) for own in votes)
    assert (np.diff(np.bincount(agreed)) <= 0).all()
    share = cluster.confidence(votes, agreed)
    assert share.shape == (n,) and share.min() >= 0 and share.max() <= 1
    alone = [rng.permutation(k)[truth]]
    assert adjusted_rand_score(cluster.consensus(alone, k), truth) == 1
    assert (cluster.confidence(alone, cluster.consensus(alone, k)) == 1).all()


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
def test_large_data_are_fitted_on_a_part_and_all_assigned(monkeypatch, method):
    points, truth = blobs(600)
    monkeypatch.setattr(cluster, "FIT_ON", 100)
    assert adjusted_rand_score(cluster.cluster(points, 3, method, seed=1), truth) == 1


def test_nearest():
    a, b, odd = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1])
    assert cluster.nearest([odd, a, b], np.array([0, 0, 1, 1])) == 1
    assert cluster.nearest([odd], a) == 0


@pytest.mark.parametrize(("n_blobs", "size"), [(2, 12), (2, 60), (4, 60), (9, 12), (9, 60)])
def test_number_of_clusters_of_blobs_is_estimated(n_blobs, size):
    points, _ = blobs(size * n_blobs, n_blobs)
    graph = graphs.cell_graph(points, 15, "euclidean", seed=0)
    assert cluster.estimate_of_cells(points, graph, 0) == n_blobs
    if size > 15:
        assert cluster.estimate_n_clusters(points, graph, 0) == n_blobs


@pytest.mark.parametrize(("n_cells", "how"), [(14, "two"), (15, "leiden"), (499, "leiden"), (500, "graph")])
def test_the_number_of_few_cells_is_that_of_leiden(monkeypatch, n_cells, how):
    monkeypatch.setattr(cluster, "estimate_n_clusters", lambda points, graph, seed, enough: "graph")
    monkeypatch.setattr(cluster, "leiden", lambda graph, resolution, seed: np.arange(graph.n_obs) % 3)
    points, _ = blobs(n_cells, 3)
    mixed = sparse.csr_matrix(np.ones((n_cells, n_cells), dtype=np.float32))
    apart = sparse.csr_matrix((np.arange(n_cells)[:, None] - np.arange(n_cells)) % 3 == 0).astype(np.float32)
    assert cluster.estimate_of_cells(points, apart, 0) == {"two": 2, "leiden": 3, "graph": "graph"}[how]
    assert cluster.estimate_of_cells(points, mixed, 0) == {"two": 2, "leiden": 2, "graph": "graph"}[how]


def test_enough_agreement_by_hand():
    """2000 / 625 = 3.2, 3.2^0.6 = 2.0095: twice the disagreement."""
    assert [round(cluster.enough_agreement(n), 3) for n in (10**6, 2000, 625)] == [0.85, 0.85, 0.699]


def test_one_blob_is_not_cut_into_many():
    points = np.random.default_rng(0).normal(size=(300, 30))
    assert cluster.estimate_n_clusters(points, graphs.cell_graph(points, 15, "euclidean", seed=0), seed=0) == 2


def test_few_cells_have_a_number_of_clusters():
    points = np.random.default_rng(0).normal(size=(4, 3))
    assert cluster.estimate_n_clusters(points, sparse.csr_matrix(np.ones((4, 4)) - np.eye(4)), seed=0) == 2


def path_graph(n: int) -> sparse.csr_matrix:
    return sparse.diags([np.ones(n - 1), np.ones(n - 1)], [-1, 1]).tocsr()


def test_agreement_with_a_graph_by_hand():
    """The path a-b-c-d, labels 0011: 2 of 3 edges are within, half would be by chance: (2/3 - 1/2) / (1 - 1/2)."""
    assert np.isclose(cluster.agreement_with_graph(np.array([0, 0, 1, 1]), path_graph(4)), 1 / 3)
    assert np.isclose(cluster.agreement_with_graph(np.array([0, 1, 0, 1]), path_graph(4)), -1)
    assert cluster.agreement_with_graph(np.zeros(4, dtype=int), path_graph(4)) == 0
    assert cluster.agreement_with_graph(np.array([0, 0, 1, 1]), sparse.csr_matrix((4, 4))) == 0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(6, 40), k=st.integers(2, 6))
def test_agreement_with_a_graph_is_kappa_of_the_ends_of_its_edges(seed, n, k):
    rng = np.random.default_rng(seed)
    graph = sparse.random(n, n, 0.3, random_state=rng, format="csr")
    graph = ((graph + graph.T) > 0).astype(np.float32)
    labels = np.append(np.arange(k), rng.integers(0, k, n - k))
    row, column = graph.nonzero()
    if len(set(labels[row])) > 1:
        expected = cohen_kappa_score(labels[row], labels[column])
        assert np.isclose(cluster.agreement_with_graph(labels, graph), expected, atol=1e-6)


def test_unconfirmed_clusters_are_merged_by_hand():
    """Clusters 0 and 1 share 4 of 10 edge ends each, 2 shares none with them: two of three stay, with all of the edges."""
    between = np.array([[6.0, 4.0, 0.0], [4.0, 6.0, 0.0], [0.0, 0.0, 10.0]])
    assert cluster._merge_unconfirmed(between).tolist() == [[20, 0], [0, 10]]
    assert cluster._merge_unconfirmed(np.diag([5.0, 5.0])).tolist() == [[5, 0], [0, 5]]


def discs(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Four clusters that lie flat above each other: far wider than they are apart."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 4
    return np.column_stack([rng.normal(size=n), 0.02 * rng.normal(size=n) + 0.2 * truth]), truth


def test_mixtures_start_in_their_own_metric_too():
    points, truth = discs()
    found = cluster.likeliest_mixture(points, 4, seed=0)
    assert adjusted_rand_score(found.predict(points), truth) == 1
    plain = cluster.likeliest_mixture(points, 4, seed=0, rounds=0)
    assert adjusted_rand_score(plain.predict(points), truth) < 0.9 and plain.lower_bound_ < found.lower_bound_


def test_few_cells_have_few_dimensions():
    assert [cluster.dims_for(n, 20) for n in (3, 29, 45, 299, 300, 10**6)] == [2, 2, 3, 19, 20, 20]
    points, truth = blobs(60, 3)
    assert adjusted_rand_score(cluster.cluster(points, 3, "gmm", seed=0, n_dims=30), truth) == 1


def test_a_mixture_from_a_partition_keeps_what_is_right():
    points, truth = discs()
    found = cluster.mixture_from(points, 5 * truth)  # any integers name clusters
    assert np.array_equal(found.predict(points), truth) and np.allclose(found.weights_, 0.25, atol=1e-3)


def series(text: str) -> pd.Series:
    return pd.Series([None if letter == "." else letter for letter in text], index=[f"c{i}" for i in range(len(text))])


def test_score_by_hand():
    """Clusters 0 (4 cells: AAAB), 1 (2: BB), 2 (1: A). Matched: 0 = A, 1 = B, 2 without partner.

    Right: 3 + 2 = 5 of 7. Recall A 3/4, B 2/3. Precision A 3/4, B 2/2: F1 A 3/4, B 4/5.
    """
    found = score(series("0000112"), series("AAABBBA"))
    assert np.isclose(found["ACC"], 5 / 7)
    assert found["recall"] == {"A": 3 / 4, "B": 2 / 3}
    assert np.isclose(found["F1"], (3 / 4 + 4 / 5) / 2)
    assert np.isclose(found["ARI"], adjusted_rand_score(list("AAABBBA"), list("0000112")))
    assert found["n_scored"] == 7


def test_more_types_than_clusters():
    found = score(series("000"), series("AAB"))
    assert np.isclose(found["ACC"], 2 / 3) and found["recall"] == {"A": 1, "B": 0} and found["ARI"] == 0


def test_missing_labels_on_either_side_are_left_out():
    found = score(series("00.11"), series("AAAB."))
    assert found["n_scored"] == 3 and found["ACC"] == 1


def test_scoring_changes_nothing():
    predicted, known = series("0011"), series("ABBB")
    before = predicted.copy(), known.copy()
    score(predicted, known)
    pd.testing.assert_series_equal(predicted, before[0])
    pd.testing.assert_series_equal(known, before[1])


def test_matching_is_one_to_one():
    assert matched_types(series("001122"), series("AAAAAB")) in ({"0": "A", "2": "B"}, {"1": "A", "2": "B"})


def test_majority_by_hand():
    """A row of spots, each with its two nearest: lone labels give way; in a tie the own label stays."""
    places = np.arange(7.0)[:, None]
    nearest = graphs.nearest_spots(places, 2)
    assert list(cluster.majority(np.array([0, 0, 1, 0, 1, 1, 1]), nearest)) == [0, 0, 0, 1, 1, 1, 1]
    alone = sparse.csr_matrix((3, 3), dtype=np.float32)
    assert list(cluster.majority(np.array([2, 0, 1]), alone)) == [2, 0, 1]
    three_ways = sparse.csr_matrix(np.float32([[0, 1, 1], [0, 0, 0], [0, 0, 0]]))
    assert list(cluster.majority(np.array([2, 1, 0]), three_ways)) == [2, 1, 0]
    outvoted = sparse.csr_matrix(np.float32(np.ones((1, 5)) * [0, 1, 1, 1, 1])).toarray()
    voters = sparse.csr_matrix(np.vstack([outvoted, np.zeros((4, 5), dtype=np.float32)]))
    assert list(cluster.majority(np.array([2, 1, 1, 0, 0]), voters)) == [0, 1, 1, 0, 0]  # of 0 and 1 the lower


def test_majority_agrees_with_counting():
    rng = np.random.default_rng(0)
    places, labels = rng.normal(size=(80, 2)), rng.integers(0, 4, 80)
    nearest = graphs.nearest_spots(places, 7)
    for i, found in enumerate(cluster.majority(labels, nearest)):
        votes = np.bincount(labels[np.append(nearest[i].indices, i)], minlength=4)
        assert found == (labels[i] if votes[labels[i]] == votes.max() else votes.argmax())
