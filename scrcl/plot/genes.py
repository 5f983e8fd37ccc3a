"""Figures of marker genes, sized so that every cluster and gene can be read with 2 clusters and with 40.

Each figure is a function of a `GeneScene`; its name is listed in `scrcl.plot.GENE_FIGURES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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

from scrcl.genes.labelled import Labelled
from scrcl.genes.ranking import GROUP, Markers
from scrcl.genes.settings import MarkerSettings
from scrcl.keys import SPATIAL, UMAP
from scrcl.plot import tissue
from scrcl.plot.style import MISSING, PALETTE, as_categorical, colours

MOST_CELLS = 200  # most cells of a cluster in violins; more would make no visible difference
MOST_RANKED = 50  # most genes in a ranking panel
HEATMAP_COLUMNS = 50  # cells per cluster
SWAP_FROM = 40  # from so many genes on, genes are in rows, so that figures grow downwards and can be scrolled
COLUMNS = 4  # panels side by side in a grid
SMALLEST_P = 1e-300  # smaller p-values are drawn as this one
_SCORES = {"wilcoxon": "Wilcoxon's z", "t-test": "Welch's t", "logreg": "coefficient of logistic regression"}


class Drawing(NamedTuple):
    """A figure, and a caption that says how to read it."""

    caption: str
    figure: Figure


@dataclass(frozen=True)
class GeneScene:
    """What the figures of marker genes are drawn from.

    Attributes
    ----------
    labelled
        The cells with their clusters.
    found
        The ranked genes of the clusters.
    names
        What each cluster is called in figures, by cluster.
    settings
        The settings of the ranking and of the figures.
    enriched, spatial, pseudotime, conditions
        What `genes.further` has found, or None.
    """

    labelled: Labelled
    found: Markers
    names: dict[str, str]
    settings: MarkerSettings
    enriched: pd.DataFrame | None = None
    spatial: pd.DataFrame | None = None
    pseudotime: pd.Series | None = None
    conditions: pd.DataFrame | None = None

    @cached_property
    def genes(self) -> dict[str, list[str]]:
        """The genes that are drawn, by cluster."""
        return self.found.drawn(self.settings.n_drawn)

    @cached_property
    def first(self) -> dict[str, str]:
        """One gene per cluster: the top gene with the largest fold change, or else the first gene by score."""
        return {name: (self.found.top[name] or own)[0] for name, own in self.genes.items()}

    @cached_property
    def shown(self) -> ad.AnnData:
        """The cells with the genes that are drawn, see `drawable`."""
        genes = [gene for own in [*self.genes.values(), self.first.values()] for gene in own]
        return drawable(self.labelled, genes, self.names)

    @property
    def titled_first(self) -> dict[str, str]:
        """The genes of `first`, by the title of their panel."""
        return {f"{self.names[name]}: {gene}": gene for name, gene in self.first.items()}

    @property
    def first_in_words(self) -> str:
        """The sentence that says how `first` was chosen."""
        return (
            f"Of the first {self.settings.n_genes} genes by score that pass the filter but for the share of other "
            "cells, the one with the largest fold change; or else the first by score."
        )

    @property
    def brackets(self) -> dict[str, list[str]]:
        """The genes that are drawn, by the shown name of the cluster.

        A star marks a cluster where no gene passes the filter.
        """
        return {self.names[name] + "*" * (not self.found.specific[name]): own for name, own in self.genes.items()}

    @property
    def filter_in_words(self) -> str:
        """The sentence that says which genes are drawn."""
        unit = self.labelled.unit
        text = (
            f"More than {self.settings.min_in_group_fraction:.0%} of the cluster's {unit} have the gene, less than "
            f"{self.settings.max_out_group_fraction:.0%} of all others, log2 fold change above "
            f"{self.settings.min_fold_change:g}."
        )
        if all(self.found.specific.values()):
            return text
        return text + " * no gene of this cluster passes; its top genes are shown, or else its first genes by score."

    @property
    def swap_axes(self) -> bool:
        """Whether genes are drawn in rows."""
        return sum(map(len, self.genes.values())) >= SWAP_FROM


def umap_clusters(scene: GeneScene) -> Drawing:
    """Draw the clusters on the UMAP."""
    return Drawing(f"UMAP of {scene.labelled.umap_from}.", clusters_figure(scene.shown))


def tissue_clusters(scene: GeneScene) -> Drawing:
    """Draw the clusters on the tissue."""
    return Drawing("", tissue_figure(scene.labelled, scene.shown))


def umap_markers(scene: GeneScene) -> Drawing:
    """Draw one gene per cluster on the UMAP."""
    return Drawing(scene.first_in_words, umap_markers_figure(scene.shown, scene.titled_first))


def tissue_markers(scene: GeneScene) -> Drawing:
    """Draw one gene per cluster on the tissue."""
    places = tissue.side_by_side(scene.labelled.cells.obsm[SPATIAL][:, :2], scene.labelled.sections)
    figure = tissue_markers_figure(scene.shown, scene.titled_first, places)
    return Drawing(scene.first_in_words, figure)


def ranking(scene: GeneScene) -> Drawing:
    """Draw the first genes of every cluster by score."""
    n_genes = min(scene.settings.n_genes, MOST_RANKED)
    caption = f"The first {n_genes} genes by {_SCORES[scene.settings.method]}, before the filter."
    return Drawing(caption, ranking_figure(scene.found, scene.names, n_genes))


def dotplot(scene: GeneScene) -> Drawing:
    """Draw scanpy's dot plot."""
    return Drawing(scene.filter_in_words, dotplot_figure(scene.shown, scene.brackets, scene.swap_axes))


