"""Combine several partitions of the same cells by voting, and smooth the labels of spots by their neighbours."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.partition import by_size, one_hot

VOTE_STARTS = 6  # the vote starts from so many partitions, the ones that agree best with the others
VOTE_ROUNDS = 50  # at most; a handful usually suffices
AGREEMENT_ON = 5_000  # cells on which partitions are compared with each other, about


def consensus(partitions: list[np.ndarray], n_clusters: int) -> np.ndarray:
    """Return the labels that several partitions of the same cells agree on, by voting.

    The clusters of every partition are matched one to one with the clusters of the consensus, so that they have the
    most votes in common (Hungarian method). The consensus is then the mean of the matched partitions. This is repeated
    until nothing changes (fixed point of Dimitriadou, Weingessel and Hornik 2002, A combination scheme for fuzzy
    clustering). Of several starts, the one with the clearest votes is kept. The time is linear in the number of cells.

    If its votes leave a cluster empty, the final labels are those of the partition that agrees best with the others. So
    whoever asks for twelve clusters gets twelve, unless all partitions have fewer.

    Parameters
    ----------
    partitions
        [N] integers from 0, each.
    n_clusters
        How many clusters were asked for.

    Returns
    -------
    [N] integers, 0 the largest cluster.
    """
    partitions = [np.unique(labels, return_inverse=True)[1] for labels in partitions]  # without unused numbers
    starts = _most_agreeing(partitions, VOTE_STARTS)
    clearest = max((_vote(partitions, start) for start in starts), key=_clearness)
    found = [clearest.argmax(axis=1), *starts]
    return by_size(max(found, key=lambda labels: min(len(np.unique(labels)), n_clusters)))  # the first of equals


def confidence(partitions: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return the share of the partitions that put each cell in the cluster that `labels` put it in.

    The clusters of each partition are first matched one to one with the clusters of `labels`.

    Parameters
    ----------
    partitions
        [N] integers from 0, each.
    labels
        [N] integers from 0.

    Returns
    -------
    [N] float32, 0 to 1.
    """
    return _votes(partitions, one_hot(labels, labels.max() + 1).toarray())[np.arange(len(labels)), labels]


def _vote(partitions: list[np.ndarray], start: np.ndarray) -> np.ndarray:
    """Vote from one partition until nothing changes.

    Returns
    -------
    [N, K] float32, each cluster's share of the votes on a cell.
    """
    # The columns suffice for the partition with the most clusters, so that all of its clusters find a match.
    most = max(labels.max() for labels in partitions) + 1
    shares = one_hot(start, most).toarray()
    for _ in range(VOTE_ROUNDS):
        votes = _votes(partitions, shares)
        # The same matching gives the same votes bit for bit, so exact equality ends the loop.
        if np.array_equal(votes, shares):
            break
        shares = votes
    return shares


def _votes(partitions: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Return the mean of the partitions after matching their clusters with the columns of `shares`, [N, K] float32.

    A cluster without a match has no vote.
    """
    votes = np.zeros_like(shares)
    for labels in partitions:
        common = one_hot(labels, labels.max() + 1).T @ shares  # [K of this partition, K], the votes in common
        ours, consensus_of = linear_sum_assignment(common, maximize=True)
        match = np.full(labels.max() + 1, -1)  # -1 for no match
        match[ours] = consensus_of
        cells = np.flatnonzero(match[labels] >= 0)
        votes[cells, match[labels[cells]]] += 1
    votes /= len(partitions)
    return votes


def _clearness(shares: np.ndarray) -> float:
    """Return a number that is higher the more the votes agree, rounded so that equals stay equal."""
    return float(np.round((shares.astype(np.float64) ** 2).sum(), 6))


def _most_agreeing(partitions: list[np.ndarray], n: int) -> list[np.ndarray]:
    """Return the n partitions that agree best with the others (mean ARI; the first of equals)."""
    step = max(1, len(partitions[0]) // AGREEMENT_ON)  # every so many cells, since all pairs are compared
    agreement = np.zeros((len(partitions), len(partitions)))
    for i, j in combinations(range(len(partitions)), 2):
        agreement[i, j] = agreement[j, i] = adjusted_rand_score(partitions[i][::step], partitions[j][::step])
    # Rounded, so that the last bits do not decide between equals.
    return [partitions[i] for i in np.argsort(-np.round(agreement.sum(axis=1), 12), kind="stable")[:n]]


def nearest(labels: list[np.ndarray], final: np.ndarray) -> int:
    """Return the index of the labelling that agrees best with the final labels (ARI; the first of equals).

    Parameters
    ----------
    labels
        [N] integers, each.
    final
        [N] integers.
    """
    return int(np.argmax(np.round([adjusted_rand_score(own, final) for own in labels], 12)))


def majority(labels: np.ndarray, nearest: sparse.csr_matrix) -> np.ndarray:
    """Return every spot's most frequent label among its nearest spots and itself, [N].

    Among equally frequent labels the spot's own wins, else the lowest number, which is the larger cluster.

    Parameters
    ----------
    labels
        [N] integers from 0.
    nearest
        [N, N], 0/1; row i marks the spots that vote on i.
    """
    own = one_hot(labels, labels.max() + 1)
    votes = (nearest @ own + 1.5 * own).toarray()  # the extra half vote for the spot's own label only breaks ties
    return votes.argmax(axis=1)


def smoothed(labels: np.ndarray, smoothing_graph: sparse.csr_matrix | None) -> np.ndarray:
    """Return the labels after each spot's neighbours have voted, or unchanged if there are no smoothing_graph.

    Parameters
    ----------
    labels
        [N] integers from 0.
    smoothing_graph
        As `nearest` of `majority`, or None.
    """
    return labels if smoothing_graph is None else majority(labels, smoothing_graph)
