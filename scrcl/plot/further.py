"""Figures of gene sets, of genes that vary in space, and of pseudotime."""

from __future__ import annotations

import anndata as ad
import numpy as np
import scanpy as sc
from matplotlib.figure import Figure

from scrcl.genes.ranking import GROUP
from scrcl.keys import SPATIAL, UMAP
from scrcl.plot import tissue
from scrcl.plot.cells import BLUE, ORANGE
from scrcl.plot.genes import SMALLEST_P, Drawing, GeneScene, drawable, tissue_markers_figure
from scrcl.plot.style import MISSING

TERMS_SHOWN = 5  # per cluster
GENES_SHOWN = 8
ALPHA = 0.05
LONGEST_TERM = 45  # letters


def enrichment(scene: GeneScene) -> Drawing | None:
    """Draw the first gene sets of every cluster as bars, if any were tested."""
    if scene.enriched is None or scene.enriched.empty:
        return None
    parts = {str(name): own.head(TERMS_SHOWN) for name, own in scene.enriched.groupby("cluster", sort=False)}
    heights = [len(own) for own in parts.values()]
    figure = Figure(figsize=(9, 0.8 * len(parts) + 0.24 * sum(heights) + 0.4), layout="constrained")
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=[1 + h for h in heights])[:, 0]
    palette = dict(zip(scene.shown.obs[GROUP].cat.categories, scene.shown.uns[f"{GROUP}_colors"]))
    for axes, (name, own) in zip(panels, parts.items()):
        title = scene.names.get(name, name)
        length = -np.log10(own["pval_adj"].clip(lower=SMALLEST_P))
        axes.barh(range(len(own)), length, color=palette.get(title, MISSING))
        terms = [term if len(term) <= LONGEST_TERM else term[: LONGEST_TERM - 1] + "\u2026" for term in own["term"]]
        axes.set_yticks(range(len(own)), [f"{term}  {share}" for term, share in zip(terms, own["overlap"])], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9, loc="left")
        axes.axvline(-np.log10(ALPHA), color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel(f"-log10 of the adjusted p-value; the dashed line is at {ALPHA}")
    caption = (
        f"The first {TERMS_SHOWN} sets of each cluster, with the share of their genes that are specific to it. The "
        "clusters were found in the same data, so a small p-value does not show that a cluster exists."
    )
    return Drawing(caption, figure)


def spatial_genes(scene: GeneScene) -> Drawing | None:
    """Draw the genes that vary most in space on the tissue."""
    if scene.spatial is None or scene.spatial.empty:
        return None
    first = scene.spatial.head(GENES_SHOWN)
    shown = drawable(scene.labelled, list(first.index), scene.names)
    places = tissue.side_by_side(scene.labelled.cells.obsm[SPATIAL][:, :2], scene.labelled.sections)
    titles = {f"{gene}: I = {value:.2f}": gene for gene, value in first["I"].items()}
    caption = (
        f"The {len(first)} genes with the largest Moran's I, the correlation of a spot's value with the mean of its "
        "neighbours. All genes are in spatial_genes.csv."
    )
    return Drawing(caption, tissue_markers_figure(shown, titles, places))


def pseudotime(scene: GeneScene) -> Drawing | None:
    """Draw the pseudotime on the UMAP, if one was asked for."""
    if scene.pseudotime is None:
        return None
    bare = ad.AnnData(obs=scene.shown.obs[[GROUP]].copy(), obsm={UMAP: scene.labelled.cells.obsm[UMAP]})
    bare.uns[f"{GROUP}_colors"] = scene.shown.uns[f"{GROUP}_colors"]
    bare.obs["pseudotime"] = scene.pseudotime.replace(np.inf, np.nan).to_numpy()
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    look = {"show": False, "frameon": False, "na_color": MISSING}
    sc.pl.umap(bare, color=GROUP, ax=left, title="clusters", **look)
    sc.pl.umap(
        bare, color="pseudotime", ax=right, title=f"pseudotime from {scene.settings.root}", cmap="viridis", **look
    )
    caption = (
        "Diffusion pseudotime, from the middle of the cluster named. It means something only where cells pass "
        "gradually from one state to the next; clusters that do not hang together have none."
    )
    return Drawing(caption, figure)


def conditions(scene: GeneScene) -> Drawing | None:
    """Draw the genes that differ most between conditions in each cluster, if conditions were compared."""
    table = scene.conditions
    if table is None:
        return None
    parts = {
        f"{scene.names.get(str(name), name)}: {other} against {table['reference'].iloc[0]}": own[own["padj"] < ALPHA]
        for (name, other), own in table.groupby(["cluster", "condition"], sort=False)
    }
    parts = {title: own.head(GENES_SHOWN) for title, own in parts.items() if len(own)}
    caption = (
        f"The first {GENES_SHOWN} genes of each cluster by p-value, on sums per sample (DESeq2), where the adjusted "
        f"p-value is below {ALPHA}."
    )
    height = 0.8 * max(1, len(parts)) + 0.24 * sum(map(len, parts.values())) + 0.4
    figure = Figure(figsize=(8, height), layout="constrained")
    if not parts:
        figure.text(0.5, 0.5, f"No gene has an adjusted p-value below {ALPHA}.", ha="center")
        return Drawing(caption, figure)
    heights = [1 + len(own) for own in parts.values()]
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, own) in zip(panels, parts.items()):
        axes.barh(range(len(own)), own["log2FoldChange"], color=np.where(own["log2FoldChange"] > 0, ORANGE, BLUE))
        axes.set_yticks(range(len(own)), own["gene"], fontsize=8)
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("log2 of the fold change")
    return Drawing(caption, figure)
