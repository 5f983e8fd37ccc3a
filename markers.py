"""Marker genes of clusters: ranked, filtered, and matched with known markers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

import tables
from utils import UserError, log

GROUP = "cluster"  # obs column of the clusters
SYMBOL_KEYS = (
    "gene_symbols",
    "gene_symbol",
    "feature_name",
    "gene_name",
    "gene_short_name",
    "symbol",
    "Symbol",
    "name",
)
_ID = re.compile(r"ENS[A-Z]*G\d+(\.\d+)?|FBgn\d+|WBGene\d+|\d+")
_NUMBERED = re.compile(r"(g|gene|feature|var|v|x)?[ ._-]*\d+", re.IGNORECASE)


@dataclass
class Markers:
    """The genes of every cluster, ranked.

    table: one row per tested cluster and gene, clusters in their order and genes by falling score. Columns as in
        scanpy.get.rank_genes_groups_df (group, names, scores, logfoldchanges (log2), pvals, pvals_adj
        (Benjamini-Hochberg), pct_nz_group and pct_nz_reference (shares of cells that have the gene, in the
        cluster and in all others)), and passes_filter. 'logreg' has no p-values: NaN.
    top: per cluster, of its genes that pass the filter but for the share of other cells, the first by score, ordered
        by fold change: what an expert would name it by. Where RNA of one type has leaked into all droplets
        (insulin in the pancreas), the whole filter drops just these.
    specific: per cluster, the genes that pass the whole filter, by falling score.
    untested: the clusters of a single cell, which no test can rank.
    """

    table: pd.DataFrame
    top: dict[str, list[str]]
    specific: dict[str, list[str]]
    untested: list[str]

    def drawn(self, n_genes: int) -> dict[str, list[str]]:
        """Per tested cluster the genes that figures show: specific ones, failing those top ones, failing those the first."""
        first = {name: list(genes["names"]) for name, genes in self.table.groupby("group", observed=True)}
        return {name: (self.specific[name] or self.top[name] or genes)[:n_genes] for name, genes in first.items()}

    def listed(self, n_genes: int) -> pd.DataFrame:
        """The rows of table that are among the first n_genes of their cluster: of all genes, specific or top ones.

        Three more columns, counting from 1 and missing where a gene has no such rank: rank (by score, of all
        genes), specific_rank and top_rank (its place in specific and in top).
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
    min_in_group_fraction: float = 0.5,
    max_out_group_fraction: float = 0.25,
    min_fold_change: float = 1.0,
) -> Markers:
    """Rank all genes of every cluster against all other cells with scanpy's rank_genes_groups, and filter as published.

    cells: X log-normalised, sparse or dense; obs[groupby], a categorical of strings without gaps. It stays as it is.
    groups: clusters to test, or 'all'. n_genes: how many top genes are kept. min_fold_change is the log2 of a fold change, as in scanpy's filter.
    Raises UserError for clusters that are not there, and where there is nothing to compare.
    """
    bare = _bare(cells, groupby)
    sizes = bare.obs[GROUP].value_counts(sort=False)
    wanted = list(sizes.index) if list(groups) == ["all"] else list(dict.fromkeys(groups))
    _require_groups(wanted, sizes)
    untested = [name for name in wanted if sizes[name] < 2]
    if untested:
        log.info("Not tested, being a single cell: cluster %s.", ", ".join(untested))
    tested = [name for name in sizes.index if name in wanted and sizes[name] > 1]
    if not tested:
        raise UserError("Every cluster to test is a single cell; no test can rank its genes.")
    table = _logistic(bare, tested, sizes) if method == "logreg" else _statistics(bare, tested, method)
    leads = (table["pct_nz_group"] > min_in_group_fraction) & (table["logfoldchanges"] > min_fold_change)
    table["passes_filter"] = leads & (table["pct_nz_reference"] < max_out_group_fraction)
    specific = _by_group(table[table["passes_filter"]], tested)
    first = table[leads].groupby("group", observed=True).head(n_genes)
    top = _by_group(first.sort_values("logfoldchanges", ascending=False, kind="stable"), tested)
    empty = [name for name in tested if not specific[name]]
    if empty:
        some = ", ".join(empty[:5]) + (" and others" if len(empty) > 5 else "")
        log.info(
            "No gene passes the filter in %d clusters (%s): the figures show top genes, or the first ones.",
            len(empty),
            some,
        )
    return Markers(table, top, specific, untested)


