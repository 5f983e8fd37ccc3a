"""Clustering is deterministic and label-free; scores are those worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

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


def test_clusters_are_numbered_by_size():
    assert cluster.by_size(np.array([7, 2, 2, 2, 7, 5])).tolist() == [1, 0, 0, 0, 1, 2]


def test_most_agreeing():
    a, b, odd = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1])
    assert cluster.most_agreeing([odd, a, b]) == 1
    assert cluster.most_agreeing([odd]) == 0


def test_number_of_clusters_of_blobs_is_estimated():
    points, _ = blobs(400, 4)
    assert cluster.estimate_n_clusters(points, seed=0) == 4


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
