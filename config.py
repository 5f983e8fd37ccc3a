"""Settings: one dataclass per task, YAML files that hold only what differs, command-line flags made from it.

Order of precedence: dataclass defaults, then the YAML files, then flags.
"""

from __future__ import annotations

import argparse
import dataclasses
import numbers
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml

from utils import UserError, log, sample_folder

CONFIGS = Path(__file__).parent / "configs"

# Help for settings whose default hangs on the task
REFINED_WIDTH = "refined dimensions K', 0 for the number of clusters"
EMBEDDING = (
    "what to cluster: [E1|E2] (joint) or [Z1|Z2] beside the PCs at equal variance, or any alone; joint-or-pcs: "
    "per seed the joint one or the PCs, whichever's labels agree better with the cell graph"
)
MIXTURE_DIMS = "leading components that the mixture sees, at most one per 15 cells; of several numbers, per seed the one whose labels agree best with the cell graph"
MIXTURE_ROUNDS = "of twelve starts of the mixture, rounds in the metric of the likeliest so far, after a plain one"
CONSISTENCY = "CVC as published, or after the best scaling of Z1 Z2^T, which does not fade with cells"


def setting(default: Any, group: str, help: str) -> Any:
    """A field of a settings dataclass, with the group and the text that --help shows."""
    factory = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return field(**factory, metadata={"group": group, "help": help})


def first_seeds(n: int) -> list[int]:
    """The n seeds that a number of seeds stands for: 5, 15, 25, ..., those of the paper."""
    return [5 + 10 * i for i in range(n)]


@dataclass
class Settings:
    """What the settings of every script have in common: each field has the type that it declares."""

    published: ClassVar[Path | None] = None  # folder of the published settings, where there are any

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            setattr(self, f.name, _coerce(f.name, getattr(self, f.name), hints[f.name]))


