"""Choose the number of clusters: as asked for, the number of known labels, or an estimate without any labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from scrcl.cluster.agreement import agreement_of_edges, agreement_of_pairs, edges_between
from scrcl.cluster.methods import leiden, mixture
from scrcl.cluster.partition import one_hot, require_enough
from scrcl.messages import log, progress
from scrcl.prepare.cells import FEW_CELLS
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.runtime import limited_threads

CONFIRMED = 0.85  # agreement of labels with the cell graph that confirms their number
PAIR_CONFIRMED = 0.5  # agreement that confirms two clusters, measured on their cells alone
MANY_CELLS = 2000  # with fewer cells, 15 neighbours reach out of a cluster more often
PAIR_APART = 0.1  # with few cells, two clusters that agree by less are one
GIVE_UP_AFTER = 3  # mixtures in a row that agree by less than is asked for
TRY_AT_LEAST = 12  # clusters; with few, a mixture may spend them on cells that lie far off
CELLS_PER_CLUSTER = 5  # on average, at least


class Number(NamedTuple):
    """How many clusters, and why.

    Attributes
    ----------
    n
        The number of clusters.
    reason
        Where it comes from, for people to read.
    """

    n: int
    reason: str


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
        number = Number(ESTIMATES[settings.task](prepared.pcs, prepared.graph, 0), "estimated without labels")
    require_enough(prepared.pcs, number.n)
    log.info("Clusters: %d, %s.", *number)
    return number


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def estimate_n_clusters(points: np.ndarray, graph: sparse.spmatrix, seed: int, enough: float = CONFIRMED) -> int:
    """Return the largest number of clusters that the cell graph confirms, without labels; at least 2.

    Mixtures with more and more clusters are fitted. In each, two clusters are merged as long as neighbours among their
    cells share a cluster in less than PAIR_CONFIRMED of all cases beyond chance (`agreement_with_graph`): such a pair
    is a cut through something that does not fall apart. The number of clusters left counts if they agree with the graph
    by `enough` as a whole. The largest such number is the result. Fitting ends when a few mixtures in a row, before any
    merging, agree by less than `enough`.

    The rule is akin to prediction strength (Tibshirani and Walther 2005), with neighbours instead of a second sample.

    Parameters
    ----------
    points
        [N, d], PCs.
    graph
        [N, N] symmetric, the cell graph.
    seed
        For the mixtures.
    enough
        The agreement asked for, from 0 to 1; see `enough_agreement`.
    """
    points = mixture.leading_components(points, mixture.MIXTURE_DIMS)
    confirmed, in_vain = 2, 0
    for number in progress(_numbers_to_try(len(points)), desc="number of clusters"):
        # [K, K] is all that is needed from here on: merging clusters only adds up its rows and columns.
        between = edges_between(mixture.cluster(points, number, seed), graph)
        merged = _merge_unconfirmed(between)
        if agreement_of_edges(merged) >= enough:
            confirmed = max(confirmed, len(merged))
        # Counts mixtures in a row that fail as they were fitted, before any merging.
        in_vain = 0 if agreement_of_edges(between) >= enough else in_vain + 1
        if in_vain >= GIVE_UP_AFTER and number >= TRY_AT_LEAST:
            break
    return confirmed


def enough_agreement(n_cells: int) -> float:
    """Return the agreement with a graph of the nearest cells that confirms a number of clusters.

    The fewer cells there are, the farther the same number of neighbours reaches, and the more edges leave the true
    clusters. So below 2,000 cells more disagreement is allowed, by a power of the number of cells that was measured on
    parts of real data.

    Parameters
    ----------
    n_cells
        N.
    """
    return 1 - (1 - CONFIRMED) * max(1.0, MANY_CELLS / n_cells) ** 0.6


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def estimate_of_cells(points: np.ndarray, graph: sparse.spmatrix, seed: int) -> int:
    """Return an estimate of the number of clusters of cells, without labels; at least 2.

    From 500 cells on, this is what the cell graph confirms (`estimate_n_clusters`). With fewer cells it confirms hardly
    any number, since most neighbours of a cell are of other types. Then the estimate is the number of Leiden clusters
    at scanpy's resolution of 1, where two clusters count as one if they agree with the graph by less than PAIR_APART.
    Like scanpy's number, it is above 2 for cells that do not differ.

    Parameters
    ----------
    points
        [N, d], PCs.
    graph
        [N, N] symmetric, the cell graph.
    seed
        For mixtures and Leiden.
    """
    if len(points) >= FEW_CELLS:
        return estimate_n_clusters(points, graph, seed, enough_agreement(len(points)))
    if len(points) < 3 * CELLS_PER_CLUSTER:
        return 2
    between = edges_between(leiden.at_resolution(leiden.neighbour_graph(points, seed), 1.0, seed), graph)
    return max(2, len(_merge_unconfirmed(between, PAIR_APART)))


def _merge_unconfirmed(between: np.ndarray, confirmed: float = PAIR_CONFIRMED) -> np.ndarray:
    """Merge the pair of clusters that agrees least with the graph, again and again until every pair is confirmed.

    Returns
    -------
    `edges_between` of the clusters that are left.
    """
    while len(between) > 1:
        one, other = np.triu_indices(len(between), k=1)
        agreement = agreement_of_pairs(between)[one, other]
        least = int(agreement.argmin())
        if agreement[least] >= confirmed:
            break
        # Add up the rows and columns of the two clusters, with a [K, K - 1] matrix of ones.
        into = np.arange(len(between))
        into[other[least]] = one[least]
        merge = one_hot(np.unique(into, return_inverse=True)[1], len(between) - 1)
        between = merge.T @ between @ merge
    return between


def _numbers_to_try(n_cells: int) -> list[int]:
    """Return 2, 3, ..., in steps of an eighth beyond 12, up to a mean of CELLS_PER_CLUSTER cells per cluster."""
    numbers = [2]
    while (following := numbers[-1] + max(1, numbers[-1] // 8 + (numbers[-1] >= 12))) * CELLS_PER_CLUSTER <= n_cells:
        numbers.append(following)
    return numbers


ESTIMATES = {"SC": estimate_of_cells, "ST": estimate_n_clusters}
