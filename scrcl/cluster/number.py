"""The number of clusters: as asked for, that of the known labels, or estimated without any label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from scrcl.cluster.agreement import agreement_of_edges, assortativity, edges_between
from scrcl.cluster.methods import leiden, mixture
from scrcl.cluster.partition import one_hot, require_enough
from scrcl.messages import log, progress
from scrcl.prepare.cells import FEW_CELLS
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.runtime import limited_threads

# Estimating the number of clusters
CONFIRMED = 0.85  # agreement of labels with the cell graph
PAIR_CONFIRMED = 0.5  # the same of any two clusters alone
MANY_CELLS = 2000  # with fewer, 15 neighbours reach out of a cluster more often
PAIR_APART = 0.1  # agreement of two clusters of few cells, below which they are one
GIVE_UP_AFTER = 3  # mixtures in a row that agree less
TRY_AT_LEAST = 12  # clusters: with few, a mixture may be spent on what lies far off
CELLS_PER_CLUSTER = 5


class Number(NamedTuple):
    """How many clusters, and in words why."""

    n: int
    origin: str


def choose(prepared: Prepared, settings: CellSettings | TissueSettings) -> Number:
    """The number of clusters, and where it comes from.

    Known labels give it where there are any of several kinds and the settings leave it to them, as in the published
    protocol; nothing else of them is used.

    Raises
    ------
    UserError
        Where there are fewer cells than that.
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


@limited_threads(1)  # sums in an order that the number of threads does not change
def estimate_n_clusters(points: np.ndarray, graph: sparse.spmatrix, seed: int, enough: float = CONFIRMED) -> int:
    """The largest number of clusters that the cell graph confirms, without labels.

    Mixtures of more and more clusters are fitted. In each, two clusters are merged while among their cells alone neighbours share
    a cluster in less than PAIR_CONFIRMED of all cases beyond chance (agreement_with_graph): a cut through what does not fall apart.
    What is left counts where it agrees with the graph by enough as a whole. The largest such number is the result, at least 2.
    Fitting ends when a few mixtures in a row, as they are, agree by less. The rule is akin to prediction
    strength (Tibshirani and Walther 2005), with neighbours in place of a second sample.

    points: [N, d], PCs; graph: [N, N] symmetric, the cell graph; enough: agreement from 0 to 1, see enough_agreement.
    """
    points = mixture.leading_components(points, mixture.MIXTURE_DIMS)
    confirmed, in_vain = 2, 0
    for number in progress(_numbers_to_try(len(points)), desc="number of clusters"):
        between = edges_between(mixture.cluster(points, number, seed), graph)
        merged = _merge_unconfirmed(between)
        if agreement_of_edges(merged) >= enough:
            confirmed = max(confirmed, len(merged))
        in_vain = 0 if agreement_of_edges(between) >= enough else in_vain + 1
        if in_vain >= GIVE_UP_AFTER and number >= TRY_AT_LEAST:
            break
    return confirmed


def enough_agreement(n_cells: int) -> float:
    """Agreement with a graph of the nearest cells that confirms a number of clusters.

    The fewer cells, the farther the same number of neighbours reaches, and the more edges leave the clusters that there are. So
    below 2,000 cells more disagreement is allowed, by a power of the number of cells that was measured on parts of real data.
    """
    return 1 - (1 - CONFIRMED) * max(1.0, MANY_CELLS / n_cells) ** 0.6


@limited_threads(1)  # sums in an order that the number of threads does not change
def estimate_of_cells(points: np.ndarray, graph: sparse.spmatrix, seed: int) -> int:
    """The number of clusters of cells, without labels; at least 2.

    What the cell graph confirms (estimate_n_clusters). Of fewer than 500 cells it confirms hardly any number, since most of their
    neighbours are of other types: there it is the number of Leiden clusters at scanpy's resolution of 1, of which two are one where
    they agree with the graph by less than PAIR_APART. Like scanpy's, it is above 2 for cells that do not differ.

    points: [N, d], PCs; graph: [N, N] symmetric, the cell graph.
    """
    if len(points) >= FEW_CELLS:
        return estimate_n_clusters(points, graph, seed, enough_agreement(len(points)))
    if len(points) < 3 * CELLS_PER_CLUSTER:
        return 2
    between = edges_between(leiden.at_resolution(leiden.neighbour_graph(points, seed), 1.0, seed), graph)
    return max(2, len(_merge_unconfirmed(between, PAIR_APART)))


def _merge_unconfirmed(between: np.ndarray, confirmed: float = PAIR_CONFIRMED) -> np.ndarray:
    """edges_between once the pair of clusters that agrees least with the graph has been merged, again and again, while it is not confirmed."""
    while len(between) > 1:
        one, other = np.triu_indices(len(between), k=1)
        across = between[one, other]
        ends = np.stack([between[one, one] + across, between[other, other] + across], axis=-1)
        agreement = assortativity(between[one, one] + between[other, other], ends)
        least = int(agreement.argmin())
        if agreement[least] >= confirmed:
            break
        into = np.arange(len(between))
        into[other[least]] = one[least]
        merge = one_hot(np.unique(into, return_inverse=True)[1], len(between) - 1)
        between = merge.T @ between @ merge
    return between


def _numbers_to_try(n_cells: int) -> list[int]:
    """2, 3, ..., and beyond 12 in steps of an eighth, up to a mean of CELLS_PER_CLUSTER cells each."""
    numbers = [2]
    while (following := numbers[-1] + max(1, numbers[-1] // 8 + (numbers[-1] >= 12))) * CELLS_PER_CLUSTER <= n_cells:
        numbers.append(following)
    return numbers


ESTIMATES = {"SC": estimate_of_cells, "ST": estimate_n_clusters}
