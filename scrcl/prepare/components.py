"""Principal components from the products of columns, in blocks of rows, on the CPU or on a card."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from scrcl.runtime import to_device, to_host

ROWS = 20_000  # at a time


def principal_axes(covariance: np.ndarray, n: int) -> np.ndarray:
    """Return the directions of the largest variance, [d, n], the largest first, with signs that are always the same.

    Parameters
    ----------
    covariance
        [d, d].
    n
        How many.
    """
    d = len(covariance)
    axes = linalg.eigh(covariance, subset_by_index=(d - n, d - 1))[1][:, ::-1]
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n)])


def components(points: np.ndarray, n: int, device: str) -> np.ndarray:
    """Return the first n principal components, [N, n] float64.

    Parameters
    ----------
    points
        [N, d].
    n
        How many, at most d.
    device
        Where products are computed: 'cpu', or a CUDA card.
    """
    mean = to_device(points.mean(axis=0, dtype=np.float64), device)
    blocks = [slice(start, start + ROWS) for start in range(0, len(points), ROWS)]
    covariance = 0.0
    for rows in blocks:
        centred = to_device(points[rows], device) - mean
        covariance = covariance + centred.T @ centred
    axes = to_device(principal_axes(to_host(covariance) / len(points), n), device)
    return np.concatenate([to_host((to_device(points[rows], device) - mean) @ axes) for rows in blocks])
