"""Scores of the default recipe and of simple baselines on labelled data sets.

    python benchmarks/accuracy.py --datasets a.h5ad b.h5ad --seeds 5 15 25 --csv scores.csv
    python benchmarks/accuracy.py --task ST --datasets 151510 c.h5ad --seeds 5 15 25 --csv spatial.csv

One row per data set, method and seed goes to the CSV as soon as it is known; a second
call with the same CSV continues where the first one ended, so take a new CSV after a
change of the recipe. All methods get the number of known labels and nothing else of the
labels. The baselines work on the 50 PCs of the scaled HVGs that the recipe computes:
for cells plain and with rows of unit length, for spots plain and as means over the
neighbours of the recipe's graph. 'tied GMM (20)' is the recipe's own mixture, which sees the
first 20 of them. For spots every method is scored with and without the recipe's smoothing of labels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cluster  # noqa: E402
import data  # noqa: E402
import pipeline  # noqa: E402
import spatial  # noqa: E402
from config import SCConfig, STConfig  # noqa: E402
from score import METRICS, score  # noqa: E402
from utils import Stopwatch, UserError, log, run_script  # noqa: E402


def kmeans(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return KMeans(n_clusters, n_init=cluster.N_INIT, random_state=seed).fit_predict(points)


def mixture(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    model = GaussianMixture(n_clusters, covariance_type="tied", n_init=cluster.N_INIT, max_iter=200, random_state=seed)
    return model.fit_predict(points)


BASELINES = {
    "k-means": kmeans,
    "tied GMM": mixture,
    "tied GMM (20)": lambda points, n_clusters, seed: cluster.cluster(points, n_clusters, "gmm", seed),
    "Leiden": lambda points, n_clusters, seed: cluster.cluster(points, n_clusters, "leiden", seed),
}
NOT_SMOOTHED = ", not smoothed"
RECIPES = {
    "SC": {"scRCL": {}, "scRCL, encoder alone": {"embedding": "encoder"}},
    "ST": {
        "scRCL": {},
        "scRCL, encoder alone": {"embedding": "encoder"},
        "scRCL, equal gene weights": {"gene_weights": "none"},
    },
}
POINTS = {
    "SC": {
        "PCA": lambda prepared: prepared.cells.obsm["X_pca"],
        "unit PCA": lambda prepared: normalize(prepared.cells.obsm["X_pca"]),
    },
    "ST": {
        "PCA": lambda prepared: prepared.cells.obsm["X_pca"],
        "neighbour-mean PCA": lambda prepared: prepared.cells.obsm["X_pca_spatial"],
    },
}
WEIGHTED = "weighted neighbour-mean PCA + tied GMM (20)"  # the recipe without its encoder
METHODS = {
    task: [*RECIPES[task], *(f"{points} + {name}" for points in POINTS[task] for name in BASELINES)] for task in RECIPES
}
METHODS["ST"].append(WEIGHTED)


def read(task: str, dataset: str) -> ad.AnnData:
    if task == "SC":
        return data.read(data.find_h5ad(dataset))
    return spatial.read(spatial.find(dataset), spatial.dataset_name(dataset))


def labels_of(task: str, method: str, dataset: str, seed: int) -> tuple[dict[str, pd.Series], pd.Series]:
    """Predicted labels, by what is added to the method's name, and known labels of one run."""
    adata = read(task, dataset)
    if method in RECIPES[task]:
        find = pipeline.find_cell_types if task == "SC" else pipeline.find_domains
        result = find(adata, seeds=[seed], **RECIPES[task][method])
        found = {"": result.labels["scrcl"], NOT_SMOOTHED: result.labels.get("scrcl_unsmoothed")}
        return {note: labels for note, labels in found.items() if labels is not None}, result.prepared.known
    if task == "SC":
        prepared = pipeline.prepare_cells(adata, SCConfig(), Stopwatch())
    else:
        weights = "spatial" if method == WEIGHTED else "none"
        prepared = pipeline.prepare_spots(adata, STConfig(gene_weights=weights), Stopwatch())
    points, name = method.removeprefix("weighted ").split(" + ")
    labels = BASELINES[name](POINTS[task][points](prepared), prepared.known.nunique(), seed)
    found = {"": labels}
    if prepared.voters is not None:
        found = {"": cluster.majority(labels, prepared.voters), NOT_SMOOTHED: labels}
    names = prepared.cells.obs_names
    return {note: pd.Series(labels, index=names).astype(str) for note, labels in found.items()}, prepared.known


def run(task: str, datasets: list[str], seeds: list[int], methods: list[str], csv: Path) -> pd.DataFrame:
    """Score every combination that the CSV does not hold yet."""
    done = pd.read_csv(csv) if csv.exists() else pd.DataFrame(columns=["dataset", "method", "seed", *METRICS])
    known_runs = set(zip(done["dataset"], done["method"], done["seed"]))
    for dataset in datasets:
        for seed in seeds:
            for method in methods:
                name = data.dataset_name(dataset)
                if (name, method, seed) in known_runs:
                    continue
                found, known = labels_of(task, method, dataset, seed)
                for note, labels in found.items():
                    scores = {m: round(value, 4) for m, value in score(labels, known).items() if m in METRICS}
                    row = pd.DataFrame([{"dataset": name, "method": method + note, "seed": seed, **scores}])
                    row.to_csv(csv, mode="a", header=not csv.exists(), index=False)
                    log.info("%s", row.to_string(header=False, index=False))
    return pd.read_csv(csv)


def table(rows: pd.DataFrame, metric: str, methods: list[str]) -> str:
    """A Markdown table: a row per data set and their mean, a column per method, mean ± sd over seeds."""
    order = [m for m in methods if m in set(rows["method"])]
    groups = rows.groupby(["dataset", "method"])[metric]
    mean, sd = (statistic.unstack()[order] for statistic in (groups.mean(), groups.std(ddof=1)))
    lines = [f"| {metric} | " + " | ".join(order) + " |", "|---|" + "---|" * len(order)]
    for name in dict.fromkeys(rows["dataset"]):
        best = mean.loc[name].max()
        shown = {m: f"**{value:.3f}**" if value == best else f"{value:.3f}" for m, value in mean.loc[name].items()}
        lines.append(f"| {name} | " + " | ".join(f"{shown[m]} ± {sd.loc[name, m]:.3f}" for m in order) + " |")
    lines.append("| mean | " + " | ".join(f"{mean[m].mean():.3f}" for m in order) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--task", choices=METHODS, default="SC")
    parser.add_argument("--datasets", nargs="+", required=True, metavar="NAME|PATH")
    parser.add_argument("--seeds", nargs="+", type=int, default=[5, 15, 25])
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help=f"of {METHODS}")
    parser.add_argument("--csv", type=Path, required=True)
    args = parser.parse_args()
    unknown = set(args.methods or []) - set(METHODS[args.task])
    if unknown:
        raise UserError(f"--methods takes {', '.join(METHODS[args.task])}, not {', '.join(unknown)}.")
    methods = args.methods or METHODS[args.task]
    rows = run(args.task, args.datasets, args.seeds, methods, args.csv)
    for note in ["", NOT_SMOOTHED] if args.task == "ST" else [""]:
        print("\n\n".join(table(rows, metric, [name + note for name in methods]) for metric in METRICS))


if __name__ == "__main__":
    sys.exit(run_script(main))
