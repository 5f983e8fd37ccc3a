"""What several partitions agree on, worked out by hand; and what the neighbours of a spot do."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.consensus import confidence, consensus, majority, nearest, smoothed
from scrcl.prepare import graphs


def test_a_consensus_by_hand():
    """Three partitions of six cells under other names: two say 000111, one puts the third cell on the other side."""
    votes = [np.array(labels) for labels in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [5, 5, 2, 2, 2, 2])]
    agreed = consensus(votes, 2)
    assert agreed.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.allclose(confidence(votes, agreed), [1, 1, 2 / 3, 1, 1, 1])
    assert np.allclose(confidence(votes, np.array([0, 0, 1, 1, 1, 1])), [1, 1, 1 / 3, 1, 1, 1])


def test_clusters_are_numbered_by_size():
    assert consensus([np.array([7, 2, 2, 2, 7, 5])], 3).tolist() == [1, 0, 0, 0, 1, 2]


def test_partitions_with_more_or_fewer_clusters_vote_too():
    votes = [np.array(labels) for labels in ([0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 0, 0], [0, 0, 1, 1])]
    agreed = consensus(votes, 2)
    assert agreed.tolist() == [0, 0, 1, 1]
    # The third cluster of one of them is none of the two.
    assert np.allclose(confidence(votes, agreed), [1, 1, 0.75, 0.5])


def test_clusters_beyond_what_was_asked_for_stay_apart():
    """Leiden finds three parts where two were asked for: they are not joined."""
    parts = [np.array([0, 0, 0, 1, 1, 2]), np.array([2, 2, 2, 0, 0, 1])]
    for votes in (parts[:1], parts):
        agreed = consensus(votes, 2)
        assert agreed.tolist() == [0, 0, 0, 1, 1, 2] and (confidence(votes, agreed) == 1).all()


def test_as_many_clusters_as_were_asked_for():
    """Five partitions agree on two clusters, and each has another cell alone as its third.

    Votes leave the third cluster empty, so one of the five is taken.
    """
    votes = [np.where(np.arange(8) == alone, 2, np.arange(8) // 4) for alone in (1, 2, 3, 5, 6)]
    agreed = consensus(votes, 3)
    assert agreed.tolist() == [1, 2, 1, 1, 0, 0, 0, 0]  # the first of the five, the largest cluster first
    assert np.allclose(confidence(votes, agreed), [1, 0.2, 0.8, 0.8, 1, 0.8, 0.8, 1])
    assert len(np.unique(consensus(votes, 2))) == 2


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(5, 60), k=st.integers(2, 5), n_partitions=st.integers(1, 6))
def test_any_partitions_give_a_consensus(seed, n, k, n_partitions):
    rng = np.random.default_rng(seed)
    truth = np.append(np.arange(k), rng.integers(0, k, n - k))
    votes = [np.where(rng.random(n) < 0.2, rng.integers(0, k, n), truth) for _ in range(n_partitions)]
    agreed = consensus(votes, k)
    assert len(np.unique(agreed)) == max(len(np.unique(own)) for own in votes)
    assert (np.diff(np.bincount(agreed)) <= 0).all()
    share = confidence(votes, agreed)
    assert share.shape == (n,) and share.min() >= 0 and share.max() <= 1
    alone = [rng.permutation(k)[truth]]
    assert adjusted_rand_score(consensus(alone, k), truth) == 1
    assert (confidence(alone, consensus(alone, k)) == 1).all()


def test_nearest():
    a, b, odd = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1])
    assert nearest([odd, a, b], np.array([0, 0, 1, 1])) == 1
    assert nearest([odd], a) == 0


def test_majority_by_hand():
    """A row of spots, each with its two nearest: lone labels give way; in a tie the own label stays."""
    places = np.arange(7.0)[:, None]
    near = graphs.nearest_spots(places, 2)
    assert list(majority(np.array([0, 0, 1, 0, 1, 1, 1]), near)) == [0, 0, 0, 1, 1, 1, 1]
    alone = sparse.csr_matrix((3, 3), dtype=np.float32)
    assert list(majority(np.array([2, 0, 1]), alone)) == [2, 0, 1]
    three_ways = sparse.csr_matrix(np.float32([[0, 1, 1], [0, 0, 0], [0, 0, 0]]))
    assert list(majority(np.array([2, 1, 0]), three_ways)) == [2, 1, 0]
    outvoted = sparse.csr_matrix(np.float32(np.ones((1, 5)) * [0, 1, 1, 1, 1])).toarray()
    voters = sparse.csr_matrix(np.vstack([outvoted, np.zeros((4, 5), dtype=np.float32)]))
    assert list(majority(np.array([2, 1, 1, 0, 0]), voters)) == [0, 1, 1, 0, 0]  # of 0 and 1 the lower


def test_majority_agrees_with_counting():
    rng = np.random.default_rng(0)
    places, labels = rng.normal(size=(80, 2)), rng.integers(0, 4, 80)
    near = graphs.nearest_spots(places, 7)
    for i, found in enumerate(majority(labels, near)):
        votes = np.bincount(labels[np.append(near[i].indices, i)], minlength=4)
        assert found == (labels[i] if votes[labels[i]] == votes.max() else votes.argmax())


def test_labels_are_smoothed_where_there_are_voters():
    labels, near = np.array([0, 0, 1, 0]), graphs.nearest_spots(np.arange(4.0)[:, None], 2)
    assert list(smoothed(labels, near)) == [0, 0, 0, 0] and smoothed(labels, None) is labels
