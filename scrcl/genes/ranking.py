"""Rank and filter the marker genes of clusters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

from scrcl.messages import UserError, log

GROUP = "cluster"  # obs column of the clusters
# A gene leads in a cluster if more than this share of its cells have it, with a log2 fold change above this.
SHARE, FOLD_CHANGE = 0.5, 1.0
MOST_AT_A_GLANCE = 20_000  # cells whose genes are compared for a first look


@dataclass(repr=False)
class Markers:
    """The genes of every cluster, ranked.

    Attributes
    ----------
    table
        One row per tested cluster and gene; clusters in their order, genes from the highest score to the lowest.
        Columns as in scanpy.get.rank_genes_groups_df: group, names, scores, logfoldchanges (log2), pvals, pvals_adj
        (Benjamini-Hochberg), pct_nz_group and pct_nz_reference (shares of cells that have the gene, in the cluster and
        in all others). One more: passes_filter. 'logreg' has no p-values: NaN.
    top
        Per cluster, what an expert would name it by: of the genes that pass the filter apart from its limit on other
        cells, the first by score, ordered by fold change. Where RNA of one type has leaked into all droplets (insulin
        in the pancreas), the whole filter drops exactly these genes.
    specific
        Per cluster, the genes that pass the whole filter, from the highest score to the lowest.
    untested
        The clusters of a single cell, which no test can rank.
    """

    table: pd.DataFrame
    top: dict[str, list[str]]
    specific: dict[str, list[str]]
    untested: list[str]

    def __repr__(self) -> str:
        first = [f"{name}: {', '.join((self.top[name] or self.specific[name])[:5])}" for name in self.specific]
        return "\n".join([f"Markers of {len(first)} clusters; the first top genes of each are", *first])

    def drawn(self, n_genes: int) -> dict[str, list[str]]:
        """Return the genes that figures show, per tested cluster.

        These are the specific ones, or else the top ones, or else the first by score.

        Parameters
        ----------
        n_genes
            How many per cluster, at most.
        """
        first = {name: list(genes["names"]) for name, genes in self.table.groupby("group", observed=True)}
        return {name: (self.specific[name] or self.top[name] or genes)[:n_genes] for name, genes in first.items()}

    def listed(self, n_genes: int) -> pd.DataFrame:
        """Return the rows of the table that are among the first n_genes of their cluster.

        A row counts if the gene is among the first of all genes, of the specific ones or of the top ones.

        Parameters
        ----------
        n_genes
            How many genes per cluster and ranking.

        Returns
        -------
        These rows with three more columns, counted from 1 and missing where a gene has no such rank: rank (by score,
        among all genes), specific_rank and top_rank (its place in `specific` and in `top`).
        """
        groups = self.table["group"].astype(str)
        ranked = self.table.assign(rank=self.table.groupby("group", observed=True).cumcount() + 1)
        for name, genes in (("specific_rank", self.specific), ("top_rank", self.top)):
            place = {(group, gene): i for group, own in genes.items() for i, gene in enumerate(own, 1)}
            ranked[name] = pd.array([place.get(key) for key in zip(groups, ranked["names"])], dtype="Int64")
        ranks = ["rank", "specific_rank", "top_rank"]
        chosen = (ranked[ranks].fillna(n_genes + 1) <= n_genes).any(axis=1)
        return ranked.loc[chosen, ["group", *ranks, *self.table.columns.drop("group")]]


def rank(
    cells: ad.AnnData,
    groupby: str = GROUP,
    *,
    groups: Sequence[str] = ("all",),
    method: str = "wilcoxon",
    n_genes: int = 20,
    min_in_group_fraction: float = SHARE,
    max_out_group_fraction: float = 0.25,
    min_fold_change: float = FOLD_CHANGE,
) -> Markers:
    """Rank all genes of every cluster against all other cells with scanpy's rank_genes_groups, and filter as published.

    Parameters
    ----------
    cells
        X log-normalised, sparse or dense; obs[groupby], a categorical of strings without gaps. It stays as it is.
    groupby
        The obs column of the clusters.
    groups
        Clusters to test, or 'all'.
    method
        'wilcoxon', 't-test' or 'logreg'.
    n_genes
        How many top genes are kept.
    min_in_group_fraction, max_out_group_fraction
        The filter: more than the first share of the cluster's cells, and less than the second share of all other cells,
        have the gene.
    min_fold_change
        The filter: log2 of the fold change is above this, as in scanpy's filter.

    Raises
    ------
    UserError
        When a cluster is not there, and when there is nothing to compare.
    """
    bare = bare_copy(cells, groupby)
    tested, untested = _to_test(bare, groups)
    sizes = bare.obs[GROUP].value_counts(sort=False)
    table = _logistic(bare, tested, sizes) if method == "logreg" else statistics(bare, tested, method)
    leads = (table["pct_nz_group"] > min_in_group_fraction) & (table["logfoldchanges"] > min_fold_change)
    table["passes_filter"] = leads & (table["pct_nz_reference"] < max_out_group_fraction)
    specific = _by_group(table[table["passes_filter"]], tested)
    top = _top(table[leads], tested, n_genes)
    empty = [name for name in tested if not specific[name]]
    if empty:
        some = ", ".join(empty[:5]) + (" and others" if len(empty) > 5 else "")
        log.info(
            "No gene passes the filter in %d clusters (%s): top genes take their place, or else the first.",
            len(empty),
            some,
        )
    return Markers(table, top, specific, untested)


def at_a_glance(cells: ad.AnnData, groupby: str, n_genes: int = 4) -> dict[str, list[str]]:
    """Return the first top genes of every cluster by a t-test, of the cells of `drawn_for_a_glance`.

    It takes a second, for the end of a run. `rank` is for figures and tables.

    Parameters
    ----------
    cells, groupby
        As for `rank`.
    n_genes
        How many genes per cluster, at most.

    Returns
    -------
    By cluster; without those of a single cell, and empty where no two clusters can be compared.
    """
    bare = bare_copy(cells, groupby)
    sizes = bare.obs[GROUP].value_counts(sort=False)
    tested = list(sizes.index[sizes > 1])
    if len(sizes) < 2 or not tested:
        return {}
    table = statistics(bare, tested, "t-test")
    leads = (table["pct_nz_group"] > SHARE) & (table["logfoldchanges"] > FOLD_CHANGE)
    return {name: genes[:n_genes] for name, genes in _top(table[leads], tested).items()}


def drawn_for_a_glance(cells: ad.AnnData) -> ad.AnnData:
    """Return the cells, or 20,000 of them drawn at random, always the same."""
    if cells.n_obs <= MOST_AT_A_GLANCE:
        return cells
    return cells[np.sort(np.random.default_rng(0).choice(cells.n_obs, MOST_AT_A_GLANCE, replace=False))]


def _top(leads: pd.DataFrame, tested: list[str], n_genes: int = 20) -> dict[str, list[str]]:
    """Return the first genes by score of those that lead in each cluster, ordered by fold change."""
    first = leads.groupby("group", observed=True).head(n_genes)
    return _by_group(first.sort_values("logfoldchanges", ascending=False, kind="stable"), tested)


def _to_test(bare: ad.AnnData, groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the clusters asked for that a test can rank, and the ones of a single cell."""
    sizes = bare.obs[GROUP].value_counts(sort=False)
    wanted = list(sizes.index) if list(groups) == ["all"] else list(dict.fromkeys(groups))
    require_groups(wanted, sizes)
    untested = [name for name in wanted if sizes[name] < 2]
    if untested:
        log.info("Clusters of a single cell, which no test can rank: %s.", ", ".join(untested))
    tested = [name for name in sizes.index if name in wanted and sizes[name] > 1]
    if not tested:
        raise UserError("Every cluster to test is a single cell; no test can rank its genes.")
    return tested, untested


