"""What clusters are, beyond their markers: gene sets, genes that vary in space, an order in time, and conditions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse, stats

from scrcl.contents.places import section_members
from scrcl.genes.ranking import GROUP, Markers
from scrcl.keys import COUNTS
from scrcl.messages import UserError, did_you_mean, log, natural_order, one_line

FEWEST_SPOTS = 10  # that have a gene whose variation in space is tested
FEWEST_COUNTS = 10  # of a gene in all samples of a cluster
TERMS = ("cluster", "term", "overlap", "pval", "pval_adj", "odds_ratio", "genes")


def enrichment(found: Markers, gene_sets: Path, background: list[str]) -> pd.DataFrame:
    """Test which gene sets hold more of a cluster's specific genes than chance gives (gseapy, hypergeometric test).

    Parameters
    ----------
    found
        The ranked genes. Of a cluster without specific genes, the top genes are taken.
    gene_sets
        A GMT file: a set per line, its name, a description, and its genes, separated by tabs.
    background
        All genes of the data, which are what chance draws from.

    Returns
    -------
    One row per cluster and set that share a gene, by cluster and adjusted p-value: cluster, term, overlap, pval,
    pval_adj (Benjamini-Hochberg, within the cluster), odds_ratio and genes.

    Raises
    ------
    UserError
        When gseapy is missing, the file is no GMT file, or none of its genes is in the data.
    """
    try:
        import gseapy
    except ImportError as error:
        raise UserError("--gene-sets needs gseapy; `pip install gseapy`.") from error
    sets = _read_sets(gene_sets, background)
    parts = []
    for name, specific in found.specific.items():
        genes = specific or found.top[name]
        if not set(genes) & {gene for own in sets.values() for gene in own}:
            continue
        test = gseapy.enrich(gene_list=genes, gene_sets=sets, background=background, outdir=None, no_plot=True)
        parts.append(test.res2d.assign(cluster=name))
    if not parts:
        return pd.DataFrame(columns=list(TERMS))
    table = pd.concat(parts, ignore_index=True).rename(
        columns={
            "Term": "term",
            "Overlap": "overlap",
            "P-value": "pval",
            "Adjusted P-value": "pval_adj",
            "Odds Ratio": "odds_ratio",
            "Genes": "genes",
        }
    )
    table["cluster"] = pd.Categorical(table["cluster"], list(found.specific))
    table = table.sort_values(["cluster", "pval_adj", "pval"], kind="stable")
    return table[list(TERMS)].astype({"cluster": str}).reset_index(drop=True)


def _read_sets(path: Path, genes: list[str]) -> dict[str, list[str]]:
    """Return the gene sets of a GMT file in the spelling of the data, without those that have no gene there."""
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--gene-sets {path} cannot be read ({one_line(error)}); it takes a GMT file.") from error
    if not rows or min(map(len, rows)) < 3:
        raise UserError(f"{path} is no GMT file: each line needs a name, a description and genes, separated by tabs.")
    spelling = {gene.upper(): gene for gene in reversed(genes)}
    sets = {row[0]: [spelling[gene.upper()] for gene in row[2:] if gene.upper() in spelling] for row in rows}
    sets = {name: own for name, own in sets.items() if own}
    if not sets:
        near = ", ".join(genes[:3])
        raise UserError(f"None of the genes in {path} is in the data, whose genes are named like {near}.")
    log.info("%s: %d gene sets.", path.name, len(sets))
    return sets


def spatial_genes(cells: ad.AnnData, graph: sparse.spmatrix, sections: np.ndarray | None = None) -> pd.DataFrame:
    """Return Moran's I of every gene over neighbouring spots, as squidpy's spatial_autocorr does.

    Of several sections it is the mean over their spots of each section's own, so that a difference between slides is
    not mistaken for variation in space.

    Parameters
    ----------
    cells
        Spots x genes, log-normalised.
    graph
        [N, N] symmetric, which spots are neighbours; every spot's weights are scaled to a sum of 1.
    sections
        [N], the section of each spot; None for a single one.

    Returns
    -------
    One row per gene that 10 spots have, by I: I, from -1 to 1; pval_norm, one-sided, with the variance that I has if
    values are normal and independent; pval_norm_fdr_bh; n_spots.
    """
    n_spots = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    kept = np.flatnonzero(n_spots >= min(FEWEST_SPOTS, cells.n_obs // 2))
    values, total = sparse.csr_matrix(cells.X[:, kept]), np.zeros((3, len(kept)))
    for member in section_members(sections, cells.n_obs):
        share = len(member) / cells.n_obs
        own, mean, variance = _morans_i(sparse.csr_matrix(graph)[member][:, member], values[member])
        total += np.stack([share * own, np.full(len(kept), share * mean), np.full(len(kept), share**2 * variance)])
    found = total[0]
    pvals = stats.norm.sf((found - total[1]) / np.sqrt(total[2]))
    table = pd.DataFrame(
        {
            "I": found,
            "pval_norm": pvals,
            "pval_norm_fdr_bh": stats.false_discovery_control(pvals) if len(pvals) else pvals,
            "n_spots": n_spots[kept],
        },
        index=pd.Index(cells.var_names[kept], name="gene"),
    )
    return table.sort_values("I", ascending=False, kind="stable")


def _morans_i(graph: sparse.csr_matrix, values: sparse.csr_matrix) -> tuple[np.ndarray, float, float]:
    """Return Moran's I of every gene in one section, 0 where it does not vary; and its mean and variance by chance."""
    n, degrees = graph.shape[0], np.asarray(graph.sum(axis=1)).ravel()
    weights = sparse.csr_matrix(sparse.diags(1 / np.maximum(degrees, 1)) @ graph)
    total, both = weights.sum(), weights + weights.T
    s1 = both.multiply(both).sum() / 2
    s2 = ((np.asarray(weights.sum(axis=1)).ravel() + np.asarray(weights.sum(axis=0)).ravel()) ** 2).sum()
    expected = -1 / (n - 1)
    variance = (n**2 * s1 - n * s2 + 3 * total**2) / ((n**2 - 1) * total**2) - expected**2
    found = sc.metrics.morans_i(weights, sparse.csr_matrix(values.T))
    return np.nan_to_num(found), expected, float(variance)


