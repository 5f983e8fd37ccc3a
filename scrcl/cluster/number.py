"""Choose the number of clusters: as asked for, the number of known labels, or an estimate without any labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from scrcl.cluster.consensus import smoothed
from scrcl.cluster.methods import kmeans
from scrcl.cluster.methods.mixture import leading_components
from scrcl.cluster.partition import require_enough
from scrcl.messages import log, progress
from scrcl.prepare.halves import DIMS, Described, described
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.runtime import card_or_cpu, limited_threads

STARTS = 4  # of k-means
FINER = 5  # partitions are tried that have up to so many times the clusters of the estimate
CELLS_PER_CLUSTER = 5  # on average, at least
CURVE = ("n_clusters", "shared", "held")


class Number(NamedTuple):
    """How many clusters, and why.

    Attributes
    ----------
    n
        The number of clusters.
    reason
        Where it comes from, for people to read.
    curve
        How the estimate came about, see `information`; None where nothing was estimated.
    """

    n: int
    reason: str
    curve: pd.DataFrame | None = None


def choose(prepared: Prepared, settings: CellSettings | TissueSettings) -> Number:
    """Choose the number of clusters, and say where it comes from.

    If the settings leave it open ('auto'), it is the number of known labels, as in the published protocol, where there
    are at least two different ones. Nothing else of the known labels is used. Otherwise the number is estimated.

    Parameters
    ----------
    prepared
        The data set.
    settings
        The recipe, with n_clusters.

    Raises
    ------
    UserError
        When there are fewer cells than clusters.
    """
    n_types = 0 if prepared.known is None else prepared.known.nunique()
    if settings.n_clusters != "auto":
        number = Number(int(settings.n_clusters), "as asked for")
    elif prepared.known is not None and n_types > 1:
        key = prepared.known.name
        number = Number(n_types, f"the number of known labels in obs[{key!r}], as the published protocol does")
    else:
        number = estimate(prepared, settings)
    require_enough(prepared.pcs, number.n)
    log.info("Clusters: %d, %s.", number.n, number.reason)
    return number


def estimate(prepared: Prepared, settings: CellSettings | TissueSettings, seed: int = 0) -> Number:
    """Estimate the number of clusters, at least 2, without any labels.

    It is how many clusters it takes to hold the information that two halves of the genes share.

    Cells are partitioned by one half of the genes and by the other, into more and more clusters. The information that
    the two partitions share, beyond what chance gives, grows as long as finer clusters are real, and then no more: cuts
    through cells that do not differ are other cuts in the other half. The most that is shared is what can be told of a
    cell. The estimate is the number of clusters of all genes whose entropy is that much. So clusters of unequal size
    count for as much as they tell, and there is no level to be chosen.

    Parameters
    ----------
    prepared
        The data set.
    settings
        The recipe; its class decides between cells and tissue.
    seed
        For the halves and for k-means.
    """
    device = card_or_cpu(settings.device)
    curve = information(described(prepared, settings.task, seed), prepared.smoothing_graph, seed, device)
    return Number(number_of(curve), "estimated without labels", curve)


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def information(
    cells: Described, smoothing_graph: sparse.csr_matrix | None = None, seed: int = 0, device: str = "cpu"
) -> pd.DataFrame:
    """Return what partitions of halves of the genes share, for more and more clusters.

    Parameters
    ----------
    cells
        The cells by all genes, and by halves of them.
    smoothing_graph
        As for `consensus.smoothed`, since the final labels are smoothed too.
    seed
        For k-means.
    device
        'cpu', or a CUDA card for k-means.

    Returns
    -------
    A row per number of clusters that was tried, with the columns n_clusters; shared, the mutual information of the
    partitions of two halves minus its expectation (Vinh, Epps and Bailey 2010), in nats, mean over the pairs of halves;
    and held, the entropy of the partition by all genes, in nats.
    """
    whole = leading_components(cells.whole, DIMS)
    halves = [tuple(leading_components(half, DIMS) for half in pair) for pair in cells.halves]

    def partition(points: np.ndarray, n_clusters: int) -> np.ndarray:
        return smoothed(kmeans.best_of(STARTS, points, n_clusters, seed, device), smoothing_graph)

    rows: list[tuple[int, float, float]] = []
    for n in progress(_numbers_to_try(len(whole)), desc="number of clusters"):
        shared = np.mean([shared_information(*(partition(half, n) for half in pair)) for pair in halves])
        rows.append((n, float(shared), float(entropy(np.bincount(partition(whole, n))))))
        if n >= FINER * number_of(pd.DataFrame(rows, columns=CURVE)):
            break
    return pd.DataFrame(rows, columns=CURVE)


def shared_information(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mutual information of two partitions minus what chance gives clusters of these sizes, in nats.

    Parameters
    ----------
    one, other
        [N] integers.
    """
    counts = contingency_matrix(one, other, sparse=True)
    by_chance = expected_mutual_information(counts, int(counts.sum()))
    return float(mutual_info_score(None, None, contingency=counts) - by_chance)


def number_of(curve: pd.DataFrame) -> int:
    """Return the number of clusters that holds the most information that is shared, at least 2.

    Between the numbers that were tried, the entropy is interpolated.

    Parameters
    ----------
    curve
        From `information`.
    """
    held = np.maximum.accumulate(curve["held"])  # a partition with more clusters may hold a little less
    return max(2, round(float(np.interp(curve["shared"].max(), held, curve["n_clusters"]))))


def _numbers_to_try(n_cells: int) -> list[int]:
    """Return 2, 3, ..., in steps of an eighth beyond 10, up to a mean of CELLS_PER_CLUSTER cells per cluster."""
    numbers = [2]
    while (following := numbers[-1] + max(1, numbers[-1] // 8 + (numbers[-1] >= 10))) * CELLS_PER_CLUSTER <= n_cells:
        numbers.append(following)
    return numbers
