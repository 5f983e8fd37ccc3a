"""The two recipes, one for cells and one for tissue, each a complete flat list of settings with their defaults.

What a setting means and which values it accepts is in `FIELDS`. The paper's own settings are in `paper/`. Everywhere,
the class of the settings decides between cells and tissue.
"""

from __future__ import annotations

import dataclasses
import numbers
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from scrcl.keys import LABELS_OF_CELLS, LABELS_OF_SPOTS
from scrcl.messages import UserError, log
from scrcl.methods import METHODS
from scrcl.settings import Field, Settings, flag, list_of

BUNDLED = "pbmc68k_reduced"  # real cells with labels, part of the scanpy package
FIRST_SEED, SEED_STEP = 5, 10  # the paper's seeds are 5, 15, 25, 35, 45
MOST_SEEDS = 100
ONE_SEED_BEYOND = 50_000  # cells, beyond which one seed is the default

Task = Literal["SC", "ST"]
EncoderInput = Literal["scaled", "uncentred", "lognorm", "counts"]
Values = Literal["auto", "counts", "lognorm", "log2", "log10"]
Embedding = Literal["views", "joint-or-pcs", "joint", "joint-refined", "encoder", "refined", "pcs"]

FIELDS = {
    "dataset": Field("data", "name in {folder}, or path: {formats}", is_path=True),
    "label_key": Field(
        "data", "obs column with known labels, 'none' to ignore labels, 'auto' to look for the usual names"
    ),
    "layer": Field("data", "where the expression is: 'X', 'raw', a layer's name, or 'auto'"),
    "values": Field(
        "data",
        "what the values are: counts (whole or not), lognorm (natural logarithms), log2, log10, or auto for what they "
        "look like",
    ),
    "features": Field(
        "data", "genes alone, or all that the matrix holds: antibodies, hashtags, guides and controls too"
    ),
    "annotation": Field(
        "data",
        "table of known domains, joined by barcode; 'auto' is metadata.tsv or .csv in a Visium folder",
        is_path=True,
    ),
    "section_key": Field(
        "data", "obs column that tells sections apart, which no edge joins; none for one section; auto looks for one"
    ),
    "batch_key": Field(
        "data", "obs column of donors, protocols or the like, whose differences are taken out (Harmony); none for none"
    ),
    "min_counts": Field("preprocessing", "a {one} with fewer counts is left out", at_least=0),
    "min_genes": Field("preprocessing", "a {one} with fewer genes is left out", at_least=0),
    "max_mito": Field(
        "preprocessing", "a {one} with a larger percentage of mitochondrial counts is left out", at_least=0, at_most=100
    ),
    "target_sum": Field(
        "preprocessing",
        "what the values of a {one} sum up to before the logarithm: a number, or 'median' (of all {unit}){auto_sum}",
    ),
    "n_top_genes": Field("preprocessing", "highly variable genes to keep", at_least=2),
    "hvg_flavor": Field("preprocessing", "how they are chosen: scanpy's 'seurat', or 'seurat_v3' (needs counts)"),
    "min_cells": Field(
        "preprocessing",
        "a gene seen in fewer {unit}, or in under a tenth of them if that is less, cannot be highly variable",
        above=0,
    ),
    "exclude_genes": Field(
        "preprocessing",
        "genes that are not to tell {unit} apart: mitochondrial, ribosomal, haemoglobin, "
        "immune-receptor, cell-cycle, sex, or files with a gene per line",
    ),
    "genes": Field(
        "preprocessing",
        "a file with a gene per line: these alone tell {unit} apart; all for no such list",
        is_path=True,
    ),
    "encoder_input": Field(
        "preprocessing",
        "values the encoders see: log-normalised at zero mean and unit variance, at unit variance only, "
        "log-normalised, or as read",
    ),
    "n_pcs": Field("preprocessing", "principal components of the scaled genes", above=0),
    "gene_weights": Field(
        "preprocessing", "scaled genes are weighted by how much neighbours share them (Moran's I), or not at all"
    ),
    "graph_on": Field("graphs", "space of the cell graph: PCs, or log-normalised genes (on PCs from 10,000 cells up)"),
    "metric": Field("graphs", "distance of the cell graph"),
    "graph": Field("graphs", "which spots are neighbours"),
    "n_neighbors": Field("graphs", "nearest {unit} per {one}, {itself}", above=0),
    "radius": Field("graphs", "distance up to which spots are neighbours (--graph radius, delaunay)", at_least=0),
    "gene_neighbors": Field("graphs", "nearest genes per gene, the gene itself included", above=0),
    "hops": Field("graphs", "smoothing hops of the two views", at_least=0),
    "hidden": Field("model", "hidden units H", above=0),
    "refined_width": Field("model", "refined dimensions K', 0 for the number of clusters", at_least=0),
    "dropout": Field("model", "dropout probability", at_least=0, below=1),
    "epochs": Field("training", "full-batch epochs, at most", above=0),
    "plateau": Field(
        "training",
        "end training once the loss falls by less than this share of its first value in 10 epochs; 0 for all epochs",
        at_least=0,
    ),
    "lr": Field("training", "learning rate of Adam", above=0),
    "weight_decay": Field("training", "L2 weight decay of Adam", at_least=0),
    "temperature": Field("training", "temperature t of the softmax", above=0),
    "lambda1": Field("training", "weight of the neighbourhood contrastive loss (NDC)", at_least=0),
    "lambda2": Field("training", "weight of the cross-view consistency loss (CVC)", at_least=0),
    "consistency": Field(
        "training", "CVC as published, or after the best scaling of Z1 Z2^T, which does not fade with cells"
    ),
    "n_clusters": Field(
        "clustering",
        "a number, or 'auto': the number of known labels if there are any, else estimated; on a finished run also "
        "several, as 5-12",
    ),
    "embedding": Field(
        "clustering",
        "what to cluster: [E1|E2] (joint) or [Z1|Z2] joined with the PCs at equal variance, or any alone; "
        "joint-or-pcs: per seed the joint one or the PCs, whichever's labels agree better with the cell graph; "
        "views (tissue): per seed the vote of many partitions, of PCs at several scales and of the encoder",
    ),
    "mixture_dims": Field(
        "clustering",
        "leading components that the mixture sees, at most one per 15 cells; of several numbers, per seed the one "
        "whose labels agree best with the cell graph (views: all of them vote)",
        at_least=1,
    ),
    "mixture_rounds": Field(
        "clustering",
        "of twelve starts of the mixture, rounds in the metric of the likeliest so far, after a plain one",
        at_least=0,
        at_most=11,  # each round needs at least one of the twelve starts
    ),
    "cluster_method": Field(
        "clustering", ", ".join(f"{name}: {how.what}" for name, how in METHODS.items()), choices=tuple(METHODS)
    ),
    "refine_neighbors": Field(
        "clustering",
        "each spot takes the label of most of its nearest spots, this many; 0 for no smoothing",
        at_least=0,
    ),
    "merge": Field("another look at a finished run", "join these clusters: --dataset results/{task}/NAME --merge 2 5"),
    "split": Field(
        "another look at a finished run",
        "divide this cluster, by a training on its {unit} alone, into --n-clusters parts; none for none. With neither, "
        "--dataset results/{task}/NAME --n-clusters 12 clusters what was trained once more, and 5-12 compares numbers",
    ),
    "map_onto": Field(
        "another look at a finished run",
        "the folder of a run, in whose clusters the cells of --dataset are placed without training; none for none",
        is_path=True,
    ),
    "seeds": Field(
        "run",
        "one training per seed, and one consensus of all; a single number says how many (5, 15, 25, ...), several are "
        "the seeds; none given: 5, and 1 beyond 50,000 {unit}",
        at_least=0,
        below=2**32,
    ),
    "device": Field("run", "auto, cpu, cuda, cuda:1 or mps; auto takes CUDA where there is one"),
    "tf32": Field("run", "faster matrix products of lower precision, on CUDA cards that have them"),
    "compile": Field("run", "fewer passes over memory by torch.compile, on CUDA cards; needs a C compiler"),
    "threads": Field(
        "run", "CPU threads, 0 for all; runs at the same time should not share cores", at_least=0, at_most=1024
    ),
    "output": Field("run", "folder of this run's results; auto is results/{task}/DATASET", is_path=True),
    "format": Field("run", "of the result's AnnData; auto is h5ad, and zarr for more than a million {unit}"),
    "overwrite": Field("run", "replace results of other data that are in the folder of this run's results"),
    "max_memory": Field(
        "run",
        "GiB that training may take, which decides how many {unit} it works on at a time; values of more than a tenth "
        "of it stay on disk; 0 for no limit",
        at_least=0,
    ),
    "dask_scheduler": Field(
        "run",
        "a dask cluster that reads the values, as tcp://10.0.0.1:8786; none for this process's threads",
    ),
    "checkpoint_every": Field("run", "epochs between checkpoints, 0 for none", at_least=0),
    "resume": Field("run", "go on from the checkpoint of a run that was ended early"),
    "figures": Field("run", "draw figures ({drawings}; the UMAP takes most of the time)"),
    "report": Field("run", "rank marker genes and write report.html too, as draw_DEGs.py does"),
    "marker_genes": Field(
        "run",
        "known markers by which clusters are named at the end: builtin for common types of human and mouse, or a csv "
        "with columns type and gene",
        is_path=True,
    ),
}
# Settings of the scripts that have no effect on what is found.
RUN_ONLY = (
    *("dataset", "annotation", "output", "format", "overwrite", "figures", "report", "marker_genes"),
    *("checkpoint_every", "resume", "dask_scheduler", "merge", "split", "map_onto"),
)


