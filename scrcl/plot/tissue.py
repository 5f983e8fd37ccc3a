"""Figures of a spatial run: domains on the tissue, and how domains are related (PAGA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from scrcl.annotate import NEIGHBORS
from scrcl.contents.places import coordinates
from scrcl.keys import SPATIAL, UMAP
from scrcl.messages import log, natural_order
from scrcl.plot.style import MISSING, Scene, bare_copy, colours

PANEL = 5.0  # inches
NAMED_FROM = 9  # from so many domains on, their names are also on the tissue; at a glance, 8 colours can be told apart
LEGEND_ROWS = 20


def domains(adata: ad.AnnData, key: str = "scrcl") -> Figure:
    """Draw the domains on the tissue, with known domains next to them in matching colours.

    There is one row per section, drawn over its image if there is one.

    Parameters
    ----------
    adata
        Annotated by a run; obs[key], the positions (of three coordinates the first two are drawn) and uns['spatial']
        as squidpy keeps it are read. Spots without a position are left out.
    key
        The run's `key_added`.

    Raises
    ------
    UserError
        When there is no run under this key.
    """
    scene = Scene(adata, key)
    places = coordinates(adata)
    placed = ~np.isnan(places).any(axis=1)
    spots = ad.AnnData(obs=adata.obs[[]], obsm={SPATIAL: places})[placed].copy()
    spots.uns = adata.uns
    shown = {title: labels[placed] for title, labels in scene.panels().items()}
    sections = scene.sections
    return labels_figure(spots, shown, colours(shown), None if sections is None else sections[placed])


def labels_figure(
    cells: ad.AnnData,
    shown: dict[str, pd.Series],
    palettes: dict[str, dict[str, str]],
    sections: pd.Series | None = None,
) -> Figure:
    """Draw any labels of the spots as `domains` does.

    Parameters
    ----------
    cells
        With obsm['spatial'] and, for images, uns['spatial'].
    shown
        Categoricals by title.
    palettes
        By title, the colour of each category.
    sections
        The section of each spot, or None if all are in one section.
    """
    if sections is None:
        members: dict[str | None, np.ndarray] = {None: np.ones(cells.n_obs, dtype=bool)}
    else:
        members = {name: (sections == name).to_numpy() for name in natural_order(sections.unique())}
    places = cells.obsm[SPATIAL][:, :2]
    entries = max(values.nunique() + 1 for values in shown.values())
    lowest = 0.22 * -(-entries // -(-entries // LEGEND_ROWS))  # inches that the rows of the legend need
    heights = [max(PANEL * aspect(places[member]), lowest) for member in members.values()]
    widths = [width for values in shown.values() for width in (PANEL, _legend_width(values))]
    figure = Figure(figsize=(sum(widths), sum(heights) + 0.4 * len(heights)), layout="constrained")
    grid = figure.subplots(len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights)
    for row, (name, member) in zip(grid, members.items()):
        image = tissue_image(cells.uns, name)
        for axes, beside, (title, values) in zip(row[::2], row[1::2], shown.items()):
            draw_tissue(axes, places[member], values[member], palettes[title], image)
            draw_legend(beside, values[member], palettes[title])
            axes.set_title(title if name is None else f"{name}, {title}")
    return figure


class TissueImage(NamedTuple):
    """The image of a section.

    Attributes
    ----------
    pixels
        [height, width], or [height, width, 1, 3 or 4].
    scale
        Pixels per unit of the coordinates.
    diameter
        Diameter of a spot in that unit, or None.
    """

    pixels: np.ndarray
    scale: float
    diameter: float | None


def tissue_image(uns: Any, section: str | None) -> TissueImage | None:
    """Return the image of a section in the best resolution there is, or None.

    Parameters
    ----------
    uns
        With uns['spatial'] as squidpy keeps it.
    section
        The name of the library in uns['spatial']; None for the only one.
    """
    libraries = uns.get(SPATIAL)
    if not isinstance(libraries, Mapping) or (section is None and len(libraries) != 1):
        return None
    library: Any = next(iter(libraries.values())) if section is None else libraries.get(section)
    for resolution in ("hires", "lowres"):
        try:
            factors = library["scalefactors"]
            pixels, scale = np.asarray(library["images"][resolution]), float(factors[f"tissue_{resolution}_scalef"])
            diameter = float(factors.get("spot_diameter_fullres", np.nan))
        except (KeyError, TypeError, ValueError, AttributeError):  # missing, or uns['spatial'] has another format
            continue
        if (
            pixels.size
            and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4)))
            and 0 < scale < np.inf
        ):
            return TissueImage(pixels, scale, diameter if 0 < diameter < np.inf else None)
    return None


def draw_tissue(
    axes: Axes, places: np.ndarray, labels: pd.Series, palette: dict[str, str], image: TissueImage | None
) -> None:
    """Draw every spot to scale, as a disc in the colour of its label, with y downwards as in images.

    Parameters
    ----------
    axes
        Where to draw.
    places
        [N, 2], positions of the spots.
    labels
        The label of each spot; may be missing.
    palette
        The colour of each label.
    image
        Drawn under the spots; None for no image.
    """
    if image is not None:
        height, width = image.pixels.shape[:2]
        extent = (0, width / image.scale, height / image.scale, 0)
        axes.imshow(image.pixels, extent=extent, alpha=0.6, cmap="gray", interpolation="bilinear")
    diameter = image.diameter if image is not None and image.diameter else spot_diameter(places)
    colours = labels.astype(object).map(palette).fillna(MISSING).to_list()
    _draw_discs(axes, places, diameter, facecolors=colours)
    there = [name for name in palette if (labels == name).any()]
    if len(there) >= NAMED_FROM:
        for name in there:
            _name_on_tissue(axes, places[(labels == name).to_numpy()], name)


def draw_values(axes: Axes, places: np.ndarray, values: np.ndarray) -> None:
    """Draw every spot to scale, as a disc coloured by a number, with y downwards as in images, and a colour bar.

    Parameters
    ----------
    axes
        Where to draw.
    places
        [N, 2], positions of the spots.
    values
        [N], the numbers.
    """
    order = np.argsort(values, kind="stable")  # so that low values never hide high ones
    discs = _draw_discs(axes, places[order], spot_diameter(places), array=values[order], cmap="viridis")
    axes.figure.colorbar(discs, ax=axes, shrink=0.7, aspect=15)


def _draw_discs(axes: Axes, places: np.ndarray, diameter: float, **colours: Any) -> EllipseCollection:
    """Draw spots as discs, and set the limits of the axes around them."""
    sizes = np.full(len(places), float(diameter))
    discs = EllipseCollection(
        sizes,
        sizes,
        np.zeros(len(places)),
        units="xy",
        offsets=places,
        offset_transform=axes.transData,
        linewidths=0,
        **colours,
    )
    axes.add_collection(discs)
    low, high = places.min(axis=0), places.max(axis=0)
    margin = 0.02 * (high - low).max() + diameter
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin), aspect="equal")
    axes.set_axis_off()
    return discs


def side_by_side(places: np.ndarray, sections: pd.Series | None) -> np.ndarray:
    """Return positions with the sections side by side, in natural order, so that none lies on another.

    Parameters
    ----------
    places
        [N, 2], positions of the spots.
    sections
        The section of each spot, or None if all are in one section.

    Returns
    -------
    [N, 2].
    """
    if sections is None:
        return places
    beside, start = places.astype(float), 0.0
    for name in natural_order(sections.unique()):
        member = (sections == name).to_numpy()
        beside[member] += (start, 0) - places[member].min(axis=0)
        start += 1.1 * (np.ptp(places[member, 0]) or 1.0)
    return beside


def spot_diameter(places: np.ndarray) -> float:
    """Return the diameter of discs that nearly touch: the median distance to the nearest other spot."""
    distances = NearestNeighbors(n_neighbors=1).fit(places).kneighbors()[0] if len(places) > 1 else np.zeros(1)
    return float(np.median(distances)) or float(np.ptp(places)) / 100 or 1.0


def _name_on_tissue(axes: Axes, places: np.ndarray, name: str) -> None:
    """Write the name of a domain at its spot nearest to its middle, and so never outside the domain."""
    middle = np.median(places, axis=0)
    at = places[np.argmin(((places - middle) ** 2).sum(axis=1))]
    outline = [withStroke(linewidth=2, foreground="white")]
    axes.text(
        at[0],
        at[1],
        name,
        fontsize=8 if len(name) < 5 else 6,
        ha="center",
        va="center",
        path_effects=outline,
        clip_on=True,
    )


def draw_legend(axes: Axes, labels: pd.Series, palette: dict[str, str]) -> None:
    """Draw the colours of the labels that occur, in axes of their own, so that panels side by side have one size."""
    shown = {name: colour for name, colour in palette.items() if (labels == name).any()}
    shown |= {"none": MISSING} if labels.isna().any() else {}
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=7, color=colour, label=name)
        for name, colour in shown.items()
    ]
    columns = -(-len(handles) // LEGEND_ROWS)
    style = {"frameon": False, "fontsize": 9, "handletextpad": 0.1, "columnspacing": 0.8, "borderpad": 0}
    axes.legend(handles=handles, loc="center left", ncols=columns, **style)
    axes.set_axis_off()


def _legend_width(labels: pd.Series) -> float:
    """Return the width of a legend in inches."""
    names = labels.cat.categories
    columns = -(-(len(names) + 1) // LEGEND_ROWS)
    return columns * (0.45 + 0.085 * max(map(len, names)))


def aspect(places: np.ndarray) -> float:
    """Return height over width of the positions, limited to what a page can hold."""
    width, height = np.ptp(places, axis=0)
    return float(np.clip(height / max(width, 1e-12), 0.25, 3))


def paga_graphs(scene: Scene) -> dict[str, ad.AnnData]:
    """Compute scanpy's PAGA on the neighbours of the embedding, by domain and, if there are any, by known domain.

    Parameters
    ----------
    scene
        Its AnnData has the neighbours that the run's UMAP is based on, see `layout.add_umap`.

    Returns
    -------
    By title, an AnnData with scanpy's PAGA. A labelling in which no neighbours have different labels is left out.
    """
    bare, adata = bare_copy(scene), scene.adata
    placed = adata.obs_names.get_indexer(bare.obs_names)
    neighbors = adata.uns[scene.facts.get("neighbors", "neighbors")]
    for name in NEIGHBORS:
        bare.obsp[name] = adata.obsp[neighbors.get(f"{name}_key", name)][placed][:, placed]
    bare.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances"}
    bare.uns["neighbors"]["params"] = neighbors["params"]
    graphs = {}
    for title in bare.obs:
        part = bare[bare.obs[title].notna()].copy()
        if not _any_edge_between(part.obsp["distances"].tocoo(), part.obs[title].cat.codes.to_numpy()):
            log.info("No PAGA graph for %s: no neighbours of different labels.", title)
            continue
        part.obs[title] = part.obs[title].cat.remove_unused_categories()
        sc.tl.paga(part, groups=title)
        graphs[title] = part
    return graphs


def _any_edge_between(edges: sparse.coo_matrix, codes: np.ndarray) -> bool:
    """Return whether an edge joins two groups; without one, scanpy's PAGA fails."""
    return bool((codes[edges.row] != codes[edges.col]).any())


