"""Figures of any run: the UMAP, the losses, and a table of clusters and known types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from scrcl.cluster.scores import matched_types
from scrcl.keys import UMAP
from scrcl.messages import natural_order
from scrcl.plot.style import MISSING, PALETTE, Scene, bare_copy

BLUE, ORANGE = PALETTE[:2]
BACKGROUND = "#dddddd"
MOST_TYPES = 150  # most rows of a confusion table that can be read


def umap(adata: AnnData, key: str = "scrcl") -> Figure:
    """Draw the UMAP by cluster and by known type, and where several partitions voted by agreement, side by side.

    Parameters
    ----------
    adata
        Annotated by a run; its obs[key], obs[key_confidence], uns[key] and obsm['X_umap'] are read.
    key
        The run's `key_added`.

    Raises
    ------
    UserError
        When there is no run under this key, or no UMAP.
    """
    scene = Scene(adata, key)
    bare = bare_copy(scene)
    legends = [
        0.08 * values.astype(str).str.len().max() + 1.2 * (1 + values.nunique() // 18) for _, values in bare.obs.items()
    ]
    agreement = adata.obs.loc[bare.obs_names, scene.keys.confidence]
    if agreement.notna().any():  # a single partition agrees with nothing
        bare.obs["agreement"] = agreement
        legends.append(1.0)
    figure = Figure(figsize=(5 * len(legends) + sum(legends), 5), layout="constrained")
    look = {"show": False, "frameon": False, "legend_fontsize": 9, "na_color": MISSING}
    for axes, name in zip(figure.subplots(1, len(legends), squeeze=False)[0], bare.obs):
        scale = {"vmin": 0, "vmax": 1, "color_map": "viridis", "colorbar_loc": None} if name == "agreement" else {}
        sc.pl.umap(bare, color=name, ax=axes, **look, **scale)
        if scale:
            figure.colorbar(axes.collections[0], ax=axes, label="share that agrees", shrink=0.7)
    return figure


def mapped(new: AnnData, reference: AnnData, key: str = "scrcl") -> Figure | None:
    """Draw new cells where they are placed on the UMAP of a run, by cluster and by whether they are unlike any.

    Parameters
    ----------
    new
        The new cells, with obs[key], obs[key_unlike] and obsm['X_umap'].
    reference
        The cells of the run, drawn in grey.
    key
        The name under which the labels are.

    Returns
    -------
    The figure; None where the run has no UMAP.
    """
    if UMAP not in new.obsm:
        return None
    labels, unlike = new.obs[key], new.obs[f"{key}_unlike"]
    titles = ["new cells, by cluster", "unlike any cell of the run"][: 1 if unlike.isna().all() else 2]
    palette = new.uns.get(f"{key}_colors", [*PALETTE, *sc.pl.palettes.default_102])
    figure = Figure(figsize=(6.25 * len(titles), 5), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles):
        axes.scatter(*reference.obsm[UMAP].T, s=4, color=BACKGROUND, linewidths=0)
        if title.startswith("new"):
            for name, colour in zip(labels.cat.categories, palette):
                own = (labels == name).to_numpy()
                axes.scatter(*new.obsm[UMAP][own].T, s=6, color=colour, linewidths=0, label=name)
        else:
            axes.scatter(*new.obsm[UMAP][unlike.fillna(False).to_numpy(dtype=bool)].T, s=8, color=ORANGE, linewidths=0)
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_frame_on(False)
    columns = 1 + len(labels.cat.categories) // 18
    figure.axes[0].legend(frameon=False, markerscale=2.5, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)
    return figure


TERMS = {"hea_global": "HEA, global", "hea_cell": "HEA, cell", "ndc": "NDC", "cvc": "CVC", "total": "weighted total"}


def losses(adata: AnnData, key: str = "scrcl") -> Figure:
    """Draw each loss term against the epoch, one line per seed.

    Parameters
    ----------
    adata
        Annotated by a run; its uns[key]['losses'] is read.
    key
        The run's `key_added`.

    Raises
    ------
    UserError
        When there is no run under this key.
    """
    history = pd.DataFrame(Scene(adata, key).facts["losses"])
    further = {name: name for name in history if name not in (*TERMS, "seed", "epoch")}
    names = {name: title for name, title in (TERMS | further).items() if name in history}
    figure = Figure(figsize=(15, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(names)), names.items()):
        for seed, run in history.groupby("seed"):
            axes.plot(run["epoch"], run[name], label=f"seed {seed:.0f}")
        axes.set(title=title, xlabel="epoch", yscale="log" if (history[name] > 0).all() else "linear")
        if axes.get_yscale() == "log":  # plain numbers instead of formulas such as 10^2
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
    axes.legend(frameon=False)
    return figure


def numbers(adata: AnnData, key: str = "scrcl") -> Figure | None:
    """Draw how the number of clusters was estimated: what halves of the genes share, and what clusters can hold.

    Parameters
    ----------
    adata
        Annotated by a run; its uns[key]['numbers'] is read.
    key
        The run's `key_added`.

    Returns
    -------
    The figure; None when the number was not estimated.

    Raises
    ------
    UserError
        When there is no run under this key.
    """
    facts = Scene(adata, key).facts
    if "numbers" not in facts:
        return None
    curve, n_clusters = pd.DataFrame(facts["numbers"]), int(facts["n_clusters"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve["n_clusters"], curve["held"], ".-", color=MISSING, label="held by clusters of all genes")
    axes.plot(
        curve["n_clusters"], curve["shared"], ".-", color=BLUE, label="shared by those of two halves of the genes"
    )
    axes.axhline(curve["shared"].max(), color=BLUE, linewidth=1, linestyle=":")
    axes.axvline(n_clusters, color=ORANGE, label=f"estimate: {n_clusters}")
    axes.set(xlabel="number of clusters", ylabel="information on a cell (nats)", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def confusion(adata: AnnData, key: str = "scrcl") -> Figure | None:
    """Draw the share of each known type in each cluster, with clusters in the order of the types they match.

    Parameters
    ----------
    adata
        Annotated by a run on data with known types; obs[key] and uns[key] are read.
    key
        The run's `key_added`.

    Returns
    -------
    The figure; None when there are no known types, or more than 150, which nobody could read.

    Raises
    ------
    UserError
        When there is no run under this key.
    """
    scene = Scene(adata, key)
    known = scene.known
    if known is None or known.nunique() > MOST_TYPES:
        return None
    table, share = shares(scene.labels, known)
    rows, columns = list(share.index), list(share.columns)
    longest = max(len(name) for name in rows)
    figure = Figure(figsize=(2.5 + 0.1 * longest + 0.45 * len(columns), 1.8 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(share.to_numpy()):
        if value >= 0.005:
            colour = "white" if value > 0.55 else "black"
            axes.text(j, i, f"{value:.0%}".rstrip("%"), ha="center", va="center", fontsize=7, color=colour)
    axes.grid(False)  # scanpy's own style draws one
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [f"{name} ({table.loc[name].sum()})" for name in rows])
    axes.set(xlabel="scRCL cluster", ylabel=f"given: {known.name} (number)")
    figure.colorbar(image, label="share of the given type")
    return figure


def shares(predicted: pd.Series, known: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Count the cells of every known type in every cluster, among the cells that have both.

    Parameters
    ----------
    predicted, known
        Labels with the same index; values may be missing.

    Returns
    -------
    The counts, and their share of each type. The shares have types in rows, the largest first, and clusters in columns,
    in the order of the types they match.
    """
    both = known.notna() & predicted.notna()
    predicted, known = predicted[both].astype(str), known[both]
    table = pd.crosstab(known, predicted)
    rows = table.sum(axis=1).sort_values(ascending=False, kind="stable").index
    partner = {name: cluster for cluster, name in matched_types(predicted, known).items()}
    columns = [partner[name] for name in rows if name in partner]
    columns += natural_order(set(table.columns) - set(columns))
    return table, table.loc[rows, columns].div(table.sum(axis=1), axis=0).loc[rows]
