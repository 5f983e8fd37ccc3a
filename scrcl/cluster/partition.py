"""Partitions: integer labels [N] from 0, and what every method of clustering does with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from scrcl.messages import UserError

FIT_ON = 20_000  # cells a mixture or k-means is fitted on; all are assigned


def one_hot(labels: np.ndarray, n_columns: int) -> sparse.csr_matrix:
    """[N, n_columns] float32, a one per row in the column of its label."""
    return sparse.csr_matrix(
        (np.ones(len(labels), dtype=np.float32), labels, np.arange(len(labels) + 1)), shape=(len(labels), n_columns)
    )


def by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters numbered 0, 1, ... by falling size."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[inverse]


def require_enough(points: np.ndarray, n_clusters: int) -> None:
    """Raise UserError where there are more clusters than points."""
    if n_clusters > len(points):
        raise UserError(
            f"{n_clusters} clusters were asked for, but there are only {len(points)} cells with counts; lower --n-clusters."
        )


def sample(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The points that a model is fitted on: all, or of more than 20,000 a random part."""
    if len(points) <= FIT_ON:
        return points
    chosen = np.random.default_rng(seed).choice(len(points), max(FIT_ON, n_clusters), replace=False)
    return points[np.sort(chosen)]


@contextmanager
def unfinished_starts_expected() -> Iterator[None]:
    """An unfinished start, or fewer distinct points than clusters: cluster() says what it means for the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