def require_groups(wanted: Sequence[str], sizes: pd.Series) -> None:
    """Raise UserError when a cluster is not there, or when the labels are no clusters that could be compared."""
    unknown = [name for name in wanted if name not in sizes.index]
    if unknown:
        raise UserError(f"There is no cluster {unknown[0]!r} to test; there are {', '.join(sizes.index)}.")
    if len(sizes) < 2:
        raise UserError(f"All cells are of one cluster, {sizes.index[0]!r}; markers need at least two to compare.")
    if 2 * len(sizes) > sizes.sum():
        raise UserError(
            f"The labels have {len(sizes)} different values for {sizes.sum()} cells, so they cannot be clusters; "
            "name another column or table of labels."
        )


def statistics(bare: ad.AnnData, tested: list[str], method: str) -> pd.DataFrame:
    """Return all statistics of a test, from the highest score to the lowest.

    Parameters
    ----------
    bare
        What `bare_copy` returns; scanpy's uns['rank_genes_groups'] is written.
    tested
        Clusters of more than one cell.
    method
        'wilcoxon' or 't-test'.

    Returns
    -------
    The columns of `Markers.table` without passes_filter.
    """
    _rank_genes_groups(bare, groups=tested, method=method, pts=True)
    table = sc.get.rank_genes_groups_df(bare, group=tested)
    if "group" not in table:  # scanpy leaves the column out when there is one group
        table.insert(0, "group", tested[0])
    table["group"] = pd.Categorical(table["group"], tested)
    # Welch's t is infinite for a gene that varies neither within the cluster nor outside it.
    largest = table["scores"].where(np.isfinite(table["scores"])).abs().max()
    return table.assign(scores=table["scores"].clip(-largest, largest))


