"""The registry of clustering methods: a method is one file here and one line below.

A method's module has

- `partitions(points, n_clusters, seed, settings)`: one or several partitions of the rows of points [N, d], integer labels
  [N] each, by what differs between them in words. Of several, that one stays that agrees best with the cell graph;
- `cluster(points, n_clusters, seed)`: one of them, 0 the largest cluster.

Modules are loaded when their method is used; `what` stands in --help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Method(NamedTuple):
    """What a method is, and the name of its module."""

    what: str
    module: str

    def partitions(self, points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
        """See the module's own."""
        return import_module(f"{__name__}.{self.module}").partitions(points, n_clusters, seed, settings)

    def cluster(self, points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
        """See the module's own."""
        return import_module(f"{__name__}.{self.module}").cluster(points, n_clusters, seed)


METHODS = {
    "gmm": Method("Gaussian mixture of tied covariance", "mixture"),
    "kmeans": Method("cosine k-means, as published", "kmeans"),
    "leiden": Method("Leiden, resolution searched", "leiden"),
}
