"""Figures of marker genes, sized so that every cluster and gene can be read at 2 clusters and at 40.

Each figure is a function of a `GeneScene`; its name stands in `scrcl.plot.GENE_FIGURES`.
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

MOST_CELLS = 200  # of a cluster, in violins: more change nothing that can be seen
MOST_RANKED = 50  # genes in a ranking panel
HEATMAP_COLUMNS = 50  # per cluster
SWAP_FROM = 40  # genes from which genes stand in rows, so that figures grow downwards and can be scrolled
COLUMNS = 4  # of panels in a grid
SMALLEST_P = 1e-300  # p-values below it are drawn as it
_SCORES = {"wilcoxon": "Wilcoxon's z", "t-test": "Welch's t", "logreg": "coefficient of logistic regression"}


class Drawing(NamedTuple):
    """A figure, and a caption that says how to read it."""

    caption: str
    figure: Figure


@dataclass(frozen=True)
class GeneScene:
    """What the figures of marker genes are drawn from.

    labelled: the cells; found: their genes; names: what clusters are called in figures, by cluster.
    """

    labelled: Labelled
    found: Markers
    names: dict[str, str]
    settings: MarkerSettings

    @cached_property
    def genes(self) -> dict[str, list[str]]:
        """The genes that are drawn, by cluster."""
        return self.found.drawn(self.settings.n_drawn)

    @cached_property
    def first(self) -> dict[str, str]:
        """One gene per cluster: the top gene with the largest fold change; failing any, the first by score."""
        return {name: (self.found.top[name] or own)[0] for name, own in self.genes.items()}

    @cached_property
    def shown(self) -> ad.AnnData:
        """The genes that are drawn, see `drawable`."""
        genes = [gene for own in [*self.genes.values(), self.first.values()] for gene in own]
        return drawable(self.labelled, genes, self.names)

    @property
    def titled_first(self) -> dict[str, str]:
        """`first` by title."""
        return {f"{self.names[name]}: {gene}": gene for name, gene in self.first.items()}

    @property
    def first_in_words(self) -> str:
        """How `first` was chosen."""
        return (
            f"Of the first {self.settings.n_genes} genes by score that pass the filter but for the share of other cells, "
            "the one with the largest fold change; failing any, the first by score."
        )

    @property
    def brackets(self) -> dict[str, list[str]]:
        """`genes` by the name of the cluster, with a star where none passes the filter."""
        return {self.names[name] + "*" * (not self.found.specific[name]): own for name, own in self.genes.items()}

    @property
    def filter_in_words(self) -> str:
        """Which genes are drawn."""
        unit = self.labelled.unit
        text = (
            f"More than {self.settings.min_in_group_fraction:.0%} of the cluster's {unit} have the gene, less than "
            f"{self.settings.max_out_group_fraction:.0%} of all others, log2 fold change above "
            f"{self.settings.min_fold_change:g}."
        )
        if all(self.found.specific.values()):
            return text
        return text + " * no gene of this cluster passes; its top genes are shown, failing those its first by score."

    @property
    def swap_axes(self) -> bool:
        """Whether genes stand in rows."""
        return sum(map(len, self.genes.values())) >= SWAP_FROM


def umap_clusters(scene: GeneScene) -> Drawing:
    """Clusters on the UMAP."""
    return Drawing(f"UMAP of {scene.labelled.umap_from}.", clusters_figure(scene.shown))


def tissue_clusters(scene: GeneScene) -> Drawing:
    """Clusters on the tissue."""
    return Drawing("", tissue_figure(scene.labelled, scene.shown))


def umap_markers(scene: GeneScene) -> Drawing:
    """One gene per cluster on the UMAP."""
    return Drawing(scene.first_in_words, umap_markers_figure(scene.shown, scene.titled_first))


def tissue_markers(scene: GeneScene) -> Drawing:
    """One gene per cluster on the tissue."""
    places = tissue.side_by_side(scene.labelled.cells.obsm[SPATIAL][:, :2], scene.labelled.sections)
    figure = tissue_markers_figure(scene.shown, scene.titled_first, places)
    return Drawing(scene.first_in_words, figure)


def ranking(scene: GeneScene) -> Drawing:
    """The first genes of every cluster by score."""
    n_genes = min(scene.settings.n_genes, MOST_RANKED)
    caption = f"The first {n_genes} genes by {_SCORES[scene.settings.method]}, before the filter."
    return Drawing(caption, ranking_figure(scene.found, scene.names, n_genes))


def dotplot(scene: GeneScene) -> Drawing:
    """scanpy's dot plot."""
    return Drawing(scene.filter_in_words, dotplot_figure(scene.shown, scene.brackets, scene.swap_axes))


def heatmap(scene: GeneScene) -> Drawing:
    """scanpy's heat map, of as many cells of every cluster."""
    caption = (
        f"{HEATMAP_COLUMNS} {scene.labelled.unit} of every cluster, each gene between its smallest and largest value; "
        "where a cluster has fewer, they are drawn wider."
    )
    return Drawing(caption, heatmap_figure(equal_groups(scene.shown, HEATMAP_COLUMNS), scene.brackets))


def stacked_violin(scene: GeneScene) -> Drawing:
    """scanpy's stacked violins."""
    unit = scene.labelled.unit
    caption = f"Distribution of log-normalised values in at most {MOST_CELLS} {unit} of every cluster."
    few = at_most_per_group(scene.shown, MOST_CELLS)
    return Drawing(caption, violin_figure(few, scene.brackets, scene.swap_axes))


def matrixplot(scene: GeneScene) -> Drawing:
    """scanpy's matrix plot."""
    caption = "Mean of log-normalised values per cluster, each gene between its smallest and largest mean."
    return Drawing(caption, matrix_figure(scene.shown, scene.brackets, scene.swap_axes))


def volcano(scene: GeneScene) -> Drawing | None:
    """Fold changes against p-values, where they are asked for."""
    if not scene.settings.volcano:
        return None
    caption = (
        "Every gene, in colour where it passes the filter; the names are of top genes. Fold changes are drawn within "
        f"2^±10, adjusted p-values down to {SMALLEST_P:g}."
    )
    return Drawing(caption, volcano_figure(scene.found, scene.names))


def drawable(labelled: Labelled, genes: list[str], names: dict[str, str]) -> ad.AnnData:
    """These genes alone, dense, with obs['cluster'] by the names shown, their colours in uns, and obsm['X_umap']."""
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
    tissue.draw_legend(beside, shown.obs[GROUP], _palette(shown))
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
        known = as_categorical(labelled.known)
        panels[title] = known
        palettes[title] = colours({"clusters": clusters, title: known})[title]
    return tissue.labels_figure(labelled.cells, panels, palettes, labelled.sections)


def tissue_markers_figure(shown: ad.AnnData, titles: dict[str, str], places: np.ndarray) -> Figure:
    """One map of the tissue per gene, coloured by its log-normalised value. places: [N, 2], of the spots."""
    figure, panels = _grid(len(titles), 2.9, 2.6 * np.clip(tissue.aspect(places), 0.4, 1.6) + 0.3)
    for axes, (title, gene) in zip(panels, titles.items()):
        tissue.draw_values(axes, places, shown[:, gene].X.ravel())
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
        colours = np.where(genes["passes_filter"], PALETTE[3], MISSING)
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
