"""Say how far each cluster can be trusted: do the partitions agree on it, and does the graph tell it from another one?

Neither shows that a cluster is right. They show which clusters are likely to be only a part of another one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.cluster.agreement import agreement_of_pairs, edges_between
from scrcl.messages import natural_order

CLEAR, DOUBTFUL = "clear", "doubtful"
JOIN = "+"  # 2+5 is the clusters 2 and 5 together
MOST_IN_TREE = 300  # clusters
HALF = 0.5  # of the cells' partitions and neighbours, so many speak for a clear cluster


def table(labels: pd.Series, agreement: pd.Series, graph: sparse.spmatrix) -> pd.DataFrame:
    """Return what can be said of each cluster without known types.

    A cluster is doubtful if its agreement times its support is below one half: then its cells, or their neighbours, are
    elsewhere more often than not.

    Parameters
    ----------
    labels
        [N], the final labels, strings, in most cases whole numbers.
    agreement
        [N], the share of the partitions that put each cell there, see `consensus.confidence`; NaN where there is none.
    graph
        [N, N] symmetric; joins cells with like values.

    Returns
    -------
    One row per cluster, by its label, with

    size
        How many cells.
    agreement
        The mean of its cells; NaN where there is none.
    nearest
        The larger cluster that the graph tells it from least; '' for the largest.
    support
        How well it tells the two apart, at most 1, see `agreement_of_pairs`; NaN for the largest, which is no part of
        another.
    verdict
        'clear', or 'doubtful: may be part of cluster X'; 'doubtful' for the largest.
    """
    names = natural_order(labels.unique())
    codes = pd.Index(names).get_indexer(labels)
    sizes = np.bincount(codes)
    nearest, support = _least_apart(sizes, edges_between(codes, graph))
    found = pd.DataFrame(
        {
            "size": sizes,
            "agreement": agreement.astype(float).groupby(codes).mean().to_numpy(),
            "nearest": ["" if other < 0 else names[other] for other in nearest],
            "support": support,
        },
        index=pd.Index(names, name="cluster"),
    )
    part_of = np.where(found["nearest"] == "", DOUBTFUL, f"{DOUBTFUL}: may be part of cluster " + found["nearest"])
    found["verdict"] = np.where(trust(found) < HALF, part_of, CLEAR)
    return found


def trust(clusters: pd.DataFrame) -> pd.Series:
    """Return agreement times support of each cluster; what is missing says nothing against a cluster."""
    return clusters["agreement"].fillna(1) * clusters["support"].fillna(1)


def tree(labels: pd.Series, graph: sparse.spmatrix) -> pd.DataFrame:
    """Return in which order clusters become one, those first that the graph tells apart least.

    Parameters
    ----------
    labels, graph
        As for `table`.

    Returns
    -------
    One row per step, with 'one' and 'other', the clusters that are joined ('2+5' for two that were before), and
    'support', how well the graph tells them apart, see `agreement_of_pairs`. No row for more than MOST_IN_TREE
    clusters, since the time is that of their number cubed.
    """
    names = natural_order(labels.unique())
    between, steps = edges_between(pd.Index(names).get_indexer(labels), graph), []
    while 1 < len(names) <= MOST_IN_TREE:
        apart = np.round(agreement_of_pairs(between), 12)  # so that the last bits do not decide between equals
        apart[np.tril_indices(len(names))] = np.inf
        one, other = np.unravel_index(apart.argmin(), apart.shape)
        steps.append((names[one], names[other], float(apart[one, other])))
        between[one] += between[other]
        between[:, one] += between[:, other]
        between = np.delete(np.delete(between, other, axis=0), other, axis=1)
        names[one] = JOIN.join([names[one], names.pop(other)])
    return pd.DataFrame(steps, columns=["one", "other", "support"])


def _least_apart(sizes: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each cluster the larger one that the graph tells it from least, the first of equals, and how well.

    Of clusters of one size the first counts as larger. The largest has -1 and NaN.

    Parameters
    ----------
    sizes
        [K], how many cells.
    between
        As `edges_between` returns, [K, K].
    """
    rank = np.empty(len(sizes), dtype=int)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    apart = np.where(rank[None, :] < rank[:, None], agreement_of_pairs(between), np.inf)
    nearest, support = apart.argmin(axis=1), apart.min(axis=1)
    largest = rank == 0
    return np.where(largest, -1, nearest), np.where(largest, np.nan, support)
