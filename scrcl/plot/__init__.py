"""Draw the figures of a finished run from the AnnData that the run has annotated; `scrcl.pl` for short.

>>> scrcl.pl.umap(adata)  # a matplotlib Figure; no window is opened

This is the registry. A figure of a run is a function `NAME(adata, key="scrcl")` in a file of this folder, plus one line
in `FIGURES`; it returns a Figure, or None when there is nothing to draw. A figure of marker genes is a function
`NAME(scene)`, plus one line in `GENE_FIGURES`. Modules are loaded when their figure is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from scrcl.messages import in_notebook

if TYPE_CHECKING:
    from scrcl.plot.cells import confusion, losses, numbers, umap
    from scrcl.plot.tissue import domains, paga, paga_compare
    from scrcl.plot.trust import clusters, tree

    __all__ = ["clusters", "confusion", "domains", "losses", "numbers", "paga", "paga_compare", "tree", "umap"]


class Entry(NamedTuple):
    """A figure in the registry.

    Attributes
    ----------
    title
        The title of the figure.
    tasks
        The tasks that it is drawn for.
    module
        The module in this folder that holds its function.
    """

    title: str
    tasks: tuple[Literal["SC", "ST"], ...]
    module: str


FIGURES = {
    "domains": Entry("Domains on the tissue", ("ST",), "tissue"),
    "clusters": Entry("Trust in each cluster", ("SC", "ST"), "trust"),
    "tree": Entry("Which clusters become one first", ("SC", "ST"), "trust"),
    "umap": Entry("UMAP", ("SC", "ST"), "cells"),
    "confusion": Entry("Clusters and known types", ("SC", "ST"), "cells"),
    "paga": Entry("PAGA", ("ST",), "tissue"),
    "paga_compare": Entry("UMAP and PAGA", ("ST",), "tissue"),
    "numbers": Entry("Number of clusters", ("SC", "ST"), "cells"),
    "losses": Entry("Losses of the training", ("SC", "ST"), "cells"),
}
GENE_FIGURES = {  # in the order of the report
    "umap_clusters": Entry("Clusters", ("SC", "ST"), "genes"),
    "tissue_clusters": Entry("Clusters on the tissue", ("ST",), "genes"),
    "umap_markers": Entry("Top genes", ("SC", "ST"), "genes"),
    "tissue_markers": Entry("Top genes on the tissue", ("ST",), "genes"),
    "ranking": Entry("Ranking", ("SC", "ST"), "genes"),
    "dotplot": Entry("Dot plot", ("SC", "ST"), "genes"),
    "heatmap": Entry("Heat map", ("SC", "ST"), "genes"),
    "stacked_violin": Entry("Stacked violin", ("SC", "ST"), "genes"),
    "matrixplot": Entry("Matrix plot", ("SC", "ST"), "genes"),
    "volcano": Entry("Volcano plots", ("SC", "ST"), "genes"),
    "enrichment": Entry("Gene sets", ("SC", "ST"), "further"),
    "spatial_genes": Entry("Genes that vary in space", ("ST",), "further"),
    "conditions": Entry("Conditions", ("SC", "ST"), "further"),
    "pseudotime": Entry("Pseudotime", ("SC", "ST"), "further"),
}


def names(task: str) -> list[str]:
    """Return the names of a run's figures, in the order in which they are drawn."""
    return [name for name, entry in FIGURES.items() if task in entry.tasks]


def gene_figure(name: str) -> Any:
    """Return the function that draws a figure of marker genes."""
    return getattr(import_module(f"scrcl.plot.{GENE_FIGURES[name].module}"), name)


def show_in_notebooks() -> None:
    """Let a Figure that ends a cell be shown, also before pyplot has set that up."""
    if not in_notebook():
        return
    from IPython import get_ipython
    from IPython.core.pylabtools import print_figure
    from matplotlib.figure import Figure

    formatter = get_ipython().display_formatter.formatters["image/png"]
    try:
        formatter.lookup_by_type(Figure)
    except KeyError:
        formatter.for_type(Figure, lambda figure: print_figure(figure, "png", base64=True))


def __getattr__(name: str) -> Any:
    if name in FIGURES:
        show_in_notebooks()
        return getattr(import_module(f"scrcl.plot.{FIGURES[name].module}"), name)
    raise AttributeError(f"there is no figure {name!r}; there are {', '.join(FIGURES)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *FIGURES})
