"""k-means from several starts at once, on the device that holds the points.

The steps are those of scikit-learn's KMeans, but for a cluster that is emptied, which keeps its centre.
scikit-learn's runs on the CPU, and there it is the faster one. Beside a card it would take most of the time of
clustering.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4  # of the mean variance; a start ends when its centres move by less, as in scikit-learn
MOST_STEPS = 300
ROWS = 100_000  # points whose centre is found at a time


class Found(NamedTuple):
    """What S starts have found.

    Attributes
    ----------
    centres
        [S, K, d].
    labels
        [S, N] integers.
    inertia
        [S], the sum of the squared distances of the points to their centres.
    """

    centres: Tensor
    labels: Tensor
    inertia: Tensor


def starts(points: Tensor, n_clusters: int, randoms: Sequence[np.random.RandomState]) -> Found:
    """Run k-means from one start per random state.

    Parameters
    ----------
    points
        [N, d] float64.
    n_clusters
        K.
    randoms
        Where each start draws from, what scikit-learn would draw; one state may serve several starts.
    """
    middle = points.mean(0)
    points = points - middle
    centres = _spread(points, n_clusters, randoms)
    tolerance = TOLERANCE * points.var(0, correction=0).mean()
    labels = torch.full((len(randoms), len(points)), -1, device=points.device)
    ended = torch.zeros(len(randoms), dtype=torch.bool, device=points.device)
    for _ in range(MOST_STEPS):
        found = _squared(centres, points).argmin(1)
        member = torch.nn.functional.one_hot(found, n_clusters).to(points.dtype)  # [S, N, K]
        sizes = member.sum(1)[:, :, None]
        moved = torch.where(sizes > 0, member.transpose(1, 2) @ points / sizes.clamp_min(1), centres)
        same = (found == labels).all(1)
        shift = ((moved - centres) ** 2).sum((1, 2))
        # A start that has ended keeps its centres while the others go on.
        centres = torch.where(ended[:, None, None], centres, moved)
        ended, labels = ended | same | (shift <= tolerance), found
        if ended.all():
            break
    inertia, labels = _squared(centres, points).min(1)
    return Found(centres + middle, labels, (inertia + (points**2).sum(1)).sum(1))


def labels_by(centres: Tensor, points: Tensor) -> Tensor:
    """Return the nearest of the centres [K, d] for each of the points [N, d]."""
    return torch.cat([_squared(centres[None], part).argmin(1)[0] for part in points.split(ROWS)])


def _squared(centres: Tensor, points: Tensor) -> Tensor:
    """Return the squared distances [S, K, N] without the squares of the points, which are the same for all centres."""
    return (centres**2).sum(2, keepdim=True) - 2 * centres @ points.T


def _spread(points: Tensor, n_clusters: int, randoms: Sequence[np.random.RandomState]) -> Tensor:
    """Return centres [S, K, d] that are far from each other: greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each further centre is the best of a few points, drawn in proportion to their squared distance to the nearest one.
    """
    n, trials = len(points), 2 + int(np.log(n_clusters))
    drawn = [(rs.choice(n, p=np.full(n, 1 / n)), rs.uniform(size=(n_clusters - 1, trials))) for rs in randoms]
    first = torch.as_tensor([own for own, _ in drawn], device=points.device)
    shares = torch.as_tensor(np.stack([own for _, own in drawn]), device=points.device)  # [S, K - 1, trials]
    squares, centres = (points**2).sum(1), [points[first]]
    nearest = (_squared(centres[0][:, None], points)[:, 0] + squares).clamp_min(0)
    each = torch.arange(len(randoms), device=points.device)
    for share in shares.unbind(1):
        so_far = nearest.cumsum(1)
        tried = torch.searchsorted(so_far, share * so_far[:, -1:]).clamp_max(n - 1)  # [S, trials]
        with_it = torch.minimum(nearest[:, None], (_squared(points[tried], points) + squares).clamp_min(0))
        best = with_it.sum(2).argmin(1)
        nearest = with_it[each, best]
        centres.append(points[tried[each, best]])
    return torch.stack(centres, 1)