def first_seeds(n: int, first: int = FIRST_SEED) -> list[int]:
    """Return the first n seeds of the series 5, 15, 25, ..., which are the paper's.

    Parameters
    ----------
    n
        How many seeds.
    first
        The first seed of the series.
    """
    return [first + SEED_STEP * i for i in range(n)]


class Recipe(Settings):
    """What both recipes share: checks across settings. The settings themselves are in the two classes below.

    Attributes
    ----------
    fields
        What each setting means, by name.
    task, unit
        SC or ST, and what a row of the data is.
    usual_labels
        The obs columns that are searched for known labels.
    target_sums
        The words that target_sum accepts.
    """

    fields: ClassVar[dict[str, Field]] = FIELDS
    task: ClassVar[Task]
    unit: ClassVar[str]
    usual_labels: ClassVar[tuple[str, ...]]
    target_sums: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        self.seeds: list[int]
        if isinstance(self.seeds, numbers.Integral) and not isinstance(self.seeds, bool):
            n_seeds = int(self.seeds)
            if not 1 <= n_seeds <= MOST_SEEDS:
                raise UserError(
                    f"--seeds with one number says how many seeds, 1 to {MOST_SEEDS}; for the one seed {n_seeds} write "
                    f"--seed {n_seeds}."
                )
            self.seeds = first_seeds(n_seeds)
        super().__post_init__()
        self.check()

    def check(self: Any) -> None:
        """Raise UserError when settings do not fit together."""
        if self.report and not self.figures:
            raise UserError("--report shows the figures; leave --no-figures out.")
        if len(self.hops) != 2:
            raise UserError(f"--hops takes two numbers, one per view, not {self.hops}.")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds lists a seed twice: {self.seeds}.")
        if self.batch_key != "none" and self.encoder_input != "scaled":
            raise UserError("--batch-key needs the scaled genes; leave --encoder-input out, or --batch-key.")
        if not self.mixture_dims:
            raise UserError("--mixture-dims is empty; it takes numbers of at least 1.")
        if self.cluster_method not in self.fields["cluster_method"].choices[:1]:
            for name in ("mixture_dims", "mixture_rounds"):
                if getattr(self, name) != getattr(type(self)(), name):
                    raise UserError(f"{flag(name)} has no effect without the mixture; add --cluster-method gmm.")
        if self.target_sum not in self.target_sums and not _is_positive(self.target_sum):
            words = " or ".join(["a number above 0", *map(repr, self.target_sums)])
            raise UserError(f"--target-sum must be {words}, not {self.target_sum!r}.")
        if self.n_clusters != "auto" and not _numbers_in(self.n_clusters):
            raise UserError(
                f"--n-clusters must be 'auto' or a whole number above 1 (5-12 compares numbers on a finished run), "
                f"not {self.n_clusters!r}."
            )

    def numbers_of_clusters(self: Any) -> range:
        """Return the numbers of clusters that n_clusters names: one, or several of 5-12; none for 'auto'."""
        return _numbers_in(self.n_clusters)

    def with_seeds(self: Any, n_cells: int) -> Any:
        """Return these settings with seeds; if none are given, the number of cells decides how many."""
        if self.seeds:
            return self
        if n_cells > ONE_SEED_BEYOND:
            log.info(
                "Only one seed is used, since training takes long; "
                "--seeds 5 gives a consensus of five and their agreement."
            )
        return dataclasses.replace(self, seeds=first_seeds(1 if n_cells > ONE_SEED_BEYOND else 5))


