"""Scores of the default recipe and of simple baselines on labelled data sets.

    python benchmarks/accuracy.py --datasets a.h5ad b.h5ad --seeds 5 15 25 --csv scores.csv

One row per data set, method and seed goes to the CSV as soon as it is known; a second
call with the same CSV continues where the first one ended, so take a new CSV after a
change of the recipe. All methods get the number of known types and nothing else of the
labels. The baselines work on the 50 PCs of the scaled HVGs that the recipe computes,
plain and with rows of unit length; 'tied GMM (20)' is the recipe's own mixture, which
sees the first 20 of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cluster  # noqa: E402
import data  # noqa: E402
import pipeline  # noqa: E402
import preprocess  # noqa: E402
from config import SCConfig  # noqa: E402
from score import METRICS, score  # noqa: E402
from utils import log, run_script  # noqa: E402


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
RECIPES = {"scRCL": {}, "scRCL, encoder alone": {"embedding": "encoder"}}
METHODS = [*RECIPES, *(f"{rows} + {name}" for rows in ("PCA", "unit PCA") for name in BASELINES)]


def labels_of(method: str, path: str, seed: int) -> tuple[pd.Series, pd.Series]:
    """Predicted and known labels of one run."""
    adata = data.read(data.find_h5ad(path))
    if method in RECIPES:
        result = pipeline.find_cell_types(adata, SCConfig(seeds=[seed], **RECIPES[method]))
        return result.labels["scrcl"], result.prepared.known
    defaults = SCConfig()
    cells = preprocess.preprocess(data.find_expression(adata), defaults.n_top_genes)
    pcs = preprocess.principal_components(preprocess.encoder_values(cells, "scaled"), defaults.n_pcs)
    known = data.find_labels(cells.obs)
    rows, name = method.split(" + ")
    points = normalize(pcs) if rows == "unit PCA" else pcs
    return pd.Series(BASELINES[name](points, known.nunique(), seed), index=cells.obs_names).astype(str), known


def run(datasets: list[str], seeds: list[int], methods: list[str], csv: Path) -> pd.DataFrame:
    """Score every combination that the CSV does not hold yet."""
    done = pd.read_csv(csv) if csv.exists() else pd.DataFrame(columns=["dataset", "method", "seed", *METRICS])
    known_runs = set(zip(done["dataset"], done["method"], done["seed"]))
    for path in datasets:
        for seed in seeds:
            for method in methods:
                name = data.dataset_name(path)
                if (name, method, seed) in known_runs:
                    continue
                found = score(*labels_of(method, path, seed))
                row = pd.DataFrame(
                    [{"dataset": name, "method": method, "seed": seed, **{m: round(found[m], 4) for m in METRICS}}]
                )
                row.to_csv(csv, mode="a", header=not csv.exists(), index=False)
                log.info("%s", row.to_string(header=False, index=False))
    return pd.read_csv(csv)


def table(rows: pd.DataFrame, metric: str) -> str:
    """A Markdown table: a row per data set and their mean, a column per method, mean ± sd over seeds."""
    order = [m for m in METHODS if m in set(rows["method"])]
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
    parser.add_argument("--datasets", nargs="+", required=True, metavar="NAME|PATH")
    parser.add_argument("--seeds", nargs="+", type=int, default=[5, 15, 25])
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)}"
    )
    parser.add_argument("--csv", type=Path, required=True)
    args = parser.parse_args()
    rows = run(args.datasets, args.seeds, args.methods, args.csv)
    print("\n\n".join(table(rows, metric) for metric in ("ARI", "NMI", "ACC", "F1")))


if __name__ == "__main__":
    sys.exit(run_script(main))