def _logistic(bare: ad.AnnData, tested: list[str], sizes: pd.Series) -> pd.DataFrame:
    """Return the coefficients of a logistic regression as scores, with the fold changes and shares of the t-test."""
    fitted = [name for name in sizes.index if sizes[name] > 1]
    if len(fitted) < 2:
        raise UserError("Logistic regression needs two clusters of more than one cell; take --method wilcoxon.")
    _rank_genes_groups(bare, groups=fitted, method="logreg", max_iter=1000)
    coefficients = bare.uns["rank_genes_groups"]
    scores = {
        name: pd.Series(coefficients["scores"][name], index=coefficients["names"][name])
        for name in coefficients["names"].dtype.names
    }
    if len(fitted) == 2:  # scanpy 1.11 returns the second class's coefficients under the first one's name
        (second,) = scores.values()
        scores = dict(zip(fitted, [-second, second]))
    table = statistics(bare, tested, "t-test").assign(pvals=np.nan, pvals_adj=np.nan)
    parts = [part for _, part in table.groupby("group", observed=True)]
    for name, part in zip(tested, parts):
        part["scores"] = scores[name].reindex(part["names"]).to_numpy()
    return pd.concat([part.sort_values("scores", ascending=False, kind="stable") for part in parts], ignore_index=True)


def _rank_genes_groups(bare: ad.AnnData, **settings: Any) -> None:
    """Run scanpy's rank_genes_groups on the clusters."""
    with warnings.catch_warnings():  # scanpy causes it from about 20 clusters on; a user can do nothing about it
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        sc.tl.rank_genes_groups(bare, GROUP, use_raw=False, **settings)


def bare_copy(cells: ad.AnnData, groupby: str) -> ad.AnnData:
    """Return the values and clusters alone, so that scanpy writes nothing into `cells`; the values are not copied."""
    obs = pd.DataFrame({GROUP: cells.obs[groupby].to_numpy()}, index=cells.obs_names.rename(None))
    obs[GROUP] = pd.Categorical(obs[GROUP], cells.obs[groupby].cat.remove_unused_categories().cat.categories)
    return ad.AnnData(cells.X, obs=obs, var=pd.DataFrame(index=cells.var_names))


def _by_group(table: pd.DataFrame, tested: list[str]) -> dict[str, list[str]]:
    """Return the names of the genes in a table, per tested cluster."""
    return {name: list(table.loc[table["group"] == name, "names"]) for name in tested}
