"""Figures of a run, written to files; no window is opened."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.figure import Figure

from pipeline import Result
from score import matched_types

FILES = ("umap.png", "losses.png", "confusion.png")
DPI = 150
MOST_TYPES = 150  # rows of a confusion table that can still be read


def draw(result: Result, folder: Path) -> None:
    """Draw umap.png, losses.png and, with known types, confusion.png into folder."""
    _save(umap_figure(result.cells, result.prepared.known), folder / "umap.png")
    _save(loss_figure(pd.DataFrame(result.history)), folder / "losses.png")
    known = result.prepared.known
    if known is not None and known.nunique() <= MOST_TYPES:
        _save(confusion_figure(result.labels["scrcl"], known), folder / "confusion.png")


def umap_figure(cells: ad.AnnData, known: pd.Series | None) -> Figure:
    """obsm['X_umap'] by cluster and, where known, by given type, side by side."""
    panels = {"scRCL clusters": cells.obs["scrcl"]}
    if known is not None:
        panels[f"given: {known.name}"] = known.astype("category")
    # A bare copy: scanpy stores the colours it picks in the object it draws.
    bare = ad.AnnData(obs=pd.DataFrame(panels, index=cells.obs_names), obsm={"X_umap": cells.obsm["X_umap"]})
    legends = [
        0.08 * values.astype(str).str.len().max() + 1.2 * (1 + values.nunique() // 18) for values in panels.values()
    ]
    figure = Figure(figsize=(5 * len(panels) + sum(legends), 5), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
        sc.pl.umap(bare, color=name, ax=axes, show=False, frameon=False, legend_fontsize=9, na_in_legend=True)
    return figure


def loss_figure(history: pd.DataFrame) -> Figure:
    """Each loss term against the epoch, one line per seed."""
    names = {
        "hea_global": "HEA, global",
        "hea_cell": "HEA, cell",
        "ndc": "NDC",
        "cvc": "CVC",
        "total": "weighted total",
    }
    figure = Figure(figsize=(15, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(names)), names.items()):
        for seed, run in history.groupby("seed"):
            axes.plot(run["epoch"], run[name], label=f"seed {seed:.0f}")
        axes.set(title=title, xlabel="epoch", yscale="log" if (history[name] > 0).all() else "linear")
    axes.legend(frameon=False)
    return figure


def confusion_figure(predicted: pd.Series, known: pd.Series) -> Figure:
    """Share of each known type in each cluster, clusters in the order of the types they match."""
    both = known.notna() & predicted.reindex(known.index).notna()
    table = pd.crosstab(known[both], predicted.reindex(known.index)[both])
    types = matched_types(predicted.reindex(known.index)[both], known[both])
    rows = table.sum(axis=1).sort_values(ascending=False, kind="stable").index
    partner = {name: cluster for cluster, name in types.items()}
    columns = [partner[name] for name in rows if name in partner]
    columns += sorted(set(table.columns) - set(columns), key=int)
    share = table.loc[rows, columns].div(table.sum(axis=1), axis=0).loc[rows]
    longest = max(len(name) for name in rows)
    figure = Figure(figsize=(2.5 + 0.1 * longest + 0.45 * len(columns), 1.8 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(share.to_numpy()):
        if value >= 0.005:
            axes.text(
                j,
                i,
                f"{value:.0%}".rstrip("%"),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value > 0.55 else "black",
            )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [f"{name} ({table.loc[name].sum()})" for name in rows])
    axes.set(xlabel="scRCL cluster", ylabel=f"given: {known.name} (cells)")
    figure.colorbar(image, label="share of the given type")
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
