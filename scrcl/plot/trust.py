"""The figures that show how far each cluster can be trusted, and which clusters are nearly one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from scrcl.cluster.trust import CLEAR, HALF, JOIN, trust
from scrcl.plot.style import MISSING, PALETTE, Scene, colours
from scrcl.recipes import RECIPES

ROW = 0.27  # inches per cluster
BLUE, ORANGE = PALETTE[:2]
BAND = "#FDEBD0"  # behind doubtful clusters
FAINT = "#777777"


def clusters(adata: AnnData, key: str = "scrcl") -> Figure | None:
    """Draw agreement and support of each cluster, and their product, which tells clear clusters from doubtful ones.

    Parameters
    ----------
    adata
        Annotated by a run; obs[key] and uns[key]['clusters'] are read.
    key
        The run's `key_added`.

    Returns
    -------
    The figure; None for a run of a version before 0.8, which has no table of clusters.

    Raises
    ------
    UserError
        When there is no run under this key.
    """
    scene = Scene(adata, key)
    table = scene.facts.get("clusters")
    if table is None:
        return None
    palette = next(iter(colours(scene.panels()).values()))
    bars = [palette.get(name, MISSING) for name in table.index]  # whoever names clusters has other labels
    shown = {
        "agreement\nof seeds and views": table["agreement"],
        "support by neighbours,\nagainst the nearest larger": table["support"],
        "both, multiplied:\ndoubtful below one half": trust(table),
    }
    shown = {title: values for title, values in shown.items() if values.notna().any()}  # one seed has no agreement
    figure = Figure(figsize=(4 + 2.3 * len(shown), 1.1 + ROW * len(table)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    doubtful = [row for row, verdict in enumerate(table["verdict"]) if verdict != CLEAR]
    for axes, (title, values) in zip(panels, shown.items()):
        for row in doubtful:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, zorder=0, linewidth=0)
        _draw_bars(axes, values, bars)
        axes.set_title(title, fontsize=10)
    unit = RECIPES[scene.facts["task"]].unit
    panels[0].set_yticks(range(len(table)), [f"{name}  ({size:,} {unit})" for name, size in table["size"].items()])
    panels[0].set_ylim(len(table) - 0.45, -0.55)  # the first cluster at the top
    panels[0].set_ylabel("cluster")
    panels[-1].axvline(HALF, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
    for row, verdict in enumerate(table["verdict"]):
        look = {"fontweight": "bold"} if row in doubtful else {"color": FAINT}
        panels[-1].text(1.04, row, verdict, transform=panels[-1].get_yaxis_transform(), va="center", fontsize=9, **look)
    return figure


def tree(adata: AnnData, key: str = "scrcl") -> Figure | None:
    """Draw which clusters become one first: those that neighbours tell apart least.

    Parameters
    ----------
    adata
        Annotated by a run; uns[key]['tree'] and its 'clusters' are read.
    key
        The run's `key_added`.

    Returns
    -------
    The figure; None for fewer than three clusters, and for a run of a version before 0.11, which has no tree.

    Raises
    ------
    UserError
        When there is no run under this key.
    """
    scene = Scene(adata, key)
    steps, table = scene.facts.get("tree"), scene.facts.get("clusters")
    if steps is None or table is None or len(steps) < 2:
        return None
    palette = next(iter(colours(scene.panels()).values()))
    figure = Figure(figsize=(6.5, 0.9 + ROW * len(table)), layout="constrained")
    axes = figure.subplots()
    leaves = dendrogram(
        _linkage(steps, table.index), labels=list(table.index), orientation="right", ax=axes,
        color_threshold=0, above_threshold_color=FAINT,
    )  # fmt: skip
    unit = RECIPES[scene.facts["task"]].unit
    axes.set_yticklabels([f"{name}  ({table['size'][name]:,} {unit})" for name in leaves["ivl"]], fontsize=9)
    spots = [palette.get(name, MISSING) for name in leaves["ivl"]]
    axes.scatter(np.zeros(len(spots)), axes.get_yticks(), s=70, marker="s", c=spots, clip_on=False, zorder=3)
    axes.axvline(HALF, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1.02), xlabel="how well neighbours tell the two sides apart (1: fully)")
    axes.tick_params(axis="y", length=0, pad=9)
    axes.grid(False)  # scanpy's own style draws one
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _linkage(steps: pd.DataFrame, names: pd.Index) -> np.ndarray:
    """Return a tree of these clusters as scipy draws it; no step is drawn lower than one before it."""
    number = {name: i for i, name in enumerate(names)}
    leaves, rows, height = dict.fromkeys(names, 1), [], 0.0
    for one, other, support in zip(steps["one"], steps["other"], steps["support"]):
        together, height = f"{one}{JOIN}{other}", max(height, float(support))
        number[together], leaves[together] = len(number), leaves[one] + leaves[other]
        rows.append((number[one], number[other], height, leaves[together]))
    return np.array(rows)


def compared(table: pd.DataFrame) -> Figure:
    """Draw how sure clusters are for several numbers of them.

    Parameters
    ----------
    table
        From `again.compared`.
    """
    figure = Figure(figsize=(3 + max(5.0, 0.45 * len(table)), 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    above.plot(table["n_clusters"], table["agreement"], "o-", color=BLUE, label="all cells")
    above.plot(table["n_clusters"], table["least"], "o-", color=ORANGE, label="the cluster that agrees least")
    above.set(ylim=(0, 1.03), ylabel="agreement")
    clear = table["n_clusters"] - table["doubtful"]
    below.bar(table["n_clusters"], clear, color=BLUE, label="clear")
    below.bar(table["n_clusters"], table["doubtful"], bottom=clear, color=ORANGE, label="doubtful")
    below.set(xlabel="number of clusters", ylabel="clusters", xticks=table["n_clusters"])
    for axes in (above, below):
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, which fill the panel
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_bars(axes: Axes, values: pd.Series, bars: list[str]) -> None:
    """Draw one bar per cluster from 0 to 1, in the cluster's colour, and its number at the right; a dash for none."""
    axes.barh(range(len(values)), values.clip(lower=0).fillna(0), height=0.68, color=bars)
    for row, value in enumerate(values):
        text = "–" if pd.isna(value) else f"{value:.2f}"
        axes.text(1.23, row, text, ha="right", va="center", fontsize=8, color=FAINT)
    axes.set(xlim=(0, 1.25), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
    axes.tick_params(labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)  # scanpy's own style draws one
    axes.spines[["top", "right"]].set_visible(False)