def heatmap(scene: GeneScene) -> Drawing:
    """Draw scanpy's heat map, with equally many cells of every cluster."""
    caption = (
        f"{HEATMAP_COLUMNS} {scene.labelled.unit} of every cluster, each gene between its smallest and largest value; "
        "where a cluster has fewer, they are drawn wider."
    )
    return Drawing(caption, heatmap_figure(equal_groups(scene.shown, HEATMAP_COLUMNS), scene.brackets))


def stacked_violin(scene: GeneScene) -> Drawing:
    """Draw scanpy's stacked violins."""
    unit = scene.labelled.unit
    caption = f"Distribution of log-normalised values in at most {MOST_CELLS} {unit} of every cluster."
    few = at_most_per_group(scene.shown, MOST_CELLS)
    return Drawing(caption, violin_figure(few, scene.brackets, scene.swap_axes))


def matrixplot(scene: GeneScene) -> Drawing:
    """Draw scanpy's matrix plot."""
    caption = "Mean of log-normalised values per cluster, each gene between its smallest and largest mean."
    return Drawing(caption, matrix_figure(scene.shown, scene.brackets, scene.swap_axes))


def volcano(scene: GeneScene) -> Drawing | None:
    """Draw fold changes against p-values, if the settings ask for it."""
    if not scene.settings.volcano:
        return None
    caption = (
        "Every gene, in colour where it passes the filter; the names are of top genes. Fold changes are drawn within "
        f"2^±10, adjusted p-values down to {SMALLEST_P:g}."
    )
    return Drawing(caption, volcano_figure(scene.found, scene.names))


def drawable(labelled: Labelled, genes: list[str], names: dict[str, str]) -> ad.AnnData:
    """Return the cells with some genes only, dense, ready for scanpy's plots.

    Parameters
    ----------
    labelled
        The cells with their clusters.
    genes
        Which genes; repeated ones count once.
    names
        What each cluster is called in figures, by cluster.

    Returns
    -------
    A new AnnData with obs['cluster'] by shown name, the colours of the clusters in uns, and obsm['X_umap'].
    """
    cells = labelled.cells
    genes = list(dict.fromkeys(genes))
    shown = ad.AnnData(cells[:, genes].X, obs=cells.obs[[GROUP]], var=pd.DataFrame(index=genes))
    shown.X = shown.X.toarray() if hasattr(shown.X, "toarray") else np.asarray(shown.X)
    panels = {GROUP: cells.obs[GROUP]}
    if labelled.known is not None:
        panels["known"] = as_categorical(labelled.known)
    shown.uns[f"{GROUP}_colors"] = list(colours(panels)[GROUP].values())
    shown.obs[GROUP] = shown.obs[GROUP].cat.rename_categories(names)
    shown.obsm[UMAP] = cells.obsm[UMAP]
    return shown


def _palette(shown: ad.AnnData) -> dict[str, str]:
    """Return the colour of each cluster, by shown name."""
    return dict(zip(shown.obs[GROUP].cat.categories, shown.uns[f"{GROUP}_colors"]))


def at_most_per_group(cells: ad.AnnData, most: int) -> ad.AnnData:
    """Return the cells with at most `most` of every group, by a random choice that is always the same."""
    return cells[np.sort(np.concatenate([own[:most] for own in _shuffled_groups(cells)]))].copy()


