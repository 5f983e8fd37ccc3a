"""The registry of clustering methods: each method is one file in `scrcl/cluster/methods/` and one line below.

The module of a method has two functions.

- `partitions(points, n_clusters, seed, settings)` returns one or several partitions of the rows of points [N, d], as
  integer labels [N]. The keys say how they differ. Of several, the one that agrees best with the cell graph is kept.
- `cluster(points, n_clusters, seed)` returns one partition, with 0 the largest cluster.

Modules are loaded when their method is used. `what` appears in --help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Method(NamedTuple):
    """A method of clustering.

    Attributes
    ----------
    what
        What it is, in the words of --help.
    module
        The module in `scrcl/cluster/methods/` that holds it.
    """

    what: str
    module: str

    def partitions(self, points: np.ndarray, n_clusters: int, seed: int, settings: Any) -> dict[str, np.ndarray]:
        """Call the module's own `partitions`, see above."""
        return import_module(f"scrcl.cluster.methods.{self.module}").partitions(points, n_clusters, seed, settings)

    def cluster(self, points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
        """Call the module's own `cluster`, see above."""
        return import_module(f"scrcl.cluster.methods.{self.module}").cluster(points, n_clusters, seed)


METHODS = {
    "gmm": Method("Gaussian mixture of tied covariance", "mixture"),
    "kmeans": Method("cosine k-means, as published", "kmeans"),
    "leiden": Method("Leiden, resolution searched", "leiden"),
}
