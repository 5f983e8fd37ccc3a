"""Cluster several views of the same spots, each in several ways, and let all partitions vote.

Which genes, which neighbourhood and which clusterer suit a tissue differs from tissue to tissue, and nothing that can
be measured without labels tells beforehand. What the partitions agree on does not hang on any of these choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scrcl.cluster import consensus
from scrcl.cluster.embedding import beside_pcs
from scrcl.cluster.methods import kmeans
from scrcl.cluster.methods.mixture import leading_components
from scrcl.cluster.partition import by_size
from scrcl.method.training import Embedded
from scrcl.methods import METHODS
from scrcl.runtime import card_or_cpu

DIMS = 20  # components of a view that k-means sees
STARTS = 10  # of k-means; the best by its own objective is kept


def all_views(found: Embedded, fixed: Mapping[str, np.ndarray], order: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the views of one seed: those that need no training, and the encoder beside the first of them.

    The encoder is one view, as every other. With a second one, for itself alone, it outvoted them where it failed.

    Parameters
    ----------
    found
        The trained embeddings.
    fixed
        [N, d] by name, in the order of the cells; the first is the one that the encoder's genes belong to.
    order
        [N], the order of the cells in `found`; None when it is that of `fixed`.
    """
    first = next(iter(fixed.values()))
    return {**fixed, "encoder beside expression": beside_pcs(found.encoder, first, found.lengths, order)}


def vote(
    views: Mapping[str, np.ndarray], n_clusters: int, settings: Any, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Cluster every view in every way, and return the labels that the partitions agree on, and the partitions.

    The ways are those of the settings' method, and for the mixture also k-means, which cuts large clusters where the
    mixture gives clusters to a few spots far out.

    Parameters
    ----------
    views
        [N, d] by name.
    n_clusters, seed
        As for the clustering methods.
    settings
        The recipe.

    Returns
    -------
    [N] integers, 0 the largest cluster; and the partitions by view and way.
    """
    partitions: dict[str, np.ndarray] = {}
    device = card_or_cpu(settings.device)
    for name, points in views.items():
        leading = leading_components(points, max(DIMS, *settings.mixture_dims), device)
        ways = METHODS[settings.cluster_method].partitions(leading, n_clusters, seed, settings)
        if settings.cluster_method == "gmm":
            ways["k-means"] = by_size(kmeans.best_of(STARTS, leading[:, :DIMS], n_clusters, seed, device))
        partitions |= {f"{name}, {way}": labels for way, labels in ways.items()}
    return consensus.consensus(list(partitions.values()), n_clusters), partitions
