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
    """A Gaussian mixture of tied covariance, float64.

    Attributes
    ----------
    weights
        [K], the shares of the clusters.
    means
        [K, d].
    whitener
        [d, d]; points times this have unit covariance within clusters.
    log_likelihood
        The mean over the points, in the last step of EM.
    """

    weights: Tensor
    means: Tensor
    whitener: Tensor
    log_likelihood: float

    def predict(self, points: Tensor) -> Tensor:
        """Return the likeliest cluster of each point, [N] integers."""
        return torch.cat([self._log_joint(part).argmax(1) for part in points.split(ROWS)])

    def _log_joint(self, points: Tensor) -> Tensor:
        """Return log p(point, cluster), [N, K], up to the constant (2 pi)^(-d/2)."""
        white, means = points @ self.whitener, self.means @ self.whitener
        squared = (white**2).sum(1, keepdim=True) - 2 * white @ means.T + (means**2).sum(1)
        return self.weights.log() + self.whitener.diagonal().log().sum() - squared / 2

    def expected(self, points: Tensor) -> tuple[Tensor, float]:
        """Return the probabilities of the clusters of each point, [N, K], and the mean log-likelihood."""
        log_joint = self._log_joint(points)
        return log_joint.softmax(1), float(log_joint.logsumexp(1).mean())


def maximised(shares: Tensor, points: Tensor, log_likelihood: float = -torch.inf) -> Mixture:
    """Return the likeliest mixture for points that belong to clusters by these shares.

    Parameters
    ----------
    shares
        [N, K], rows of sum 1.
    points
        [N, d] float64.
    log_likelihood
        What to note in the mixture.
    """
    sizes = shares.sum(0) + 10 * torch.finfo(shares.dtype).eps  # an empty cluster has no mean
    means = shares.T @ points / sizes[:, None]
    covariance = (points.T @ points - (sizes * means.T) @ means) / sizes.sum()
    covariance.diagonal().add_(RIDGE)
    factor = torch.linalg.cholesky(covariance)
    whitener = torch.linalg.solve_triangular(
        factor, torch.eye(len(factor), dtype=factor.dtype, device=factor.device), upper=False
    ).T
    return Mixture(sizes / sizes.sum(), means, whitener, log_likelihood)


def fit(points: Tensor, labels: Tensor) -> Mixture:
    """Return a mixture fitted by EM, which starts from a partition and has as many clusters.

    Parameters
    ----------
    points
        [N, d] float64, of a variance near 1 and a mean near 0.
    labels
        [N] integers.
    """
    _, numbers = labels.unique(return_inverse=True)
    mixture = maximised(torch.nn.functional.one_hot(numbers).to(points.dtype), points)
    for _ in range(MOST_STEPS):
        shares, found = mixture.expected(points)
        gain = found - mixture.log_likelihood
        mixture = maximised(shares, points, found)
        if abs(gain) < TOLERANCE:
            break
    return mixture
