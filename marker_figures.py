"""Figures of marker genes, sized so that every cluster and gene can be read at 2 clusters and at 40."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

import figures
import tissue_figures
from config import DEGConfig
from labelled import Labelled
from markers import GROUP, Markers

MOST_CELLS = 200  # of a cluster, in violins: more change nothing that can be seen
MOST_RANKED = 50  # genes in a ranking panel
HEATMAP_COLUMNS = 50  # per cluster
SWAP_FROM = 40  # genes from which genes stand in rows, so that figures grow downwards and can be scrolled
COLUMNS = 4  # of panels in a grid
SMALLEST_P = 1e-300  # p-values below it are drawn as it


class Drawing(NamedTuple):
    """A figure with its file's name, a title, and a caption that says how to read it. make: draws it."""

    stem: str
    title: str
    caption: str
    make: Callable[[], Figure]


STEMS = (
    *("umap_clusters", "tissue_clusters", "umap_markers", "tissue_markers"),
    *("ranking", "dotplot", "heatmap", "stacked_violin", "matrixplot", "volcano"),
)


def drawings(labelled: Labelled, found: Markers, names: dict[str, str], settings: DEGConfig) -> Iterator[Drawing]:
    """All figures of a ranking, in the order of the report.

    names: what clusters are called in figures, by cluster.
    """
    genes = found.drawn(settings.n_drawn)
    top = {name: (found.top[name] or own)[0] for name, own in genes.items()}
    shown = drawable(labelled, [gene for own in [*genes.values(), top.values()] for gene in own], names)
    brackets = {names[name] + ("" if found.specific[name] else "*"): own for name, own in genes.items()}
    filtered = (
        f"More than {settings.min_in_group_fraction:.0%} of the cluster's {labelled.unit} have the gene, less than "
        f"{settings.max_out_group_fraction:.0%} of all others, log2 fold change above {settings.min_fold_change:g}."
    )
    if not all(found.specific.values()):
        filtered += " * no gene of this cluster passes; its top genes are shown, failing those its first by score."
    swap_axes = sum(map(len, genes.values())) >= SWAP_FROM

    yield Drawing("umap_clusters", "Clusters", f"UMAP of {labelled.umap_from}.", lambda: clusters_figure(shown))
    if labelled.task == "ST":
        yield Drawing("tissue_clusters", "Clusters on the tissue", "", lambda: tissue_figure(labelled, shown))
    caption = (
        f"Of the first {settings.n_genes} genes by score that pass the filter but for the share of other cells, the one "
        "with the largest fold change; failing any, the first by score."
    )
    titles = {f"{names[name]}: {gene}": gene for name, gene in top.items()}
    yield Drawing("umap_markers", "Top genes", caption, lambda: umap_markers_figure(shown, titles))
    if labelled.task == "ST":
        places = tissue_figures.side_by_side(labelled.cells.obsm["spatial"][:, :2], labelled.sections)
        yield Drawing(
            "tissue_markers", "Top genes on the tissue", caption, lambda: tissue_markers_figure(shown, titles, places)
        )
    n_genes = min(settings.n_genes, MOST_RANKED)
    caption = f"The first {n_genes} genes by {_SCORES[settings.method]}, before the filter."
    yield Drawing("ranking", "Ranking", caption, lambda: ranking_figure(found, names, n_genes))
    yield Drawing("dotplot", "Dot plot", filtered, lambda: dotplot_figure(shown, brackets, swap_axes))
    caption = (
        f"{HEATMAP_COLUMNS} {labelled.unit} of every cluster, each gene between its smallest and largest value; "
        "where a cluster has fewer, they are drawn wider."
    )
    yield Drawing(
        "heatmap", "Heat map", caption, lambda: heatmap_figure(equal_groups(shown, HEATMAP_COLUMNS), brackets)
    )
    caption = f"Distribution of log-normalised values in at most {MOST_CELLS} {labelled.unit} of every cluster."
    few = at_most_per_group(shown, MOST_CELLS)
    yield Drawing("stacked_violin", "Stacked violin", caption, lambda: violin_figure(few, brackets, swap_axes))
    caption = "Mean of log-normalised values per cluster, each gene between its smallest and largest mean."
    yield Drawing("matrixplot", "Matrix plot", caption, lambda: matrix_figure(shown, brackets, swap_axes))
    if settings.volcano:
        caption = (
            "Every gene, in colour where it passes the filter; the names are of top genes. Fold changes are drawn within "
            f"2^±10, adjusted p-values down to {SMALLEST_P:g}."
        )
        yield Drawing("volcano", "Volcano plots", caption, lambda: volcano_figure(found, names))


