"""Figures of a run, written to files; no window is opened."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from pipeline import CONFIDENCE, Result
from score import matched_types
from utils import log, natural_order

FILES = ("umap.png", "losses.png", "confusion.png")
DPI = 150
MOST_SHAPES = 5000  # points drawn as shapes in pdf and svg
MOST_PIXELS = 50_000  # along a side; matplotlib fails at 65,536
MOST_TYPES = 150  # rows of a confusion table that can still be read
# Okabe and Ito's colours without black, then each next one as far as possible from all before it, from white and
# from light grey: the least CIELAB distance as seen with normal, protan and deutan vision (Machado 2009). The
# first 10 are 39 apart or more, the first 20 18, all 40 11.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#0000FF", "#691E00", "#C3F096"),
    *("#4B2D4B", "#2D1EA5", "#5A78FF", "#E10F4B", "#2D2D78", "#69D296", "#FFA55A", "#3C4BF0", "#963C00", "#4B96F0"),
    *("#87E1FF", "#4B693C", "#964B78", "#4B2D2D", "#D200B4", "#0000C3", "#E1784B", "#693C78", "#963CD2", "#E1E1C3"),
    *("#69C3A5", "#3CB4C3", "#1EE169", "#FF3C78", "#3C2D96", "#963C5A", "#3C960F", "#0096D2", "#A52D2D", "#C30096"),
)
MISSING = "#D3D3D3"


def to_files() -> None:
    """Draw without a window, and names as they are: a dollar sign in a gene's or cluster's name is no formula."""
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False


def draw(result: Result, folder: Path) -> None:
    """Draw umap.png, losses.png and, with known types, confusion.png into folder."""
    save(umap_figure(result.cells, result.prepared.known), folder / "umap.png")
    draw_training(result, folder)


def draw_training(result: Result, folder: Path) -> None:
    """Draw losses.png and, with known types, confusion.png into folder."""
    save(loss_figure(pd.DataFrame(result.history)), folder / "losses.png")
    known = result.prepared.known
    if known is not None and known.nunique() <= MOST_TYPES:
        save(confusion_figure(result.labels["scrcl"], known), folder / "confusion.png")


def panels(cells: ad.AnnData, known: pd.Series | None) -> dict[str, pd.Series]:
    """What is drawn side by side, by title: clusters and, where known, given types; categoricals in natural order."""
    shown = {"scRCL": cells.obs["scrcl"]}
    if known is not None:
        shown[f"given: {known.name}"] = as_categorical(known)
    return shown


def as_categorical(labels: pd.Series) -> pd.Series:
    """Strings as a categorical in natural order."""
    return labels.astype(pd.CategoricalDtype(natural_order(labels.dropna().unique())))


def colours(shown: dict[str, pd.Series]) -> dict[str, dict[str, str]]:
    """A colour per category of every panel; a cluster has that of the given type it is matched to.

    But for a match that is only what the others left over: of less than a tenth of the cluster.
    """
    clusters, *given = shown.values()
    rest = list(dict.fromkeys([*PALETTE, *sc.pl.palettes.default_102]))
    if not given:
        return {title: dict(zip(values.cat.categories, itertools.cycle(rest))) for title, values in shown.items()}
    of_type = dict(zip(given[0].cat.categories, itertools.cycle(rest)))
    types = {
        name: of
        for name, of in matched_types(clusters, given[0]).items()
        if given[0][clusters == name].eq(of).mean() >= 0.1
    }
    unused = itertools.cycle([colour for colour in rest if colour not in set(of_type.values())] or rest)
    of_cluster = {name: of_type[types[name]] if name in types else next(unused) for name in clusters.cat.categories}
    return dict(zip(shown, [of_cluster, of_type]))


def bare_copy(cells: ad.AnnData, known: pd.Series | None) -> ad.AnnData:
    """The panels in obs with their colours in uns, where scanpy looks for them, and the UMAP; nothing of cells is changed."""
    shown = panels(cells, known)
    bare = ad.AnnData(obs=pd.DataFrame(shown, index=cells.obs_names), obsm={"X_umap": cells.obsm["X_umap"]})
    for title, of_category in colours(shown).items():
        bare.uns[f"{title}_colors"] = list(of_category.values())
    return bare[np.isfinite(bare.obsm["X_umap"]).all(axis=1)].copy()  # of many cells, only some have a place


def umap_figure(cells: ad.AnnData, known: pd.Series | None) -> Figure:
    """obsm['X_umap'] by cluster, by given type where known, and, of several seeds, by confidence, side by side."""
    bare = bare_copy(cells, known)
    legends = [
        0.08 * values.astype(str).str.len().max() + 1.2 * (1 + values.nunique() // 18) for _, values in bare.obs.items()
    ]
    if len(cells.uns["scrcl"]["params"]["seeds"]) > 1:
        bare.obs["confidence"] = cells.obs.loc[bare.obs_names, CONFIDENCE]
        legends.append(1.0)
    figure = Figure(figsize=(5 * len(legends) + sum(legends), 5), layout="constrained")
    look = {"show": False, "frameon": False, "legend_fontsize": 9, "na_color": MISSING}
    for axes, name in zip(figure.subplots(1, len(legends), squeeze=False)[0], bare.obs):
        scale = {"vmin": 0, "vmax": 1, "color_map": "viridis", "colorbar_loc": None} if name == "confidence" else {}
        sc.pl.umap(bare, color=name, ax=axes, **look, **scale)
        if scale:
            figure.colorbar(axes.collections[0], ax=axes, label="share of the seeds that agree", shrink=0.7)
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
        if axes.get_yscale() == "log":  # plain numbers, no formulas
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
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
    axes.set(xlabel="scRCL cluster", ylabel=f"given: {known.name} (number)")
    figure.colorbar(image, label="share of the given type")
    return figure


def save(figure: Figure, path: Path | io.BytesIO, format: str = "png", dpi: int = DPI) -> None:
    """Write a figure, with as many dots per inch as asked for, or as an image can hold.

    Clouds of points are images in pdf and svg too: as shapes they take long to open.
    """
    if format != "png":
        for points in (points for axes in figure.axes for points in axes.collections):
            points.set_rasterized(np.shape(points.get_offsets())[0] > MOST_SHAPES)
    most = int(MOST_PIXELS / max(figure.get_size_inches()))
    if format == "png" and dpi > most:
        log.info("%s is drawn at %d dots per inch; it would be too large at %d.", path, most, dpi)
    figure.savefig(path, format=format, dpi=min(dpi, most), bbox_inches="tight")  # tight: a legend is never cut off