@dataclass
class Config(Settings):
    """Settings that both tasks share; SCConfig and STConfig add theirs and say where their defaults differ."""

    task: ClassVar[str]
    unit: ClassVar[str]  # what a row of the data is
    target_sums: ClassVar[tuple[str, ...]] = ("median",)  # words that --target-sum takes

    # Data
    dataset: str = setting("", "data", "name or path")
    label_key: str = setting(
        "auto", "data", "obs column with known labels, 'none' to ignore labels, 'auto' to look for the usual names"
    )
    layer: str = setting("auto", "data", "where the expression is: 'X', 'raw', a layer's name, or 'auto'")
    # Preprocessing
    target_sum: str = setting(
        "10000",
        "preprocessing",
        "what a spot's values sum up to before the logarithm: a number, or 'median', that of all",
    )
    n_top_genes: int = setting(2000, "preprocessing", "highly variable genes to keep")
    hvg_flavor: Literal["seurat", "seurat_v3"] = setting(
        "seurat", "preprocessing", "how they are chosen: scanpy's 'seurat', or 'seurat_v3' (needs counts)"
    )
    min_cells: int = setting(
        10,
        "preprocessing",
        "a gene seen in fewer cells, or in under a tenth of them if that is less, is not taken for highly variable",
    )
    encoder_input: Literal["scaled", "uncentred", "lognorm", "counts"] = setting(
        "scaled",
        "preprocessing",
        "values the encoders see: log-normalised at zero mean and unit variance, at unit variance only, "
        "log-normalised, or as read",
    )
    n_pcs: int = setting(50, "preprocessing", "principal components of the scaled genes")
    # Graphs
    n_neighbors: int = setting(15, "graphs", "")
    gene_neighbors: int = setting(5, "graphs", "nearest genes per gene, the gene itself included")
    hops: list[int] = setting([0, 0], "graphs", "smoothing hops of the two views")
    # Model
    hidden: int = setting(256, "model", "hidden units H")
    refined_width: int = setting(0, "model", REFINED_WIDTH)
    dropout: float = setting(0.1, "model", "dropout probability")
    # Training
    epochs: int = setting(200, "training", "full-batch epochs, at most")
    plateau: float = setting(
        0.02,
        "training",
        "end training once the loss falls by less than this share of its first value in 10 epochs; 0 for all epochs",
    )
    lr: float = setting(5e-4, "training", "learning rate of Adam")
    weight_decay: float = setting(1e-3, "training", "L2 weight decay of Adam")
    temperature: float = setting(1.0, "training", "temperature t of the softmax")
    lambda1: float = setting(100.0, "training", "weight of the neighbourhood contrastive loss (NDC)")
    lambda2: float = setting(1.0, "training", "weight of the cross-view consistency loss (CVC)")
    consistency: Literal["published", "scale-free"] = setting("published", "training", CONSISTENCY)
    # Clustering
    n_clusters: str = setting(
        "auto", "clustering", "a number, or 'auto': the number of known labels if there are any, else estimated"
    )
    embedding: Literal["joint-or-pcs", "joint", "joint-refined", "encoder", "refined", "pcs"] = setting(
        "joint", "clustering", EMBEDDING
    )
    mixture_dims: list[int] = setting([20], "clustering", MIXTURE_DIMS)
    mixture_rounds: int = setting(0, "clustering", MIXTURE_ROUNDS)
    cluster_method: Literal["gmm", "kmeans", "leiden"] = setting(
        "gmm", "clustering", "tied-covariance Gaussian mixture, cosine k-means, or Leiden"
    )
    # Run
    seeds: list[int] = setting(
        [],
        "run",
        "one training per seed, and one consensus of all; a single number says how many (5, 15, 25, ...), several are "
        "the seeds; none given: 5, and 1 beyond 50,000 cells",
    )
    device: str = setting("auto", "run", "auto, cpu, cuda, cuda:1 or mps; auto takes CUDA where there is one")
    tf32: bool = setting(False, "run", "faster matrix products of lower precision, on CUDA cards that have them")
    threads: int = setting(0, "run", "CPU threads, 0 for all; runs at the same time should not share cores")
    output: str = setting("auto", "run", "")
    max_memory: float = setting(
        0.0,
        "run",
        "GiB that training may take, which decides how many cells it works on at a time; values of more than a tenth of it stay on disk; 0 for no limit",
    )
    checkpoint_every: int = setting(10, "run", "epochs between checkpoints, 0 for none")
    resume: bool = setting(False, "run", "go on from the checkpoint of a run that was ended early")
    figures: bool = setting(True, "run", "draw figures (UMAP takes the most time of them)")
    report: bool = setting(False, "run", "rank marker genes and write report.html too, as draw_DEGs.py does")

    def __post_init__(self) -> None:
        if isinstance(self.seeds, numbers.Integral) and not isinstance(self.seeds, bool):
            if not 1 <= self.seeds <= MOST_SEEDS:
                raise UserError(
                    f"--seeds with one number says how many seeds, 1 to {MOST_SEEDS}; for the one seed {self.seeds} it is --seed {self.seeds}."
                )
            self.seeds = first_seeds(self.seeds)
        super().__post_init__()
        validate(self)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What preprocess.preprocess and backed.preprocess take of these settings."""
        return {name: getattr(self, name) for name in ("target_sum", "n_top_genes", "hvg_flavor", "min_cells")}

    def with_seeds(self, n_cells: int) -> Self:
        """These settings with the seeds that a number of cells calls for, where none are given."""
        if self.seeds:
            return self
        if n_cells > ONE_SEED_BEYOND:
            log.info("One seed, since each takes its time: --seeds 5 for the consensus of five, and a confidence.")
        return dataclasses.replace(self, seeds=first_seeds(1 if n_cells > ONE_SEED_BEYOND else 5))


@dataclass
class SCConfig(Config):
    """Settings of a single-cell run; the defaults are the one recipe for all data sets."""

    published: ClassVar[Path | None] = CONFIGS / "paper" / "SC"
    task: ClassVar[str] = "SC"
    unit: ClassVar[str] = "cells"
    target_sums: ClassVar[tuple[str, ...]] = ("median", "auto")

    dataset: str = setting("pbmc68k_reduced", "data", "name in datasets/scdata, or path of an h5ad file")
    target_sum: str = setting(
        "auto",
        "preprocessing",
        "what a cell's values sum up to before the logarithm: a number, 'median', that of all, or 'auto': 10,000, and the "
        "median where the first PC would be the number of counts",
    )
    graph_on: Literal["pcs", "genes"] = setting(
        "pcs", "graphs", "space of the cell graph: PCs, or log-normalised genes (on PCs from 10,000 cells up)"
    )
    metric: Literal["euclidean", "cosine"] = setting("euclidean", "graphs", "distance of the cell graph")
    n_neighbors: int = setting(15, "graphs", "nearest cells per cell, the cell itself included (as in scanpy)")
    refined_width: int = setting(64, "model", REFINED_WIDTH)
    consistency: Literal["published", "scale-free"] = setting("scale-free", "training", CONSISTENCY)
    embedding: Literal["joint-or-pcs", "joint", "joint-refined", "encoder", "refined", "pcs"] = setting(
        "joint-or-pcs", "clustering", EMBEDDING
    )
    mixture_dims: list[int] = setting([20, 30], "clustering", MIXTURE_DIMS)
    mixture_rounds: int = setting(2, "clustering", MIXTURE_ROUNDS)
    output: str = setting("auto", "run", "folder of this run's results; auto is results/SC/DATASET")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_neighbors < 2:
            raise UserError("--n-neighbors counts the cell itself and must be at least 2.")


@dataclass
class STConfig(Config):
    """Settings of a spatial run; the defaults are the one recipe for all tissues."""

    published: ClassVar[Path | None] = CONFIGS / "paper" / "ST"
    task: ClassVar[str] = "ST"
    unit: ClassVar[str] = "spots"

    dataset: str = setting("", "data", "name in datasets/stdata, or path of a Visium folder or h5ad file")
    annotation: str = setting(
        "auto", "data", "table of known domains, joined by barcode; 'auto' is metadata.tsv or .csv in a Visium folder"
    )
    section_key: str = setting(
        "auto", "data", "obs column that tells sections apart, which no edge joins; auto is library_id, if there"
    )
    n_top_genes: int = setting(3000, "preprocessing", "highly variable genes to keep")
    gene_weights: Literal["spatial", "none"] = setting(
        "spatial", "preprocessing", "scaled genes weigh as much as neighbours share of them (Moran's I), or the same"
    )
    graph: Literal["knn", "radius", "delaunay"] = setting("knn", "graphs", "which spots are neighbours")
    n_neighbors: int = setting(15, "graphs", "nearest spots per spot, the spot itself not counted (--graph knn)")
    radius: float = setting(0.0, "graphs", "distance up to which spots are neighbours (--graph radius, delaunay)")
    temperature: float = setting(0.1, "training", "temperature t of the softmax")
    refine_neighbors: int = setting(
        6, "clustering", "each spot takes the label of most of its nearest spots, this many; 0 for none of it"
    )
    output: str = setting("auto", "run", "folder of this run's results; auto is results/ST/DATASET")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_not_negative(self, "radius", "refine_neighbors")
        if self.radius > 0 and self.graph == "knn":
            raise UserError("--radius has no effect on --graph knn; add --graph radius or --graph delaunay.")
        if self.graph != "knn" and self.n_neighbors != type(self).n_neighbors:
            raise UserError(f"--n-neighbors has no effect on --graph {self.graph}; leave it out, or add --graph knn.")


@dataclass
class DEGConfig(Settings):
    """Settings of draw_DEGs.py; the ranking and its filter are the published ones."""

    # Data
    task: Literal["SC", "ST"] = setting("SC", "data", "runs and data sets of runSC.py or of runST.py")
    dataset: str = setting(
        "", "data", "a finished run, by name or folder; or any data set, by name or path (default: the latest run)"
    )
    labels: str = setting(
        "auto", "data", "table with barcodes, or obs column; auto is the run's final labels, or obs column scrcl"
    )
    label_column: str = setting("auto", "data", "column of that table; auto is scrcl or another usual name")
    label_key: str = setting(
        "auto", "data", "obs column with known types to compare with, 'none' for none, 'auto' for the usual names"
    )
    layer: str = setting("auto", "data", "where a data set's expression is: 'X', 'raw', a layer's name, or 'auto'")
    gene_key: str = setting(
        "auto", "data", "var column with the names of genes, 'none' for var_names; auto looks for symbols beside ids"
    )
    marker_genes: str = setting("", "data", "csv of known markers, columns type and gene, to name clusters by")
    # Ranking
    method: Literal["wilcoxon", "t-test", "logreg"] = setting("wilcoxon", "ranking", "scanpy's test for ranking genes")
    groups: list[str] = setting(["all"], "ranking", "clusters to test, each against all other cells")
    n_genes: int = setting(20, "ranking", "genes listed per cluster")
    # Filter
    min_in_group_fraction: float = setting(0.5, "filter", "more than this share of the cluster's cells have the gene")
    max_out_group_fraction: float = setting(0.25, "filter", "less than this share of all other cells have it")
    min_fold_change: float = setting(1.0, "filter", "log2 of the fold change is above this, 1 being twofold")
    # Figures
    n_drawn: int = setting(3, "figures", "genes drawn per cluster")
    volcano: bool = setting(False, "figures", "draw volcano plots, one per cluster")
    format: Literal["png", "pdf", "svg"] = setting("png", "figures", "of the figure files")
    dpi: int = setting(150, "figures", "dots per inch of png files, and of the points in others")
    # Run
    threads: int = setting(0, "run", "CPU threads, 0 for all; runs at the same time should not share cores")
    output: str = setting("auto", "run", "folder of the results; auto is that of the run, or results/TASK/DATASET")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "n_genes", "n_drawn", "dpi")
        _require_not_negative(self, "threads")
        _require_at_most(self, "threads", MOST_THREADS)
        _require_at_most(self, "dpi", 1200)
        if not self.groups:
            raise UserError("--groups is empty; name clusters, or 'all'.")
        for name in ("min_in_group_fraction", "max_out_group_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{_flag(name)} is a share between 0 and 1, not {getattr(self, name)}.")
        if self.volcano and self.method == "logreg":
            raise UserError("--volcano draws p-values, which --method logreg does not give; take another method.")
        if self.label_column != "auto" and self.labels == "auto":
            raise UserError("--label-column names a column of the table given by --labels; add that.")


MOST_THREADS = 1024
MOST_SEEDS = 100
MOST_ROUNDS = 11  # of the mixture's twelve starts, one each
ONE_SEED_BEYOND = 50_000  # cells
_POSITIVE = ("n_pcs", "min_cells", "n_neighbors", "gene_neighbors", "hidden", "epochs", "lr", "temperature")
_NOT_NEGATIVE = (
    *("plateau", "refined_width", "weight_decay", "lambda1", "lambda2"),
    *("threads", "hops", "mixture_rounds", "checkpoint_every", "max_memory"),
)


def validate(config: Config) -> None:
    """Raise UserError on the first setting outside its range."""
    _require_positive(config, *_POSITIVE)
    _require_not_negative(config, *_NOT_NEGATIVE)
    if config.report and not config.figures:
        raise UserError("--report shows the figures; leave --no-figures out.")
    wrong = next((seed for seed in config.seeds if not 0 <= seed < 2**32), None)
    if wrong is not None:
        raise UserError(f"--seeds must be at least 0 and below 2^32, not {wrong}.")
    if len(config.hops) != 2:
        raise UserError(f"--hops takes two numbers, one per view, not {config.hops}.")
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"--seeds lists a seed twice: {config.seeds}.")
    if not config.mixture_dims or min(config.mixture_dims) < 1:
        raise UserError(f"--mixture-dims takes numbers of at least 1, not {config.mixture_dims}.")
    for name in ("mixture_dims", "mixture_rounds") if config.cluster_method != "gmm" else ():
        if getattr(config, name) != getattr(type(config)(), name):
            raise UserError(f"{_flag(name)} has no effect without the mixture; add --cluster-method gmm.")
    if not 0 <= config.dropout < 1:
        raise UserError(f"--dropout must be at least 0 and below 1, not {config.dropout}.")
    if config.target_sum not in config.target_sums and not _is_positive(config.target_sum):
        words = " or ".join(["a number above 0", *map(repr, config.target_sums)])
        raise UserError(f"--target-sum must be {words}, not {config.target_sum!r}.")
    if config.n_top_genes < 2:
        raise UserError(f"--n-top-genes must be at least 2, not {config.n_top_genes}.")
    _require_at_most(config, "threads", MOST_THREADS)
    _require_at_most(config, "mixture_rounds", MOST_ROUNDS)
    if config.n_clusters != "auto" and not (
        re.fullmatch("[0-9]{1,9}", config.n_clusters) and int(config.n_clusters) > 1
    ):
        raise UserError(f"--n-clusters must be 'auto' or a whole number above 1, not {config.n_clusters!r}.")


def _is_positive(number: str) -> bool:
    try:
        return 0 < float(number) < float("inf")
    except ValueError:
        return False


def _require_positive(config: Settings, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise UserError(f"{_flag(name)} must be above 0, not {getattr(config, name)}.")


def _require_not_negative(config: Settings, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if min(value if isinstance(value, list) else [value], default=-1) < 0:
            raise UserError(f"{_flag(name)} must not be negative or empty, not {value}.")


def _require_at_most(config: Settings, name: str, most: int) -> None:
    if getattr(config, name) > most:
        raise UserError(f"{_flag(name)} must be at most {most}, not {getattr(config, name)}.")


def load(config_class: type[Settings], config: str | None, flags: dict[str, Any]) -> Any:
    """Settings from the defaults, a YAML choice and flags (which win).

    config: None, 'paper' (the published settings of this data set, or those for
    any other set), 'paper/NAME' (the published settings of NAME), or a YAML
    file, which may be the config.yaml of an earlier run.
    """
    values: dict[str, Any] = {}
    dataset = str(flags.get("dataset", vars(config_class())["dataset"]))
    for path in _config_files(config, dataset, config_class.published):
        found = read_yaml(path, config_class)
        log.info("Settings of %s: %s.", path, ", ".join(f"{name} {value}" for name, value in found.items()))
        values |= found
    return config_class(**(values | flags))


def _config_files(config: str | None, dataset: str, published: Path | None) -> list[Path]:
    """published: the folder of the published settings."""
    if config is None:
        return []
    if published is None or Path(config).is_file() or (config != "paper" and not config.startswith("paper/")):
        return [Path(config)]
    name = config.removeprefix("paper").removeprefix("/")
    own = published / f"{name or sample_folder(Path(dataset)).name.removesuffix('.h5ad')}.yaml"
    if name and not own.exists():
        known = ", ".join(sorted(path.stem for path in published.glob("*.yaml")))
        raise UserError(f"There are no published settings for {name!r}; there are some for {known}.")
    return list(dict.fromkeys([published / "any.yaml", *([own] if own.exists() else [])]))


def parse(config_class: type[Settings], description: str, **flags: str) -> Any:
    """Settings from the command line. flags: further ones, each a short way of writing --dataset, with its help."""
    parser = build_parser(config_class, description)
    for name, help in flags.items():
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=help)
    given = vars(parser.parse_args())
    for name in flags:
        if given.pop(name, False):
            if "dataset" in given:
                raise UserError(f"--{name} and --dataset were both given; leave one of them out.")
            given["dataset"] = name
    return load(config_class, given.pop("config"), given)


def read_yaml(path: Path, config_class: type[Settings]) -> dict[str, Any]:
    """The settings in a YAML file: its top level, or under 'settings' (an earlier run's config.yaml)."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file {path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    content = {} if content is None else content
    if isinstance(content, dict) and set(content) == {"settings", "provenance"}:
        content = content["settings"]
    if not isinstance(content, dict):
        raise UserError(f"The settings file {path} must hold 'name: value' lines.")
    unknown = sorted(set(map(str, content)) - {f.name for f in dataclasses.fields(config_class)})
    if unknown:
        raise UserError(f"The settings file {path} has an unknown setting {unknown[0]!r}; --help lists all of them.")
    return content


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a UserError's one sentence."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(f"{message[0].upper()}{message[1:]}; --help lists all flags.")


def build_parser(config_class: type[Settings], description: str) -> argparse.ArgumentParser:
    """One flag per field of the dataclass, in its groups; a flag not given is absent from the namespace."""
    parser = Parser(
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE|paper|paper/NAME" if config_class.published else "FILE",
        default=None,
        help="YAML file with settings (that of an earlier run repeats it)"
        + (", or the published settings" if config_class.published else ""),
    )
    hints, defaults = typing.get_type_hints(config_class), config_class()
    groups: dict[str, Any] = {}
    for f in dataclasses.fields(config_class):
        title, default = f.metadata["group"], getattr(defaults, f.name)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        shown = " ".join(map(str, default)) or "none" if isinstance(default, list) else default
        groups[title].add_argument(
            _flag(f.name), help=f"{f.metadata['help']} (default: {shown})", **_argument(hints[f.name], f.name)
        )
    if "seeds" in hints:
        groups["run"].add_argument("--seed", dest="seeds", type=_one_seed, metavar="N", help="this one seed alone")
    return parser


def _one_seed(text: str) -> list[int]:
    return [int(text)]


class _NumberOrList(argparse.Action):
    """--seeds 5 means how many, --seeds 5 15 which: a single value is stored as a number."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def _argument(hint: Any, name: str) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    if typing.get_origin(hint) is Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        action = {"action": _NumberOrList} if name == "seeds" else {}
        return action | {"type": item, "nargs": "+", "metavar": "NAME" if item is str else "N"}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": hint, "metavar": {int: "N", float: "X"}.get(hint, name.upper())}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """value as the field's type, or UserError; YAML reads 1e-3 as text and 2 as int where float is meant."""
    wrong = UserError(f"The setting {name} does not take the value {value!r}.")
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise UserError(
                f"The setting {name} does not take the value {value!r}; it takes {', '.join(typing.get_args(hint))}."
            )
        return value
    if typing.get_origin(hint) is list:
        items = value if isinstance(value, (list, tuple)) else [value]
        return [_coerce(name, item, typing.get_args(hint)[0]) for item in items]
    if hint is str and isinstance(value, (str, numbers.Real, Path)) and not isinstance(value, bool):
        if "\0" in str(value):  # no file and no column has such a name
            raise wrong
        return str(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if number - number == 0 and (hint is float or number == int(number)):
            return hint(number)
    raise wrong