def _numbers_in(text: str) -> range:
    """Return the number of clusters that a text gives, or all from one to another (5-12); none for anything else."""
    if not re.fullmatch("[0-9]{1,9}(-[0-9]{1,9})?", text):
        return range(0)
    first, several, last = text.partition("-")
    if int(first) < 2 or several and int(last) <= int(first):
        return range(0)
    return range(int(first), int(last or first) + 1)


def _is_positive(number: str) -> bool:
    """Return whether a text is a finite number above 0."""
    try:
        return 0 < float(number) < float("inf")
    except ValueError:
        return False


@dataclass
class CellSettings(Recipe):
    """Settings of a run on cells; the defaults are the one recipe for all data sets."""

    task: ClassVar[Task] = "SC"
    unit: ClassVar[str] = "cells"
    published: ClassVar[str] = "SC"
    usual_labels: ClassVar[tuple[str, ...]] = LABELS_OF_CELLS
    target_sums: ClassVar[tuple[str, ...]] = ("median", "auto")
    words: ClassVar[dict[str, str]] = {
        "task": "SC",
        "folder": "datasets/scdata",
        "unit": "cells",
        "one": "cell",
        "itself": "the cell itself included (as in scanpy)",
        "auto_sum": ", or 'auto': 10,000, and the median where the first PC would be the number of counts",
    }

    # Data
    dataset: str = BUNDLED
    label_key: str = "auto"
    layer: str = "auto"
    values: Values = "auto"
    features: Literal["genes", "all"] = "genes"
    batch_key: str = "none"
    # Preprocessing
    min_counts: float = 0.0
    min_genes: int = 0
    max_mito: float = 100.0
    target_sum: str = "auto"
    n_top_genes: int = 2000
    hvg_flavor: Literal["seurat", "seurat_v3"] = "seurat"
    min_cells: int = 10
    exclude_genes: list[str] = list_of()
    genes: str = "all"
    encoder_input: EncoderInput = "scaled"
    n_pcs: int = 50
    # Graphs
    graph_on: Literal["pcs", "genes"] = "pcs"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    n_neighbors: int = 15
    gene_neighbors: int = 5
    hops: list[int] = list_of(0, 0)
    # Model
    hidden: int = 256
    refined_width: int = 64
    dropout: float = 0.1
    # Training
    epochs: int = 200
    plateau: float = 0.02
    lr: float = 5e-4
    weight_decay: float = 1e-3
    temperature: float = 1.0
    lambda1: float = 100.0
    lambda2: float = 1.0
    consistency: Literal["published", "scale-free"] = "scale-free"
    # Clustering
    n_clusters: str = "auto"
    embedding: Embedding = "joint-or-pcs"
    mixture_dims: list[int] = list_of(20, 30)
    mixture_rounds: int = 2
    cluster_method: str = "gmm"
    # Another look
    merge: list[str] = list_of()
    split: str = "none"
    map_onto: str = "none"
    # Run
    seeds: list[int] = list_of()
    device: str = "auto"
    tf32: bool = False
    compile: bool = False
    threads: int = 0
    output: str = "auto"
    format: Literal["auto", "h5ad", "zarr"] = "auto"
    overwrite: bool = False
    max_memory: float = 0.0
    dask_scheduler: str = "none"
    checkpoint_every: int = 10
    resume: bool = False
    figures: bool = True
    report: bool = False
    marker_genes: str = ""

    def check(self) -> None:
        """Raise UserError when settings do not fit together."""
        super().check()
        if self.n_neighbors < 2:
            raise UserError("--n-neighbors counts the cell itself and must be at least 2.")
        if self.batch_key != "none" and self.graph_on != "pcs":
            raise UserError("--batch-key needs a graph on PCs; leave --graph-on out, or --batch-key.")
        if self.embedding == "views":
            raise UserError("--embedding views needs positions; for cells add --embedding joint-or-pcs.")


