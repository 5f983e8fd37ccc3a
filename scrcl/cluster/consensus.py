"""What several partitions of the same cells agree on, by voting, and what the neighbours of a spot do."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.partition import by_size, one_hot

VOTE_STARTS = 6  # partitions the vote starts from, those that agree best with the others
VOTE_ROUNDS = 50  # at most; a handful suffices
AGREEMENT_ON = 5_000  # cells on which partitions are compared with each other


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
    return by_size(max(found, key=lambda labels: min(len(np.unique(labels)), n_clusters)))  # the first of equals


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


def nearest(labels: list[np.ndarray], final: np.ndarray) -> int:
    """Which of several labellings agrees best with the final one (ARI; the first of equals)."""
    return int(np.argmax(np.round([adjusted_rand_score(own, final) for own in labels], 12)))


def majority(labels: np.ndarray, nearest: sparse.csr_matrix) -> np.ndarray:
    """Every spot's most frequent label among its nearest spots and itself, [N].

    labels: [N] integers from 0; nearest: [N, N], 0/1, row i marks the spots that vote on i.
    Of equally frequent labels the spot's own wins, else the lowest, that of the larger cluster.
    """
    own = one_hot(labels, labels.max() + 1)
    votes = (nearest @ own + 1.5 * own).toarray()  # half a vote more for the own label decides ties, and nothing else
    return votes.argmax(axis=1)


def smoothed(labels: np.ndarray, voters: sparse.csr_matrix | None) -> np.ndarray:
    """Labels [N] after the vote of each spot's neighbours (`majority`), or as they are where there are no voters."""
    return labels if voters is None else majority(labels, voters)
