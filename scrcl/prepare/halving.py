"""Cut points into compact parts of equal size, without any two being compared."""

from __future__ import annotations

import numpy as np

from scrcl.runtime import limited_threads

PART = 256  # cells of a part whose order does not matter


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def parts(points: np.ndarray, most: int) -> list[np.ndarray]:
    """Return the points in compact parts, those that are near each other next to each other.

    All points, and then every half, are halved along the direction in which they vary most (a tree of principal
    directions, as a k-d tree has axes), so the time is linear in the points, up to a logarithm.

    Parameters
    ----------
    points
        [N, d].
    most
        The most points of a part.

    Returns
    -------
    The indices of the points of every part.
    """
    waiting, done = [np.arange(len(points))], []
    while waiting:
        part = waiting.pop()
        if len(part) <= most:
            done.append(part)
            continue
        own = points[part] - points[part].mean(axis=0)
        along = own @ np.linalg.eigh(own.T @ own)[1][:, -1]
        first, second = np.array_split(part[np.argsort(along, kind="stable")], 2)
        waiting += [second, first]
    return done


def near_order(points: np.ndarray) -> np.ndarray:
    """Return an order of the cells, [N], in which those with like values are near each other.

    Products with a graph then find most of the rows they add up in the processor's cache. Where the cells are divided
    among processes, fewer neighbours are elsewhere.

    Parameters
    ----------
    points
        [N, d], PCs or positions.
    """
    return np.concatenate(parts(points, PART))
