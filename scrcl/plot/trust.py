"""The figure that shows how far each cluster can be trusted."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scrcl.cluster.trust import CLEAR, HALF
from scrcl.plot.style import Scene, colours
from scrcl.recipes import RECIPES

PANELS = {"agreement": "agreement of seeds and views", "support": "support by the graph,\nagainst the nearest cluster"}
ROW = 0.28  # inches per cluster
BAND = "#FDE7C8"  # behind doubtful clusters


def clusters(adata: AnnData, key: str = "scrcl") -> Figure | None:
    """Draw how far seeds and views agree on each cluster, and how far the graph supports it; doubtful ones are marked.

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
    figure = Figure(figsize=(10, 1.3 + ROW * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip((left, right), PANELS.items()):
        _draw_bars(axes, table, name, [palette[label] for label in table.index])
        axes.set_title(title, fontsize=10)
    unit = RECIPES[scene.facts["task"]].unit
    left.set_yticks(range(len(table)), [f"{name} ({size:,} {unit})" for name, size in table["size"].items()])
    left.set_ylim(len(table) - 0.4, -0.6)  # cluster 0 at the top
    left.set_ylabel("cluster")
    for row, verdict in enumerate(table["verdict"]):
        right.text(1.03, row, verdict, va="center", fontsize=9, fontweight="normal" if verdict == CLEAR else "bold")
    return figure


def _draw_bars(axes: Axes, table: pd.DataFrame, name: str, palette: list[str]) -> None:
    """Draw a column of the table as bars from 0 to 1, in the colours of the clusters, with the numbers beside them."""
    values = table[name].astype(float)
    axes.barh(range(len(table)), values.clip(lower=0).fillna(0), height=0.66, color=palette)
    for row, (value, verdict) in enumerate(zip(values, table["verdict"])):
        if verdict != CLEAR:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, zorder=0, linewidth=0)
        text = "none" if pd.isna(value) else f"{value:.2f}"
        axes.text(0.01 if pd.isna(value) else max(value, 0) + 0.01, row, text, va="center", fontsize=8)
    axes.axvline(HALF, color="#555555", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
    axes.set(xlim=(0, 1.12), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.grid(False)  # scanpy's own style draws one
    axes.spines[["top", "right"]].set_visible(False)