def pseudotime(cells: ad.AnnData, root: str, use_rep: str) -> pd.Series:
    """Return each cell's diffusion pseudotime from a cluster, 0 to 1 (Haghverdi et al. 2016; scanpy's dpt).

    It starts at the cell in the middle of that cluster. It means something only where cells pass gradually from one
    state to the next.

    Parameters
    ----------
    cells
        With obs['cluster'].
    root
        The cluster to start from.
    use_rep
        The key of obsm in which cells are near each other.

    Returns
    -------
    [N]; infinite for cells that cannot be reached from there.

    Raises
    ------
    UserError
        When there is no such cluster.
    """
    names = list(cells.obs[GROUP].cat.categories)
    if root not in names:
        near = did_you_mean(root, names)
        raise UserError(f"There is no cluster {root} to start from{near}; there are {', '.join(names)}.")
    points = np.asarray(cells.obsm[use_rep])
    part = ad.AnnData(obs=cells.obs[[GROUP]], obsm={use_rep: points})
    sc.pp.neighbors(part, n_neighbors=min(15, part.n_obs - 1), use_rep=use_rep, random_state=0)
    sc.tl.diffmap(part, n_comps=min(15, part.n_obs - 2), random_state=0)
    inside = np.flatnonzero((cells.obs[GROUP] == root).to_numpy())
    middle = ((points[inside] - np.median(points[inside], axis=0)) ** 2).sum(axis=1).argmin()
    part.uns["iroot"] = int(inside[middle])
    sc.tl.dpt(part, n_dcs=min(10, part.obsm["X_diffmap"].shape[1]))
    return part.obs["dpt_pseudotime"].rename("pseudotime")


class Bulk(NamedTuple):
    """Counts summed over the cells of each cluster and sample.

    Attributes
    ----------
    counts
        [sums, G], whole numbers.
    samples
        A row per sum, in the same order: cluster, sample and condition.
    """

    counts: pd.DataFrame
    samples: pd.DataFrame