def _require_groups(wanted: list[str], sizes: pd.Series) -> None:
    unknown = [name for name in wanted if name not in sizes.index]
    if unknown:
        raise UserError(f"There is no cluster {unknown[0]!r} to test; there are {', '.join(sizes.index)}.")
    if len(sizes) < 2:
        raise UserError(f"All cells are of one cluster, {sizes.index[0]!r}; markers need at least two to compare.")
    if 2 * len(sizes) > sizes.sum():
        raise UserError(
            f"The labels have {len(sizes)} different values for {sizes.sum()} cells, so they are no clusters; "
            "name another table or column with --labels."
        )


def _statistics(bare: ad.AnnData, tested: list[str], method: str) -> pd.DataFrame:
    """All statistics of a test, by falling score."""
    _rank_genes_groups(bare, groups=tested, method=method, pts=True)
    table = sc.get.rank_genes_groups_df(bare, group=tested)
    if "group" not in table:  # scanpy leaves it out where there is one
        table.insert(0, "group", tested[0])
    table["group"] = pd.Categorical(table["group"], tested)
    # Welch's t of a gene that varies neither in the cluster nor outside is infinite
    largest = table["scores"].where(np.isfinite(table["scores"])).abs().max()
    return table.assign(scores=table["scores"].clip(-largest, largest))


def _logistic(bare: ad.AnnData, tested: list[str], sizes: pd.Series) -> pd.DataFrame:
    """Logistic regression's coefficients in place of a test's scores; fold changes and shares as for the tests."""
    fitted = [name for name in sizes.index if sizes[name] > 1]
    if len(fitted) < 2:
        raise UserError("Logistic regression needs two clusters of more than one cell; take --method wilcoxon.")
    _rank_genes_groups(bare, groups=fitted, method="logreg", max_iter=1000)
    coefficients = bare.uns["rank_genes_groups"]
    scores = {
        name: pd.Series(coefficients["scores"][name], index=coefficients["names"][name])
        for name in coefficients["names"].dtype.names
    }
    if len(fitted) == 2:  # scanpy 1.11 gives the second class's coefficients, under the first one's name
        (second,) = scores.values()
        scores = dict(zip(fitted, [-second, second]))
    table = _statistics(bare, tested, "t-test").assign(pvals=np.nan, pvals_adj=np.nan)
    parts = [part for _, part in table.groupby("group", observed=True)]
    for name, part in zip(tested, parts):
        part["scores"] = scores[name].reindex(part["names"]).to_numpy()
    return pd.concat([part.sort_values("scores", ascending=False, kind="stable") for part in parts], ignore_index=True)


def _rank_genes_groups(bare: ad.AnnData, **settings: Any) -> None:
    with warnings.catch_warnings():  # scanpy's own, from about 20 clusters up; nothing that a user could do about it
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        sc.tl.rank_genes_groups(bare, GROUP, use_raw=False, **settings)


def _bare(cells: ad.AnnData, groupby: str) -> ad.AnnData:
    """The values and clusters alone, so that scanpy writes nothing into cells. The values are not copied."""
    obs = pd.DataFrame({GROUP: cells.obs[groupby].to_numpy()}, index=cells.obs_names.rename(None))
    obs[GROUP] = pd.Categorical(obs[GROUP], cells.obs[groupby].cat.remove_unused_categories().cat.categories)
    return ad.AnnData(cells.X, obs=obs, var=pd.DataFrame(index=cells.var_names))


def _by_group(table: pd.DataFrame, tested: list[str]) -> dict[str, list[str]]:
    return {name: list(table.loc[table["group"] == name, "names"]) for name in tested}


def gene_names(var: pd.DataFrame, gene_key: str = "auto") -> pd.Index:
    """Names of the genes as people read them, made unique.

    gene_key: a column of var, 'none' for var's own names, or 'auto': the first usual column of symbols where var's own
    names are ids or numbers, else var's own. Says so where genes have but numbers.
    Raises UserError for a column that is not there.
    """
    if gene_key not in ("auto", "none", *var.columns):
        raise UserError(
            f"There is no var column {gene_key!r}; the columns are {', '.join(map(str, var.columns)) or 'none'}."
        )
    names = var.index.astype(str)
    keys = [gene_key] if gene_key not in ("auto", "none") else []
    if gene_key == "auto" and _share(names, _ID) > 0.5:
        keys = [key for key in SYMBOL_KEYS if key in var and not pd.api.types.is_numeric_dtype(var[key])]
    if keys:
        symbols = var[keys[0]].astype(object)
        known = symbols.notna() & (symbols.astype(str).str.strip() != "")
        log.info("Gene names: var[%r]; %d genes without one keep their id.", keys[0], (~known).sum())
        names = pd.Index(symbols.astype(str).where(known, names))
    if _share(names, _NUMBERED) > 0.9:
        log.warning("The genes have no names, only numbers such as %s: markers are listed by them.", names[0])
    return ad.utils.make_index_unique(pd.Index(names, name=None))


