"""Look at a finished run again without training anew: another number of clusters, clusters joined, one cluster divided.

All work on the AnnData of the run: a run's result, or the caller's that `annotate` has written to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.analysis import analyse
from scrcl.cluster import consensus, trust, views
from scrcl.cluster.agreement import agreement_with_graph
from scrcl.cluster.partition import require_enough
from scrcl.contents.places import coordinates, sections
from scrcl.keys import OURS, Keys
from scrcl.messages import UserError, did_you_mean, log, natural_order, progress
from scrcl.methods import METHODS
from scrcl.prepare import graphs
from scrcl.prepare.batches import FEWEST
from scrcl.recipes import CellSettings, TissueSettings

PART = ","  # 3,0 is the first part of cluster 3 (as in scanpy)
LOOKED_AT = "looked_at"  # in uns of a look: the name of the run
FEWEST_TO_DIVIDE = 30  # cells


class Look(NamedTuple):
    """Labels from another look.

    Attributes
    ----------
    labels
        A row per cell, missing where the run has no label. The last column, scrcl, are the final labels; columns seed_S
        before it, where there are several partitions.
    confidence
        The share of the partitions that put the cell there.
    clusters
        A row per cluster, see `trust.table`.
    tree
        In which order clusters become one, see `trust.tree`.
    how
        What was done, in words that follow the number of clusters.
    """

    labels: pd.DataFrame
    confidence: pd.Series
    clusters: pd.DataFrame
    tree: pd.DataFrame
    how: str


def recluster(adata: ad.AnnData, settings: CellSettings | TissueSettings, keys: Keys = OURS) -> Look:
    """Cluster the embedding of a run into another number of clusters, once per seed, and combine the labels by voting.

    Parameters
    ----------
    adata
        With obsm['X_scrcl'] and obsp['scrcl_graph'] of the run.
    settings
        The recipe of the run, with the new n_clusters; its seeds are those of the clustering.
    keys
        Where the run has written.

    Raises
    ------
    UserError
        When there are fewer cells than clusters.
    """
    cells = adata[adata.obs[keys.labels].notna().to_numpy()]
    graph, n_clusters = cells.obsp[_run(adata, keys).graph], int(settings.n_clusters)
    smoothing_graph = _smoothing_graph(cells, settings, keys)
    points = _views(cells, settings, keys)
    found: dict[int, np.ndarray] = {}
    voters: list[np.ndarray] = []
    for seed in settings.seeds:
        if settings.embedding == "views":
            found[seed], ways = views.vote(points, n_clusters, settings, seed)
            voters += ways.values()
        else:
            method = METHODS[settings.cluster_method]
            tried = [
                labels
                for own in points.values()
                for labels in method.partitions(own, n_clusters, seed, settings).values()
            ]
            found[seed] = max(tried, key=lambda labels: round(agreement_with_graph(labels, graph), 12))
            voters.append(found[seed])
    final = consensus.smoothed(consensus.consensus(list(found.values()), n_clusters), smoothing_graph)
    columns = {f"seed_{seed}": consensus.smoothed(labels, smoothing_graph) for seed, labels in found.items()}
    share = consensus.confidence([consensus.smoothed(own, smoothing_graph) for own in voters], final)
    table = pd.DataFrame({**columns, OURS.labels: final}, index=cells.obs_names).astype(str)
    confidence = pd.Series(share if len(voters) > 1 else np.float32("nan"), index=cells.obs_names)
    return _look(adata, table, confidence, keys, "asked for in another look at what was trained")


def compared(
    adata: ad.AnnData, numbers: Iterable[int], settings: CellSettings | TissueSettings, keys: Keys = OURS
) -> pd.DataFrame:
    """Cluster the embedding of a run into several numbers of clusters, and return how well partitions agree on each.

    All partitions are of the embedding of one seed, so this is the agreement of clusterings, not of trainings.

    Parameters
    ----------
    adata, settings, keys
        As for `recluster`.
    numbers
        The numbers of clusters.

    Returns
    -------
    One row per number: 'n_clusters', 'agreement' (the mean of the cells), 'least' (that of the cluster with the least),
    'doubtful' (how many clusters are) and 'first_joined' (the two that would become one first).

    Raises
    ------
    UserError
        When the run has one seed, of which there is no agreement, and when there are fewer cells than clusters.
    """
    numbers, rows = sorted(set(map(int, numbers))), []
    if not numbers or numbers[0] < 2:
        raise UserError("Numbers of clusters are whole numbers above 1.")
    require_enough(adata.obs[keys.labels].dropna().to_numpy(), numbers[-1])
    for n in progress(numbers, desc="numbers of clusters"):
        look = recluster(adata, dataclasses.replace(settings, n_clusters=str(n)), keys)
        if look.confidence.isna().all():
            raise UserError("The run has one seed, so nothing can agree; add --seeds 5, which clusters five times.")
        doubtful = int((look.clusters["verdict"] != trust.CLEAR).sum())
        first = trust.JOIN.join(look.tree.loc[0, ["one", "other"]]) if len(look.tree) else ""
        rows.append((n, float(look.confidence.mean()), float(look.clusters["agreement"].min()), doubtful, first))
    return pd.DataFrame(rows, columns=["n_clusters", "agreement", "least", "doubtful", "first_joined"])


def merged(adata: ad.AnnData, clusters: list[str], keys: Keys = OURS) -> Look:
    """Join clusters of a run: those named 2 and 5 become 2+5.

    Parameters
    ----------
    adata
        With obs['scrcl'] and obsp['scrcl_graph'] of the run.
    clusters
        The labels of two clusters or more.
    keys
        Where the run has written.

    Raises
    ------
    UserError
        When a cluster is not there, or fewer than two are named.
    """
    names = list(dict.fromkeys(map(str, clusters)))
    labels = _labels(adata, names, keys)
    if len(names) < 2:
        raise UserError(f"--merge needs two clusters or more, not {names[0] if names else 'none'} alone.")
    together = trust.JOIN.join(natural_order(names))
    table = labels.where(~labels.isin(names), together).to_frame(OURS.labels)
    kept = labels.notna().to_numpy()
    how = f"after {' and '.join(natural_order(names))} were joined"
    return _look(adata, table[kept], _confidence(adata, keys)[kept], keys, how)


def split(
    adata: ad.AnnData,
    cluster: str,
    settings: CellSettings | TissueSettings,
    n_clusters: str = "auto",
    keys: Keys = OURS,
) -> Look:
    """Divide one cluster of a run: a network is trained on its cells alone, with highly variable genes of their own.

    Parameters
    ----------
    adata
        With obs['scrcl'] and obsp['scrcl_graph'] of the run, and values as for `analysis.analyse`.
    cluster
        The label of the cluster; its parts are called 3,0 and 3,1, the largest first.
    settings
        The recipe of the run; layer and values say where the values of `adata` are.
    n_clusters
        How many parts, or 'auto' to estimate it.
    keys
        Where the run has written.

    Raises
    ------
    UserError
        When the cluster is not there or has too few cells.
    """
    labels = _labels(adata, [str(cluster)], keys)
    inside = (labels == str(cluster)).to_numpy()
    if inside.sum() < FEWEST_TO_DIVIDE:
        raise UserError(
            f"Cluster {cluster} has {inside.sum()} {settings.unit}, too few to divide; at least {FEWEST_TO_DIVIDE} are "
            "needed."
        )
    part = adata[inside].to_memory()
    n_neighbors = min(settings.n_neighbors, inside.sum() - 1)
    own = dataclasses.replace(
        settings, n_clusters=str(n_clusters), label_key="none", n_neighbors=n_neighbors, min_counts=0, min_genes=0,
        max_mito=100, resume=False,
    )  # fmt: skip
    if isinstance(own, TissueSettings):
        own.section_key = str(adata.uns[keys.parameters].get("section_key", own.section_key))
    log.info("Cluster %s: %d %s.", cluster, inside.sum(), settings.unit)
    if own.batch_key != "none" and part.obs[own.batch_key].astype(str).value_counts().min() < FEWEST:
        log.info("A batch has fewer than %d of them, so batches are left as they are.", FEWEST)
        own.batch_key = "none"
    found = analyse(part, own)
    parts = found.labels[OURS.labels]
    table = labels.mask(inside & parts.reindex(labels.index).notna(), f"{cluster}{PART}" + parts.reindex(labels.index))
    confidence = _confidence(adata, keys)
    confidence[found.confidence.index] = np.fmin(confidence[found.confidence.index], found.confidence)
    kept = labels.notna().to_numpy()
    how = f"after {cluster} was divided, {found.n_clusters} parts {found.n_clusters_from}"
    return _look(adata, table[kept].to_frame(OURS.labels), confidence[kept], keys, how)


def _look(adata: ad.AnnData, labels: pd.DataFrame, confidence: pd.Series, keys: Keys, how: str) -> Look:
    """Return a look at all cells of `adata`; `labels` and `confidence` are of those that have a label."""
    graph, final = _graph_of_values(adata[labels.index], keys), labels[OURS.labels]
    of_all = labels.reindex(adata.obs_names), confidence.reindex(adata.obs_names)
    return Look(*of_all, trust.table(final, confidence, graph), trust.tree(final, graph), how)


def _graph_of_values(cells: ad.AnnData, keys: Keys) -> sparse.csr_matrix:
    """Return a graph that joins cells with like values, see `analysis.graph_of_values`; the run's own for cells."""
    run = _run(cells, keys)
    facts = cells.uns[keys.parameters]
    if facts["task"] == "SC":
        return sparse.csr_matrix(cells.obsp[run.graph])
    points = np.asarray(cells.obsm[run.embedding])
    pcs = points[:, 2 * int(facts["params"]["hidden"]) :]
    points = pcs if facts["params"]["embedding"] in ("views", "joint", "joint-or-pcs") and pcs.shape[1] else points
    return graphs.cell_graph(points, min(CellSettings.n_neighbors, len(points)), CellSettings.metric, 0)