_SCORES = {"wilcoxon": "Wilcoxon's z", "t-test": "Welch's t", "logreg": "coefficient of logistic regression"}


def drawable(labelled: Labelled, genes: list[str], names: dict[str, str]) -> ad.AnnData:
    """These genes alone, dense, with obs['cluster'] by the names shown, their colours in uns, and obsm['X_umap']."""
    cells = labelled.cells
    genes = list(dict.fromkeys(genes))
    shown = ad.AnnData(cells[:, genes].X, obs=cells.obs[[GROUP]], var=pd.DataFrame(index=genes))
    shown.X = shown.X.toarray() if hasattr(shown.X, "toarray") else np.asarray(shown.X)
    panels = {GROUP: cells.obs[GROUP]}
    if labelled.known is not None:
        panels["known"] = figures.as_categorical(labelled.known)
    shown.uns[f"{GROUP}_colors"] = list(figures.colours(panels)[GROUP].values())
    shown.obs[GROUP] = shown.obs[GROUP].cat.rename_categories(names)
    shown.obsm["X_umap"] = cells.obsm["X_umap"]
    return shown


def _palette(shown: ad.AnnData) -> dict[str, str]:
    return dict(zip(shown.obs[GROUP].cat.categories, shown.uns[f"{GROUP}_colors"]))


def at_most_per_group(cells: ad.AnnData, most: int) -> ad.AnnData:
    """A random part of every group that is larger than most, always the same."""
    return cells[np.sort(np.concatenate([own[:most] for own in _shuffled_groups(cells)]))].copy()


