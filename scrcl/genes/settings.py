"""Settings of the ranking of marker genes; the ranking and its filter are the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from scrcl.messages import UserError
from scrcl.settings import Field, Settings, list_of

FIELDS = {
    "task": Field("data", "runs and data sets of cells (SC) or of tissue (ST)"),
    "dataset": Field(
        "data",
        "a finished run, by name or folder; or any data set, by name or path; none given: the latest run",
        is_path=True,
    ),
    "labels": Field(
        "data", "table with barcodes, or obs column; auto is the run's final labels, or obs column scrcl", is_path=True
    ),
    "label_column": Field("data", "column of that table; auto is scrcl or another usual name"),
    "label_key": Field(
        "data", "obs column with known types to compare with, 'none' for none, 'auto' for the usual names"
    ),
    "layer": Field("data", "where a data set's expression is: 'X', 'raw', a layer's name, or 'auto'"),
    "values": Field("data", "what these values are: counts, lognorm, log2, log10, or auto for what they look like"),
    "features": Field(
        "data", "genes alone, or all that the matrix holds: antibodies, hashtags, guides and controls too"
    ),
    "gene_key": Field(
        "data", "var column with the names of genes, 'none' for var_names; auto looks for symbols beside ids"
    ),
    "marker_genes": Field(
        "data",
        "to name clusters by: builtin for common types of human and mouse, or a csv with columns type and gene",
        is_path=True,
    ),
    "gene_sets": Field("data", "GMT file of gene sets, to test for in each cluster's genes", is_path=True),
    "root": Field("data", "cluster from which a pseudotime is counted; none for none"),
    "condition_key": Field("data", "obs column of conditions to compare within each cluster, by sums per sample"),
    "sample_key": Field("data", "obs column of the samples (donors, animals) that --condition-key compares"),
    "method": Field("ranking", "scanpy's test for ranking genes"),
    "groups": Field("ranking", "clusters to test, each against all other cells"),
    "n_genes": Field("ranking", "genes listed per cluster", above=0),
    "min_in_group_fraction": Field(
        "filter", "more than this share of the cluster's cells have the gene", at_least=0, at_most=1
    ),
    "max_out_group_fraction": Field("filter", "less than this share of all other cells have it", at_least=0, at_most=1),
    "min_fold_change": Field("filter", "log2 of the fold change is above this, 1 being twofold"),
    "n_drawn": Field("figures", "genes drawn per cluster", above=0),
    "volcano": Field("figures", "draw volcano plots, one per cluster"),
    "format": Field("figures", "of the figure files ({drawings})"),
    "dpi": Field("figures", "dots per inch of png files, and of the points in others", above=0, at_most=1200),
    "threads": Field(
        "run", "CPU threads, 0 for all; runs at the same time should not share cores", at_least=0, at_most=1024
    ),
    "output": Field("run", "folder of the results; auto is that of the run, or results/TASK/DATASET", is_path=True),
    "overwrite": Field("run", "replace markers of other data that are in the folder of the results"),
}


@dataclass
class MarkerSettings(Settings):
    """The settings of draw_DEGs.py; `FIELDS` says what each of them means."""

    fields: ClassVar[dict[str, Field]] = FIELDS

    # Data
    task: Literal["SC", "ST"] = "SC"
    dataset: str = ""
    labels: str = "auto"
    label_column: str = "auto"
    label_key: str = "auto"
    layer: str = "auto"
    values: Literal["auto", "counts", "lognorm", "log2", "log10"] = "auto"
    features: Literal["genes", "all"] = "genes"
    gene_key: str = "auto"
    marker_genes: str = ""
    gene_sets: str = ""
    root: str = "none"
    condition_key: str = "none"
    sample_key: str = "none"
    # Ranking
    method: Literal["wilcoxon", "t-test", "logreg"] = "wilcoxon"
    groups: list[str] = list_of("all")
    n_genes: int = 20
    # Filter
    min_in_group_fraction: float = 0.5
    max_out_group_fraction: float = 0.25
    min_fold_change: float = 1.0
    # Figures
    n_drawn: int = 3
    volcano: bool = False
    format: Literal["png", "pdf", "svg"] = "png"
    dpi: int = 150
    # Run
    threads: int = 0
    output: str = "auto"
    overwrite: bool = False

    @property
    def of_ranking(self) -> dict[str, Any]:
        """What `ranking.rank` takes of these settings."""
        names = ("groups", "method", "n_genes", "min_in_group_fraction", "max_out_group_fraction", "min_fold_change")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.groups:
            raise UserError("--groups is empty; name clusters, or 'all'.")
        if self.volcano and self.method == "logreg":
            raise UserError("--volcano draws p-values, which --method logreg does not give; take another method.")
        if self.label_column != "auto" and self.labels == "auto":
            raise UserError("--label-column names a column of the table given by --labels; add that.")