def _run(adata: ad.AnnData, keys: Keys) -> Keys:
    """Return where the run has written that a look was taken at, or that the keys themselves are of."""
    return Keys(adata.uns[keys.parameters].get(LOOKED_AT, keys.name))


def _labels(adata: ad.AnnData, asked: list[str], keys: Keys) -> pd.Series:
    """Return the final labels as strings, after a check that these clusters are there."""
    labels = adata.obs[keys.labels].astype(object)
    known = natural_order(labels.dropna().unique())
    for name in asked:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"There is no cluster {name}{near}; the run has {', '.join(known)}.")
    return labels


def _confidence(adata: ad.AnnData, keys: Keys) -> pd.Series:
    """Return the agreement of the run."""
    return adata.obs[keys.confidence].astype(np.float32).copy()


def _views(cells: ad.AnnData, settings: CellSettings | TissueSettings, keys: Keys) -> dict[str, np.ndarray]:
    """Return what is clustered, by name: the embedding of the run, and the PCs in it where the recipe clusters both.

    The joint embedding is that of the encoder, [E1 | E2], followed by the PCs.
    """
    points = cells.obsm[_run(cells, keys).embedding]
    pcs = points[:, 2 * settings.hidden :]
    if settings.embedding in ("joint-or-pcs", "views") and pcs.shape[1]:
        return {"joint": points, "pcs": pcs}
    return {settings.embedding: points}


def _smoothing_graph(cells: ad.AnnData, settings: CellSettings | TissueSettings, keys: Keys) -> object:
    """Return the graph of nearest spots that smooths labels, or None."""
    if not isinstance(settings, TissueSettings) or not settings.refine_neighbors:
        return None
    members = sections(cells.obs, cells.uns[keys.parameters].get("section_key", "none"))
    return graphs.nearest_spots(coordinates(cells), settings.refine_neighbors, members)
