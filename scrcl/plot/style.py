"""What all figures share: colours that can be told apart, the panels of a run, and writing files."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.figure import Figure

from scrcl.cluster.scores import matched_types
from scrcl.contents.labels import find_labels
from scrcl.contents.places import sections
from scrcl.keys import UMAP, Keys
from scrcl.messages import UserError, log, natural_order

DPI = 150
MOST_SHAPES = 5000  # most points drawn as shapes in pdf and svg
MOST_PIXELS = 50_000  # along a side; matplotlib fails at 65,536
# Okabe and Ito's colours without black. Each further colour is as far as possible from the colours before it, from
# white and from light grey; distance is the least CIELAB distance under normal, protan and deutan vision (Machado
# 2009). The first 10 are at least 39 apart, the first 20 at least 18, and all 40 at least 11.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#0000FF", "#691E00", "#C3F096"),
    *("#4B2D4B", "#2D1EA5", "#5A78FF", "#E10F4B", "#2D2D78", "#69D296", "#FFA55A", "#3C4BF0", "#963C00", "#4B96F0"),
    *("#87E1FF", "#4B693C", "#964B78", "#4B2D2D", "#D200B4", "#0000C3", "#E1784B", "#693C78", "#963CD2", "#E1E1C3"),
    *("#69C3A5", "#3CB4C3", "#1EE169", "#FF3C78", "#3C2D96", "#963C5A", "#3C960F", "#0096D2", "#A52D2D", "#C30096"),
)
MISSING = "#D3D3D3"


def to_files() -> None:
    """Draw without a window, and never read a dollar sign in a gene's or cluster's name as the start of a formula."""
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False


@dataclass(frozen=True)
class Scene:
    """What the figures of a run are drawn from: an AnnData that a run has annotated, and where to look in it.

    Attributes
    ----------
    adata
        With obs[key], obs[key_confidence], uns[key], and the run's other keys.
    key
        The run's `key_added`.

    Raises
    ------
    UserError
        When there is no run under this key.
    """

    adata: ad.AnnData
    key: str = "scrcl"

    def __post_init__(self) -> None:
        if self.key not in self.adata.obs or self.key not in self.adata.uns:
            raise UserError(
                f"There is no run under {self.key!r} in these data: obs[{self.key!r}] or uns[{self.key!r}] is missing; "
                "run scrcl.find_cell_types or scrcl.find_domains first, or name its key_added."
            )

    @property
    def keys(self) -> Keys:
        """Where the run has written."""
        return Keys(self.key)

    @property
    def facts(self) -> dict[str, Any]:
        """The run's own entry in uns, see `scrcl.result.parameters`."""
        return self.adata.uns[self.key]

    @property
    def labels(self) -> pd.Series:
        """The final labels, a categorical."""
        return self.adata.obs[self.keys.labels]

    @property
    def known(self) -> pd.Series | None:
        """The known labels that the run was scored against, or None."""
        key = self.facts["label_key"]
        return find_labels(self.adata.obs, key, say=False) if key and key in self.adata.obs else None

    @property
    def sections(self) -> pd.Series | None:
        """The section of every spot, or None if all are in one section."""
        return sections(self.adata.obs, self.facts.get("section_key", "none"))

    @property
    def umap(self) -> np.ndarray:
        """The UMAP of the run, [N, 2]."""
        place = self.facts.get("umap")
        if place not in self.adata.obsm:
            raise UserError(f"The run under {self.key!r} has made no UMAP; run it with umap=True.")
        return self.adata.obsm[place]

    def panels(self) -> dict[str, pd.Series]:
        """Return what is drawn side by side, by title: clusters and, if any, known types.

        All are categoricals in natural order.
        """
        shown, known = {"scRCL": self.labels}, self.known
        if known is not None:
            shown[f"given: {known.name}"] = as_categorical(known)
        return shown


def as_categorical(labels: pd.Series) -> pd.Series:
    """Return strings as a categorical in natural order."""
    return labels.astype(pd.CategoricalDtype(natural_order(labels.dropna().unique())))


def colours(shown: dict[str, pd.Series]) -> dict[str, dict[str, str]]:
    """Return a colour for each category of every panel; a cluster has the colour of the known type it is matched to.

    A match with less than a tenth of the cluster's cells does not count, since it is only what the other matches left
    over.

    Parameters
    ----------
    shown
        Categoricals by title: the clusters first, then known types, if any.

    Returns
    -------
    By title, the colour of each category.
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


def add_colours(scene: Scene) -> None:
    """Write a colour for each final label to uns, where scanpy and squidpy look for it."""
    of_label = next(iter(colours(scene.panels()).values()))
    scene.adata.uns[scene.keys.colours] = [of_label[name] for name in scene.labels.cat.categories]


def bare_copy(scene: Scene) -> ad.AnnData:
    """Return a new AnnData with the panels in obs, their colours in uns where scanpy looks for them, and the UMAP.

    Cells without a place on the UMAP are left out.
    """
    shown = scene.panels()
    bare = ad.AnnData(obs=pd.DataFrame(shown, index=scene.adata.obs_names), obsm={UMAP: scene.umap})
    for title, of_category in colours(shown).items():
        bare.uns[f"{title}_colors"] = list(of_category.values())
    return bare[np.isfinite(bare.obsm[UMAP]).all(axis=1)].copy()  # of many cells, only a random part is laid out


def save(figure: Figure, path: Path | io.BytesIO, format: str = "png", dpi: int = DPI) -> None:
    """Write a figure to a file.

    Large clouds of points are written as images in pdf and svg too, since they take long to open as shapes.

    Parameters
    ----------
    figure
        What to write.
    path
        Where to write it.
    format
        'png', 'pdf' or 'svg'.
    dpi
        Dots per inch; fewer where the image would be too large.
    """
    if format != "png":
        for points in (points for axes in figure.axes for points in axes.collections):
            points.set_rasterized(np.shape(points.get_offsets())[0] > MOST_SHAPES)
    most = int(MOST_PIXELS / max(figure.get_size_inches()))
    if format == "png" and dpi > most:
        log.info("%s is drawn at %d dots per inch; it would be too large at %d.", path, most, dpi)
    figure.savefig(path, format=format, dpi=min(dpi, most), bbox_inches="tight")  # "tight" never cuts off a legend