def _share(names: pd.Index, pattern: re.Pattern[str]) -> float:
    return float(np.mean([pattern.fullmatch(name) is not None for name in names]))


def read_marker_genes(path: Path, genes: pd.Index) -> dict[str, list[str]]:
    """Known markers per type, those that are among genes, from a table with columns type and gene.

    A name that is not there in its own spelling is looked for regardless of case. Types without
    any of their genes in the data are left out, which is said.
    Raises UserError for a table without these columns, and where no gene is in the data.
    """
    table = tables.read_table(path, "table of markers").rename(columns=lambda name: str(name).strip().lower())
    if [list(table).count(name) for name in ("type", "gene")] != [1, 1]:
        raise UserError(f"{path} has the columns {', '.join(table)}; a table of markers has columns type and gene.")
    table = table[["type", "gene"]].dropna().astype(str).apply(lambda column: column.str.strip())
    spelling = {name.upper(): name for name in reversed(genes)} | {name: name for name in genes}
    found = {
        name: list(dict.fromkeys(hit for gene in own if (hit := spelling.get(gene) or spelling.get(gene.upper()))))
        for name, own in table.groupby("type", sort=False)["gene"]
    }
    n_found = sum(map(len, found.values()))
    if not n_found:
        raise UserError(
            f"None of the {len(table)} genes in {path} is in the data, whose genes are named like {', '.join(genes[:3])}."
        )
    log.info("%s: %d of its %d markers are in the data.", path.name, n_found, len(table.drop_duplicates()))
    missing = [name for name, own in found.items() if not own]
    if missing:
        log.warning("No marker is in the data for %s: no cluster can be named so.", ", ".join(missing))
    return {name: own for name, own in found.items() if own}


def name_clusters(cells: ad.AnnData, known: dict[str, list[str]], groupby: str = GROUP) -> pd.DataFrame:
    """Name every cluster by the known type whose markers are highest in it.

    A gene's score in a cluster is 2 AUC - 1 (Somers' D): the chance that a cell of the cluster has more of it than
    a cell of another, less the chance that it has less; from -1 to 1. A type's score is the mean over its
    genes. So every gene weighs the same however high it is, and few cells cannot name a cluster that they are lost in.

    cells: as for rank; known: genes per type. Returns a row per cluster of more than one cell; columns name
    (that with the best score, 'unknown' where none is above 0), score, runner_up, margin (between the
    two; NaN for a single type), and a column 'score of TYPE' per type.
    """
    genes = list(dict.fromkeys(gene for own in known.values() for gene in own))
    bare = _bare(cells[:, genes], groupby)
    sizes = bare.obs[GROUP].value_counts(sort=False)
    table = _statistics(bare, list(sizes.index[sizes > 1]), "wilcoxon")
    z = table.pivot(index="group", columns="names", values="scores")
    to_d = np.sqrt((cells.n_obs + 1) / (3 * sizes[z.index] * (cells.n_obs - sizes[z.index])))
    of_genes = z.mul(to_d.to_numpy(), axis=0)
    scores = pd.DataFrame({name: of_genes[own].mean(axis=1) for name, own in known.items()})
    scores.index = scores.index.astype(str)
    ordered = np.argsort(-scores.to_numpy(), axis=1, kind="stable")
    best = np.take_along_axis(scores.to_numpy(), ordered, axis=1)
    several = scores.shape[1] > 1
    named = pd.DataFrame(
        {
            "name": np.where(best[:, 0] > 1e-6, scores.columns[ordered[:, 0]], "unknown"),
            "score": best[:, 0],
            "runner_up": scores.columns[ordered[:, 1]] if several else "",
            "margin": best[:, 0] - best[:, 1] if several else np.nan,
        },
        index=scores.index,
    )
    return named.join(scores.add_prefix("score of ")).rename_axis("cluster")
