"""Work with partitions, which are integer labels [N] from 0; every method of clustering uses these functions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from scrcl.messages import UserError

FIT_ON = 20_000  # most cells that a mixture or k-means is fitted on; all cells are then assigned


def one_hot(labels: np.ndarray, n_columns: int) -> sparse.csr_matrix:
    """Return labels as a matrix [N, n_columns] float32, with a one per row in the column of its label."""
    return sparse.csr_matrix(
        (np.ones(len(labels), dtype=np.float32), labels, np.arange(len(labels) + 1)), shape=(len(labels), n_columns)
    )


def by_size(labels: np.ndarray) -> np.ndarray:
    """Return the same clusters numbered 0, 1, ... from the largest to the smallest."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[inverse]


def require_enough(points: np.ndarray, n_clusters: int) -> None:
    """Raise UserError when there are more clusters than points."""
    if n_clusters > len(points):
        raise UserError(
            f"{n_clusters} clusters were asked for, but there are only {len(points)} cells with counts; "
            "lower --n-clusters."
        )


def sample(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Return the points that a model is fitted on: all, or a random part if there are more than 20,000.

    Parameters
    ----------
    points
        [N, d].
    n_clusters
        The part has at least so many points.
    seed
        Decides which.
    """
    if len(points) <= FIT_ON:
        return points
    chosen = np.random.default_rng(seed).choice(len(points), max(FIT_ON, n_clusters), replace=False)
    return points[np.sort(chosen)]


@contextmanager
def unfinished_starts_expected() -> Iterator[None]:
    """Silence scikit-learn's warnings about starts that did not converge, or fewer distinct points than clusters.

    The docstring of each method's cluster() says what this means for its result.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