def equal_groups(cells: ad.AnnData, size: int) -> ad.AnnData:
    """Return equally many rows of every group.

    Larger groups give a random part, which is always the same. In smaller groups every cell is repeated.

    Parameters
    ----------
    cells
        Dense X, and obs['cluster'].
    size
        Rows per group.
    """
    # The index runs evenly from 0 to the group's size, so that a small group's cells are repeated equally often.
    rows = [np.sort(own[:size])[np.arange(size) * min(len(own), size) // size] for own in _shuffled_groups(cells)]
    chosen = np.concatenate(rows)
    obs = cells.obs.iloc[chosen].set_axis([str(i) for i in range(len(chosen))])
    return ad.AnnData(cells.X[chosen], obs=obs, var=cells.var, uns=cells.uns)


def _shuffled_groups(cells: ad.AnnData) -> list[np.ndarray]:
    """Return the rows of every group in a random order that is always the same."""
    rng = np.random.default_rng(0)
    return [rng.permutation(own) for own in cells.obs.groupby(GROUP, observed=True).indices.values()]


def clusters_figure(shown: ad.AnnData) -> Figure:
    """Draw the UMAP coloured by cluster, with the names of the clusters on it and in a legend."""
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
    tissue.draw_legend(beside, shown.obs[GROUP], _palette(shown))
    _set_apart(figure, [(axes, axes.texts)])
    return figure


def _set_apart(figure: Figure, names: list[tuple[Axes, list[Text]]]) -> None:
    """Move the names in every panel so that none covers another; a line joins a moved name to its place."""
    figure.draw_without_rendering()  # fixes the layout, which decides where names overlap
    figure.set_layout_engine("none")
    line = {"arrowstyle": "-", "color": "black", "linewidth": 0.6}
    for panel in figure.axes:  # adjust_text draws the whole figure every time, so all other panels are hidden
        panel.set_visible(False)
    for axes, texts in names:
        axes.set_visible(True)
        if len(texts) > 1:
            adjust_text(list(texts), ax=axes, iter_lim=100, arrowprops=line)
        axes.set_visible(False)
    for panel in figure.axes:
        panel.set_visible(True)


def umap_markers_figure(shown: ad.AnnData, titles: dict[str, str]) -> Figure:
    """Draw one UMAP per gene, coloured by its log-normalised value.

    Parameters
    ----------
    shown
        What `drawable` returns.
    titles
        The genes, by the title of their panel.
    """
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
    """Draw the clusters on the tissue, with the known domains next to them if there are any."""
    clusters = shown.obs[GROUP]
    panels, palettes = {"clusters": clusters}, {"clusters": _palette(shown)}
    if labelled.known is not None:
        title = f"given: {labelled.known.name}"
        known = as_categorical(labelled.known)
        panels[title] = known
        palettes[title] = colours({"clusters": clusters, title: known})[title]
    return tissue.labels_figure(labelled.cells, panels, palettes, labelled.sections)


def tissue_markers_figure(shown: ad.AnnData, titles: dict[str, str], places: np.ndarray) -> Figure:
    """Draw one map of the tissue per gene, coloured by its log-normalised value.

    Parameters
    ----------
    shown
        What `drawable` returns.
    titles
        The genes, by the title of their panel.
    places
        [N, 2], positions of the spots.
    """
    figure, panels = _grid(len(titles), 2.9, 2.6 * np.clip(tissue.aspect(places), 0.4, 1.6) + 0.3)
    for axes, (title, gene) in zip(panels, titles.items()):
        tissue.draw_values(axes, places, shown[:, gene].X.ravel())
        axes.set_title(title, fontsize=9)
    return figure


def _grid(n_panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels of this size in inches, at most COLUMNS side by side."""
    columns = min(COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[n_panels:]:
        axes.set_axis_off()
    return figure, list(panels[:n_panels])


def ranking_figure(found: Markers, names: dict[str, str], n_genes: int) -> Figure:
    """Draw scanpy's panel of the first genes of every cluster by score."""
    first = {name: genes.head(n_genes) for name, genes in found.table.groupby("group", observed=True)}
    holder = ad.AnnData(np.zeros((1, 1), dtype=np.float32))  # scanpy reads the ranking from uns
    holder.uns["rank_genes_groups"] = {"params": {"reference": "rest", "groupby": "", "method": ""}} | {
        key: pd.DataFrame({names[name]: genes[key].to_numpy() for name, genes in first.items()}).to_records(index=False)
        for key in ("names", "scores")
    }
    with plt.rc_context({"figure.figsize": (max(3.4, 0.16 * n_genes), 3.2), "axes.titlesize": 9}):
        axes = sc.pl.rank_genes_groups(holder, n_genes=n_genes, ncols=COLUMNS, fontsize=7, sharey=False, show=False)
    for panel, genes in zip(axes, first.values()):  # leave room for the names, which run upwards from their score
        low, high = genes["scores"].min(), genes["scores"].max()
        share = min(0.066 * genes["names"].str.len().max() / 2.1, 0.7)  # of the panel's height; 0.066 and 2.1 in inches
        panel.set_ylim(low, low + ((high - low) or 1) / (1 - share))
    plt.close(axes[0].figure)
    return axes[0].figure


def dotplot_figure(shown: ad.AnnData, genes: dict[str, list[str]], swap_axes: bool) -> Figure:
    """Draw scanpy's dot plot of genes listed by the shown name of their cluster."""
    return _made(sc.pl.dotplot(shown, genes, GROUP, swap_axes=swap_axes, show=False, return_fig=True), genes, swap_axes)


def matrix_figure(shown: ad.AnnData, genes: dict[str, list[str]], swap_axes: bool) -> Figure:
    """Draw scanpy's matrix plot, with each gene scaled to the range 0 to 1."""
    plot = sc.pl.matrixplot(
        shown, genes, GROUP, swap_axes=swap_axes, standard_scale="var", cmap="viridis", show=False, return_fig=True,
        colorbar_title="mean in cluster,\nscaled per gene",
    )  # fmt: skip
    return _made(plot, genes, swap_axes)


def violin_figure(shown: ad.AnnData, genes: dict[str, list[str]], swap_axes: bool) -> Figure:
    """Draw scanpy's stacked violins."""
    plot = sc.pl.stacked_violin(shown, genes, GROUP, swap_axes=swap_axes, show=False, return_fig=True)
    return _made(plot, genes, swap_axes)


def _made(
    plot: sc.pl.DotPlot | sc.pl.MatrixPlot | sc.pl.StackedViolin, genes: dict[str, list[str]], swap_axes: bool
) -> Figure:
    """Return the figure of a scanpy plot, with the names of clusters in full.

    scanpy cuts them off when genes are in rows.
    """
    plot.make_figure()
    plt.close(plot.fig)  # else pyplot keeps it in memory
    if swap_axes:
        for text, name in zip(plot.ax_dict["gene_group_ax"].texts, genes):
            text.set(text=name, rotation=0, horizontalalignment="left", x=0.6)
        further = 0.075 * max(map(len, genes)) / plot.fig.get_figwidth()
        for key in {"size_legend_ax", "color_legend_ax"} & set(plot.ax_dict):
            x, y, width, height = plot.ax_dict[key].get_position().bounds
            plot.ax_dict[key].set_position((x + further, y, width, height))
    return plot.fig


def heatmap_figure(shown: ad.AnnData, genes: dict[str, list[str]]) -> Figure:
    """Draw scanpy's heat map, with genes in rows and one column per cell."""
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
    """Draw the log2 fold change of every gene against its adjusted p-value, per cluster.

    The first top genes are named.
    """
    figure, panels = _grid(len(found.specific), 3.4, 3.2)
    labels: list[tuple[Axes, list[Text]]] = []
    for axes, (group, genes) in zip(panels, found.table.groupby("group", observed=True)):
        height = -np.log10(genes["pvals_adj"].clip(lower=SMALLEST_P))
        change = genes["logfoldchanges"].clip(-10, 10)
        colours = np.where(genes["passes_filter"], PALETTE[3], MISSING)
        axes.scatter(change, height, s=4, c=colours, linewidths=0)
        named = genes["names"].isin(found.top[group][:5])
        # Genes at the same place share one text.
        places = genes["names"][named].groupby([change[named], height[named]]).agg("\n".join)
        texts = [axes.text(x, y, text, fontsize=7) for (x, y), text in places.items()]
        axes.set_title(names[group], fontsize=9)
        axes.set(xlim=(-12, 12), ylim=(-0.03 * height.max(), 1.3 * height.max() or 1))  # leaves room for the names
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        labels.append((axes, texts))
    figure.supxlabel("log2 fold change", fontsize=9)
    figure.supylabel("-log10 adjusted p", fontsize=9)
    _set_apart(figure, labels)
    return figure