def paga(adata: ad.AnnData, key: str = "scrcl") -> Figure:
    """Draw the PAGA graphs of domains and, if there are any, of known domains, side by side, in a layout of their own.

    Parameters
    ----------
    adata
        Annotated by a run with a UMAP, whose neighbours (obsp['connectivities'], obsp['distances']) are read.
    key
        The run's `key_added`.

    Raises
    ------
    UserError
        When there is no run under this key, or no UMAP.
    """
    graphs = paga_graphs(Scene(adata, key))
    figure = Figure(figsize=(PANEL * max(len(graphs), 1), PANEL), layout="constrained")
    for axes, (title, part) in zip(figure.subplots(1, max(len(graphs), 1), squeeze=False)[0], graphs.items()):
        _draw_paga(axes, part, title, None)
    return figure


def paga_compare(adata: ad.AnnData, key: str = "scrcl") -> Figure:
    """Draw the UMAP next to the PAGA graph with each node in the middle of its spots; one row per labelling.

    Parameters
    ----------
    adata, key
        As for `paga`.

    Raises
    ------
    UserError
        When there is no run under this key, or no UMAP.
    """
    graphs = paga_graphs(Scene(adata, key))
    rows = max(len(graphs), 1)
    figure = Figure(figsize=(2 * PANEL, PANEL * rows), layout="constrained")
    for (left, right), (title, part) in zip(figure.subplots(rows, 2, squeeze=False), graphs.items()):
        sc.pl.umap(
            part,
            color=title,
            ax=left,
            show=False,
            frameon=False,
            legend_loc="on data",
            legend_fontsize=9,
            legend_fontoutline=2,
        )
        groups = pd.DataFrame(part.obsm[UMAP]).groupby(part.obs[title].to_numpy(), observed=True).median()
        _draw_paga(right, part, title, groups.loc[part.obs[title].cat.categories].to_numpy())
        right.set(xlim=left.get_xlim(), ylim=left.get_ylim())
    return figure


def _draw_paga(axes: Axes, part: ad.AnnData, title: str, places: np.ndarray | None) -> None:
    """Draw one PAGA graph, with nodes at the given places or in a layout of its own."""
    sc.pl.paga(
        part,
        color=title,
        ax=axes,
        pos=places,
        show=False,
        frameon=False,
        fontsize=9,
        fontoutline=2,
        node_size_scale=2,
        edge_width_scale=0.6,
        threshold=0.03,
        random_state=0,
    )
    axes.set_title(f"PAGA, {title}")
