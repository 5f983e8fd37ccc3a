"""The names of all files and folders that commands write; a later run removes those that it does not write again."""

from __future__ import annotations

import os
from pathlib import Path

from scrcl import plot

CELLS = ("result.h5ad", "result.zarr")  # the AnnData of a result, in one format or the other
RESULTS = ("config.yaml", "labels.csv", "clusters.csv", "tree.csv", CELLS[0], "metrics.json", "log.jsonl", "model.pt")
OF_A_RUN = ("config.yaml", "labels.csv", "metrics.json", "model.pt")  # what every finished run has
COMPARED = ("compared.csv", "compared.png")  # of numbers of clusters, beside the run they are of
NUMBERS = "numbers.csv"  # only where the number of clusters was estimated
REPORT = "report.html"
TABLES_OF_GENES = ("markers.csv", "top_markers.csv", "cluster_types.csv", "cluster_names.csv", "markers.yaml")
BEYOND_MARKERS = ("enrichment.csv", "spatial_genes.csv", "pseudotime.csv", "conditions.csv")
FIGURES_OF_GENES = tuple(f"{name}.{format}" for name in plot.GENE_FIGURES for format in ("png", "pdf", "svg"))
OF_GENES = (*TABLES_OF_GENES, *BEYOND_MARKERS, *FIGURES_OF_GENES, REPORT)


def figures(task: str) -> tuple[str, ...]:
    """All files that the figures of a run may be."""
    return tuple(f"{name}.png" for name in plot.names(task))


def of_run(task: str) -> tuple[str, ...]:
    """All files that a run may write, or that describe its results."""
    return (*RESULTS, CELLS[1], NUMBERS, *COMPARED, *figures(task), *OF_GENES)


def is_finished(folder: Path) -> bool:
    """Return whether a run has ended well in a folder."""
    has_cells = any(os.path.exists(folder / name) for name in CELLS)
    return has_cells and all(os.path.isfile(folder / name) for name in OF_A_RUN)


def another_look(dataset: str, merge: list[str], split: str) -> bool:
    """Return whether settings mean another look at a finished run, as opposed to a run on data."""
    return bool(merge) or split != "none" or (is_finished(Path(dataset)) and not _holds_own_data(Path(dataset)))


def _holds_own_data(folder: Path) -> bool:
    """Return whether the folder of a run is also that of its data, so that naming it means the data."""
    import yaml

    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["settings"]
        return Path(settings["dataset"]).expanduser().resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False