def equal_groups(cells: ad.AnnData, size: int) -> ad.AnnData:
    """As many rows of every group: a random part, always the same, of larger ones; of smaller ones every cell repeated."""
    rows = [np.sort(own[:size])[np.arange(size) * min(len(own), size) // size] for own in _shuffled_groups(cells)]
    chosen = np.concatenate(rows)
    obs = cells.obs.iloc[chosen].set_axis([str(i) for i in range(len(chosen))])
    return ad.AnnData(cells.X[chosen], obs=obs, var=cells.var, uns=cells.uns)


def _shuffled_groups(cells: ad.AnnData) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(own) for own in cells.obs.groupby(GROUP, observed=True).indices.values()]


def clusters_figure(shown: ad.AnnData) -> Figure:
    """UMAP coloured by cluster, with the names of the clusters on it and beside it."""
    names = shown.obs[GROUP].cat.categories
    columns = -(-len(names) // 20)
    legend = columns * (0.5 + 0.085 * max(map(len, names)))
    crowded = len(names) > 15 and max(map(len, names)) > 4
    side = 9 if crowded else 6
    figure = Figure(figsize=(side + 0.5 + legend, side), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=[side + 0.5, legend])
    sc.pl.umap(
        shown,
        color=GROUP,
        ax=axes,
        size=min(30, 120_000 / shown.n_obs),
        show=False,
        frameon=False,
        title="",
        legend_loc="on data",
        legend_fontsize=8 if crowded else 9,
        legend_fontweight="normal" if crowded else "bold",
        legend_fontoutline=2,
    )
    tissue_figures.draw_legend(beside, shown.obs[GROUP], _palette(shown))
    _set_apart(figure, [(axes, axes.texts)])
    return figure


def _set_apart(figure: Figure, names: list[tuple[Axes, list[Text]]]) -> None:
    """Move the names in every panel so that none covers another; a line joins a name that was moved to its place."""
    figure.draw_without_rendering()  # the layout must stand before
    figure.set_layout_engine("none")
    line = {"arrowstyle": "-", "color": "black", "linewidth": 0.6}
    for panel in figure.axes:  # adjust_text draws the whole figure every time, so only its panel is shown to it
        panel.set_visible(False)
    for axes, texts in names:
        axes.set_visible(True)
        if len(texts) > 1:
            adjust_text(list(texts), ax=axes, iter_lim=100, arrowprops=line)
        axes.set_visible(False)
    for panel in figure.axes:
        panel.set_visible(True)


def umap_markers_figure(shown: ad.AnnData, titles: dict[str, str]) -> Figure:
    """One UMAP per gene, coloured by its log-normalised value. titles: genes by title."""
    figure, panels = _grid(len(titles), 2.9, 2.5)
    size = min(15, 60_000 / shown.n_obs)
    for axes, (title, gene) in zip(panels, titles.items()):
        sc.pl.umap(
            shown,
            color=gene,
            ax=axes,
            size=size,
            show=False,
            frameon=False,
            cmap="viridis",
            title="",
            colorbar_loc=None,
        )
        figure.colorbar(axes.collections[0], ax=axes, shrink=0.7, aspect=15)
        axes.set_title(title, fontsize=9)
    return figure


def tissue_figure(labelled: Labelled, shown: ad.AnnData) -> Figure:
    """Clusters on the tissue, beside the known domains where there are any."""
    clusters = shown.obs[GROUP]
    panels, palettes = {"clusters": clusters}, {"clusters": _palette(shown)}
    if labelled.known is not None:
        title = f"given: {labelled.known.name}"
        known = figures.as_categorical(labelled.known)
        panels[title] = known
        palettes[title] = figures.colours({"clusters": clusters, title: known})[title]
    return tissue_figures.labels_figure(labelled.cells, panels, palettes, labelled.sections)


def tissue_markers_figure(shown: ad.AnnData, titles: dict[str, str], places: np.ndarray) -> Figure:
    """One map of the tissue per gene, coloured by its log-normalised value. places: [N, 2], of the spots."""
    figure, panels = _grid(len(titles), 2.9, 2.6 * np.clip(tissue_figures.aspect(places), 0.4, 1.6) + 0.3)
    for axes, (title, gene) in zip(panels, titles.items()):
        tissue_figures.draw_values(axes, places, shown[:, gene].X.ravel())
        axes.set_title(title, fontsize=9)
    return figure


def _grid(n_panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels of this size in inches, at most COLUMNS beside each other."""
    columns = min(COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[n_panels:]:
        axes.set_axis_off()
    return figure, list(panels[:n_panels])


def ranking_figure(found: Markers, names: dict[str, str], n_genes: int) -> Figure:
    """scanpy's panel of the first genes of every cluster by score."""
    first = {name: genes.head(n_genes) for name, genes in found.table.groupby("group", observed=True)}
    holder = ad.AnnData(np.zeros((1, 1), dtype=np.float32))  # scanpy reads the ranking from uns
    holder.uns["rank_genes_groups"] = {"params": {"reference": "rest", "groupby": "", "method": ""}} | {
        key: pd.DataFrame({names[name]: genes[key].to_numpy() for name, genes in first.items()}).to_records(index=False)
        for key in ("names", "scores")
    }
    with plt.rc_context({"figure.figsize": (max(3.4, 0.16 * n_genes), 3.2), "axes.titlesize": 9}):
        axes = sc.pl.rank_genes_groups(holder, n_genes=n_genes, ncols=COLUMNS, fontsize=7, sharey=False, show=False)
    for panel, genes in zip(axes, first.values()):  # room for the names, which start at their score and go upwards
        low, high = genes["scores"].min(), genes["scores"].max()
        share = min(0.066 * genes["names"].str.len().max() / 2.1, 0.7)  # of the panel's height, in inches
        panel.set_ylim(low, low + ((high - low) or 1) / (1 - share))
    plt.close(axes[0].figure)
    return axes[0].figure


def dotplot_figure(shown: ad.AnnData, genes: dict[str, list[str]], swap_axes: bool) -> Figure:
    """scanpy's dot plot. genes: per cluster as it is shown."""
    return _made(sc.pl.dotplot(shown, genes, GROUP, swap_axes=swap_axes, show=False, return_fig=True), genes, swap_axes)


def matrix_figure(shown: ad.AnnData, genes: dict[str, list[str]], swap_axes: bool) -> Figure:
    """scanpy's matrix plot, each gene scaled to 0 to 1."""
    plot = sc.pl.matrixplot(
        shown, genes, GROUP, swap_axes=swap_axes, standard_scale="var", cmap="viridis", show=False, return_fig=True,
        colorbar_title="mean in cluster,\nscaled per gene",
    )  # fmt: skip
    return _made(plot, genes, swap_axes)


def violin_figure(shown: ad.AnnData, genes: dict[str, list[str]], swap_axes: bool) -> Figure:
    """scanpy's stacked violins."""
    plot = sc.pl.stacked_violin(shown, genes, GROUP, swap_axes=swap_axes, show=False, return_fig=True)
    return _made(plot, genes, swap_axes)


def _made(
    plot: sc.pl.DotPlot | sc.pl.MatrixPlot | sc.pl.StackedViolin, genes: dict[str, list[str]], swap_axes: bool
) -> Figure:
    """The figure of a scanpy plot. Beside rows of genes scanpy cuts the names of clusters off: here they stand in full."""
    plot.make_figure()
    plt.close(plot.fig)  # pyplot need not keep it
    if swap_axes:
        for text, name in zip(plot.ax_dict["gene_group_ax"].texts, genes):
            text.set(text=name, rotation=0, horizontalalignment="left", x=0.6)
        further = 0.075 * max(map(len, genes)) / plot.fig.get_figwidth()
        for key in {"size_legend_ax", "color_legend_ax"} & set(plot.ax_dict):
            x, y, width, height = plot.ax_dict[key].get_position().bounds
            plot.ax_dict[key].set_position((x + further, y, width, height))
    return plot.fig


def heatmap_figure(shown: ad.AnnData, genes: dict[str, list[str]]) -> Figure:
    """scanpy's heat map: genes in rows, a column per cell."""
    n_genes = sum(map(len, genes.values()))
    n_groups = shown.obs[GROUP].nunique()
    axes = sc.pl.heatmap(
        shown, genes, GROUP, swap_axes=True, standard_scale="var", cmap="viridis", show=False, show_gene_labels=True,
        figsize=(float(np.clip(0.5 * n_groups, 6, 18)), 1.5 + 0.2 * n_genes),
    )  # fmt: skip
    figure = axes["heatmap_ax"].figure
    plt.close(figure)
    return figure


def volcano_figure(found: Markers, names: dict[str, str]) -> Figure:
    """Per cluster, log2 fold change against the adjusted p-value of every gene, with the names of the first top genes."""
    figure, panels = _grid(len(found.specific), 3.4, 3.2)
    labels: list[tuple[Axes, list[Text]]] = []
    for axes, (group, genes) in zip(panels, found.table.groupby("group", observed=True)):
        height = -np.log10(genes["pvals_adj"].clip(lower=SMALLEST_P))
        change = genes["logfoldchanges"].clip(-10, 10)
        colours = np.where(genes["passes_filter"], figures.PALETTE[3], figures.MISSING)
        axes.scatter(change, height, s=4, c=colours, linewidths=0)
        named = genes["names"].isin(found.top[group][:5])
        places = genes["names"][named].groupby([change[named], height[named]]).agg("\n".join)  # some share their place
        texts = [axes.text(x, y, text, fontsize=7) for (x, y), text in places.items()]
        axes.set_title(names[group], fontsize=9)
        axes.set(xlim=(-12, 12), ylim=(-0.03 * height.max(), 1.3 * height.max() or 1))  # with room for the names
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        labels.append((axes, texts))
    figure.supxlabel("log2 fold change", fontsize=9)
    figure.supylabel("-log10 adjusted p", fontsize=9)
    _set_apart(figure, labels)
    return figure
