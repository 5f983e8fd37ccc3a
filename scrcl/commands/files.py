"""The names of all files and folders that commands write; a later run removes those that it does not write again."""

from __future__ import annotations

from scrcl import plot

CELLS = ("result.h5ad", "result.zarr")  # the AnnData of a result, in one format or the other
RESULTS = ("config.yaml", "labels.csv", "clusters.csv", *CELLS, "metrics.json", "log.jsonl", "model.pt")
NUMBERS = "numbers.csv"  # only where the number of clusters was estimated
REPORT = "report.html"
TABLES_OF_GENES = ("markers.csv", "top_markers.csv", "cluster_types.csv", "cluster_names.csv", "markers.yaml")
FIGURES_OF_GENES = tuple(f"{name}.{format}" for name in plot.GENE_FIGURES for format in ("png", "pdf", "svg"))
OF_GENES = (*TABLES_OF_GENES, *FIGURES_OF_GENES, REPORT)


def figures(task: str) -> tuple[str, ...]:
    """All files that the figures of a run may be."""
    return tuple(f"{name}.png" for name in plot.names(task))


def of_run(task: str) -> tuple[str, ...]:
    """All files that a run may write, or that describe its results."""
    return (*RESULTS, NUMBERS, *figures(task), *OF_GENES)
