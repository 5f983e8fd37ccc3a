"""Gaussian mixtures of tied covariance, fitted by EM on the device that holds the points.

With one covariance for all clusters, its Cholesky factor turns the points, once per step, into ones of unit covariance.
There the log-densities of all clusters are squared distances, and so one matrix product. scikit-learn's
GaussianMixture transforms the points once per cluster; both take the same steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-6  # added to the variances, as scikit-learn does; the points are scaled to a variance near 1
TOLERANCE = 1e-3  # EM ends when the mean log-likelihood rises by less, as in scikit-learn
MOST_STEPS = 200  # of EM
ROWS = 100_000  # points whose cluster is told at a time


class Mixture(NamedTuple):
    """Gaussian mixtures of tied covariance, float64: one, or with a leading axis one per start.

    Attributes
    ----------
    weights
        [..., K], the shares of the clusters; 0 for one that no point belongs to.
    means
        [..., K, d].
    whitener
        [..., d, d]; points times this have unit covariance within clusters.
    log_likelihood
        [...], the mean over the points, in the last step of EM.
    """

    weights: Tensor
    means: Tensor
    whitener: Tensor
    log_likelihood: Tensor

    def of_start(self, start: int) -> Mixture:
        """Return the mixture of one start."""
        return Mixture(*(x[start] for x in self))

    def predict(self, points: Tensor) -> Tensor:
        """Return the likeliest cluster of each point, [..., N] integers."""
        return torch.cat([self._log_joint(part).argmax(-1) for part in points.split(ROWS)], dim=-1)

    def _log_joint(self, points: Tensor) -> Tensor:
        """Return log p(point, cluster), [..., N, K], up to the constant (2 pi)^(-d/2)."""
        white, means = points @ self.whitener, self.means @ self.whitener
        squared = (white**2).sum(-1, keepdim=True) - 2 * white @ means.mT + (means**2).sum(-1)[..., None, :]
        log_scale = self.whitener.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.weights.log()[..., None, :] + log_scale[..., None, None] - squared / 2

    def expected(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of the clusters of each point, [..., N, K], and the mean log-likelihood."""
        log_joint = self._log_joint(points)
        return log_joint.softmax(-1), log_joint.logsumexp(-1).mean(-1)


def maximised(shares: Tensor, points: Tensor, squares: Tensor, log_likelihood: Tensor) -> Mixture:
    """Return the likeliest mixtures for points that belong to clusters by these shares.

    Parameters
    ----------
    shares
        [..., N, K], rows of sum 1.
    points
        [N, d] float64.
    squares
        [d, d], points^T points.
    log_likelihood
        [...], what to note in the mixtures.
    """
    found = shares.sum(-2)
    sizes = found + 10 * torch.finfo(shares.dtype).eps  # an empty cluster has no mean
    means = shares.mT @ points / sizes[..., None]
    total = sizes.sum(-1, keepdim=True)
    covariance = (squares - (sizes[..., None, :] * means.mT) @ means) / total[..., None]
    covariance.diagonal(dim1=-2, dim2=-1).add_(RIDGE)
    factor = torch.linalg.cholesky(covariance)
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    whitener = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False).mT
    return Mixture((sizes / total).masked_fill(found == 0, 0), means, whitener, log_likelihood)


def fit(points: Tensor, labels: Tensor) -> Mixture:
    """Return mixtures fitted by EM, each of which starts from a partition and has as many clusters.

    Parameters
    ----------
    points
        [N, d] float64, of a variance near 1 and a mean near 0.
    labels
        [..., N] integers, one partition or one per start.
    """
    numbers = labels.unique(return_inverse=True)[1]
    squares = points.mT @ points
    never = torch.full(labels.shape[:-1], -torch.inf, dtype=points.dtype, device=points.device)
    mixture = maximised(torch.nn.functional.one_hot(numbers).to(points.dtype), points, squares, never)
    ended = torch.zeros_like(never, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        shares, found = mixture.expected(points)
        small = (found - mixture.log_likelihood).abs() < TOLERANCE
        # A start that has ended keeps its mixture while the others go on.
        mixture = _chosen(ended, mixture, maximised(shares, points, squares, found))
        ended = ended | small
        if ended.all():
            break
    return mixture


def _chosen(first: Tensor, one: Mixture, other: Mixture) -> Mixture:
    """Return the one mixture where `first` [...] is true, else the other."""
    pairs = ((first.view(first.shape + (1,) * (x.ndim - first.ndim)), x, y) for x, y in zip(one, other))
    return Mixture(*(torch.where(*pair) for pair in pairs))