@dataclass
class TissueSettings(Recipe):
    """Settings of a run on spots; the defaults are the one recipe for all tissues."""

    task: ClassVar[Task] = "ST"
    unit: ClassVar[str] = "spots"
    published: ClassVar[str] = "ST"
    usual_labels: ClassVar[tuple[str, ...]] = LABELS_OF_SPOTS
    target_sums: ClassVar[tuple[str, ...]] = ("median",)
    words: ClassVar[dict[str, str]] = {
        "task": "ST",
        "folder": "datasets/stdata",
        "unit": "spots",
        "one": "spot",
        "itself": "the spot itself not counted (--graph knn)",
        "auto_sum": "",
    }

    # Data
    dataset: str = ""
    annotation: str = "auto"
    label_key: str = "auto"
    layer: str = "auto"
    values: Values = "auto"
    features: Literal["genes", "all"] = "genes"
    section_key: str = "auto"
    batch_key: str = "none"
    # Preprocessing
    min_counts: float = 0.0
    min_genes: int = 0
    max_mito: float = 100.0
    target_sum: str = "10000"
    n_top_genes: int = 3000
    hvg_flavor: Literal["seurat", "seurat_v3"] = "seurat"
    min_cells: int = 10
    exclude_genes: list[str] = list_of()
    genes: str = "all"
    encoder_input: EncoderInput = "scaled"
    n_pcs: int = 50
    gene_weights: Literal["spatial", "none"] = "spatial"
    # Graphs
    graph: Literal["knn", "radius", "delaunay"] = "knn"
    n_neighbors: int = 15
    radius: float = 0.0
    gene_neighbors: int = 5
    hops: list[int] = list_of(0, 0)
    # Model
    hidden: int = 256
    refined_width: int = 0
    dropout: float = 0.1
    # Training
    epochs: int = 200
    plateau: float = 0.02
    lr: float = 5e-4
    weight_decay: float = 1e-3
    temperature: float = 0.1
    lambda1: float = 100.0
    lambda2: float = 1.0
    consistency: Literal["published", "scale-free"] = "published"
    # Clustering
    n_clusters: str = "auto"
    embedding: Embedding = "views"
    mixture_dims: list[int] = list_of(10, 20)
    mixture_rounds: int = 0
    cluster_method: str = "gmm"
    refine_neighbors: int = 6
    # Another look
    merge: list[str] = list_of()
    split: str = "none"
    # Run
    seeds: list[int] = list_of()
    device: str = "auto"
    tf32: bool = False
    compile: bool = False
    threads: int = 0
    output: str = "auto"
    format: Literal["auto", "h5ad", "zarr"] = "auto"
    overwrite: bool = False
    max_memory: float = 0.0
    checkpoint_every: int = 10
    resume: bool = False
    figures: bool = True
    report: bool = False
    marker_genes: str = ""

    def check(self) -> None:
        """Raise UserError when settings do not fit together."""
        super().check()
        if self.radius > 0 and self.graph == "knn":
            raise UserError("--radius has no effect on --graph knn; add --graph radius or --graph delaunay.")
        if self.graph != "knn" and self.n_neighbors != type(self).n_neighbors:
            raise UserError(f"--n-neighbors has no effect on --graph {self.graph}; leave it out, or add --graph knn.")


RECIPES: dict[Task, type[CellSettings] | type[TissueSettings]] = {"SC": CellSettings, "ST": TissueSettings}