def pseudobulk(cells: ad.AnnData, labels: pd.Series, condition_key: str, sample_key: str) -> Bulk:
    """Sum counts over the cells of each cluster and sample.

    Cells of one sample are no replicates of each other: what differs between donors would count as a difference between
    conditions. Sums per sample are compared instead (Squair et al. 2021, Nature Communications 12:5692).

    Parameters
    ----------
    cells
        With layers['counts'].
    labels
        [N], the clusters; cells where they are missing are left out.
    condition_key, sample_key
        Columns of obs.

    Raises
    ------
    UserError
        When there are no counts or no such columns, values are missing, a sample has several conditions, or there are
        fewer than two conditions.
    """
    if COUNTS not in cells.layers:
        raise UserError("--condition-key needs counts, and the data hold none.")
    if sample_key == "none":
        raise UserError("--condition-key needs --sample-key, the obs column of donors or animals, which are compared.")
    for key in (condition_key, sample_key):
        if key not in cells.obs:
            near = did_you_mean(key, map(str, cells.obs))
            raise UserError(f"There is no obs column {key!r}{near}.")
        if cells.obs[key].isna().any():
            raise UserError(f"{cells.obs[key].isna().sum()} cells have no value in obs[{key!r}]; fill it in.")
    obs = pd.DataFrame(
        {
            "cluster": labels.astype(object),
            "sample": cells.obs[sample_key].astype(str),
            "condition": cells.obs[condition_key].astype(str),
        },
        index=cells.obs_names,
    )
    several = obs.groupby("sample")["condition"].nunique()
    if several.max() > 1:
        raise UserError(f"The sample {several.idxmax()!r} has several conditions in obs[{condition_key!r}].")
    if obs["condition"].nunique() < 2:
        raise UserError(f"There is only one condition in obs[{condition_key!r}], so there is nothing to compare.")
    there = obs["cluster"].notna().to_numpy()
    groups = obs[there].groupby(["cluster", "sample", "condition"], sort=True).ngroup()
    kept = obs[there].assign(group=groups).drop_duplicates("group").sort_values("group")
    ones = sparse.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))))
    sums = (ones @ sparse.csr_matrix(cells.layers[COUNTS])[there]).toarray()
    names = [f"{row.cluster} {row.sample}" for row in kept.itertuples()]
    counts = pd.DataFrame(np.rint(sums).astype(int), index=names, columns=cells.var_names)
    return Bulk(counts, kept[["cluster", "sample", "condition"]].set_axis(names).astype(str))


def conditions(bulk: Bulk) -> pd.DataFrame:
    """Compare the conditions within each cluster, by DESeq2's test on sums per sample (pydeseq2).

    Every condition is compared with the first by name. Clusters in which a condition has a single sample are left out.

    Returns
    -------
    One row per cluster, condition and gene with counts, by cluster, condition and p-value: cluster, condition,
    reference, gene, baseMean, log2FoldChange, pvalue, padj (within the comparison) and n_samples.

    Raises
    ------
    UserError
        When pydeseq2 is missing, and when no cluster can be compared.
    """
    try:
        from pydeseq2.dds import DeseqDataSet
        from pydeseq2.ds import DeseqStats
    except ImportError as error:
        raise UserError("--condition-key needs pydeseq2; `pip install pydeseq2`.") from error
    parts, few = [], []
    for cluster in natural_order(bulk.samples["cluster"].unique()):
        own = bulk.samples[bulk.samples["cluster"] == cluster]
        replicated = own["condition"].value_counts()
        names = natural_order(replicated.index[replicated > 1])
        if len(names) < 2:
            few.append(cluster)
            continue
        own = own[own["condition"].isin(names)]
        counts = bulk.counts.loc[own.index]
        counts = counts.loc[:, counts.sum() >= FEWEST_COUNTS]
        fitted = DeseqDataSet(counts=counts, metadata=own[["condition"]], design="~condition", quiet=True)
        fitted.deseq2()
        for name in names[1:]:
            test = DeseqStats(fitted, contrast=["condition", name, names[0]], quiet=True)
            test.summary()
            table = test.results_df.sort_values("pvalue", kind="stable").rename_axis("gene").reset_index()
            parts.append(table.assign(cluster=cluster, condition=name, reference=names[0], n_samples=len(own)))
    if few:
        log.warning("Not compared, since a condition has fewer than 2 samples there: clusters %s.", ", ".join(few))
    if not parts:
        raise UserError("No cluster has two samples of each of two conditions, so conditions cannot be compared.")
    columns = ["cluster", "condition", "reference", "gene", "baseMean", "log2FoldChange", "pvalue", "padj", "n_samples"]
    return pd.concat(parts, ignore_index=True)[columns]
