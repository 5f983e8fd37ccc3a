"""Scores of the recipe, of its parts, and of baselines on labelled data sets.

    python -m benchmarks.accuracy --datasets a.h5ad b.h5ad --csv scores.csv
    python -m benchmarks.accuracy --task ST --datasets 151510 c.h5ad --csv spatial.csv
    python -m benchmarks.accuracy --suite ablation --datasets a.h5ad --seeds 5 15 --csv ablation.csv
    python -m benchmarks.accuracy --input half-counts --datasets a.h5ad --csv harder.csv
    python -m benchmarks.accuracy --tables scores.csv spatial.csv ablation.csv harder.csv > docs/RESULTS.md

A row per data set, method and seed goes to the CSV as soon as it is known. A second call with the same CSV continues
where the first one ended, so take a new CSV after a change of the recipe. All methods get the number of known labels
and nothing else of the labels, but for 'oracle', which picks its epoch by them and is no result. The recipe with five
seeds from a given one, s, s + 1, ..., is one row, and each of its seeds one of 'scRCL, one seed'. Baselines work on the
50 PCs of the scaled HVGs that the recipe computes: for cells plain and with rows of unit length, for spots plain and as
means over the neighbours of the recipe's graph; '(20)' means the first 20 of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

from benchmarks import accuracy_tables, runs
from benchmarks.datasets import AS_IT_IS, INPUTS, DataSet, forget, prepared
from benchmarks.variants import RECIPE, VARIANTS
from scrcl.cluster.methods import leiden
from scrcl.cluster.methods.mixture import leading_components
from scrcl.cluster.number import estimate
from scrcl.cluster.scores import METRICS, score
from scrcl.commands.script import guarded
from scrcl.keys import PCS, SPATIAL_PCS
from scrcl.messages import UserError, log
from scrcl.prepare.prepared import Prepared
from scrcl.readers.find import dataset_name
from scrcl.recipes import RECIPES, CellSettings, Task, TissueSettings
from scrcl.runtime import limited_threads
from scrcl.settings import load

N_INIT = 10  # starts of the baselines; the best by its own objective is kept
SEEDS_OF_A_CONSENSUS = 5
# Sets that have published settings by another name
PUBLISHED_AS = {"Zeisel_4000genes": "paper/Zeisel", "Baron_human1": "paper/Baron_human"}

# Baselines: points [N, d], number of clusters and seed to labels [N]


def kmeans(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The best of several k-means."""
    return KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit_predict(points)


def mixture(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The likeliest of several Gaussian mixtures of tied covariance."""
    points = np.asarray(points, dtype=np.float64)
    model = GaussianMixture(n_clusters, covariance_type="tied", n_init=N_INIT, max_iter=200, random_state=seed)
    return model.fit_predict(points)


def leiden_1(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Leiden at scanpy's own resolution, whatever number of clusters that gives."""
    return leiden.at_resolution(leiden.neighbour_graph(points, seed), 1.0, seed)


BASELINES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "k-means": kmeans,
    "tied GMM": mixture,
    "tied GMM (20)": lambda points, k, seed: mixture(leading_components(points, 20), k, seed),
    "Leiden": leiden.cluster,
    "Leiden, resolution 1": leiden_1,
}
POINTS: dict[Task, dict[str, Callable[[Prepared], np.ndarray]]] = {
    "SC": {
        "PCA": lambda found: found.cells.obsm[PCS],
        "unit PCA": lambda found: normalize(found.cells.obsm[PCS]),
    },
    "ST": {
        "PCA": lambda found: found.cells.obsm[PCS],
        "neighbour-mean PCA": lambda found: found.cells.obsm[SPATIAL_PCS],
    },
}
# How baselines' data are prepared: with genes as users of baselines see them
UNWEIGHTED: dict[Task, dict[str, Any]] = {"SC": {}, "ST": {"gene_weights": "none"}}
OURS, ONE_SEED = "scRCL", "scRCL, one seed"
PUBLISHED, ORACLE = "published settings, last epoch", "published settings, oracle epoch"
ESTIMATED, OF_LEIDEN = "number: estimated", "number: Leiden, resolution 1"
SUITES = {
    task: {
        "main": [OURS, *(f"{points} + {name}" for points in POINTS[task] for name in BASELINES)],
        "ablation": list(VARIANTS[task]),
        "published": [PUBLISHED],
        "number": [ESTIMATED, OF_LEIDEN],
    }
    for task in RECIPES
}
KEY = ["task", "dataset", "input", "method", "seed"]  # columns that say which run a row is of
# Labels, or a number of clusters, by method and seed as they are reported
Found = dict[tuple[str, int], pd.Series | int]


def found_by(task: Task, dataset: str, kind: str, method: str, seed: int) -> tuple[Found, pd.Series]:
    """What a method finds in one run, and the known labels."""
    found: Found
    if method in VARIANTS[task]:
        variant = VARIANTS[task][method]
        data = prepared(task, dataset, kind, variant.settings)
        found = {(method, seed): runs.of_recipe(data, variant, [seed])[""]}
    elif method == OURS:
        data = prepared(task, dataset, kind, {})
        labels = runs.of_recipe(data, RECIPE, list(range(seed, seed + SEEDS_OF_A_CONSENSUS)))
        found = {(ONE_SEED if of else OURS, int(of or seed)): own for of, own in labels.items()}
    elif method == PUBLISHED:
        settings = published_settings(task, dataset, seed)
        data = prepared(task, dataset, kind, vars(settings))
        last, oracle = runs.as_published(data, settings, seed)
        found = {(PUBLISHED, seed): last, (ORACLE, seed): oracle}
    elif method in SUITES[task]["number"]:
        data = prepared(task, dataset, kind, {})
        found = {(method, seed): number_of_clusters(data, method, seed)}
    else:
        data = prepared(task, dataset, kind, UNWEIGHTED[task])
        found = {(method, seed): baseline(data, method, seed)}
    return found, data.prepared.known


def published_settings(task: Task, dataset: str, seed: int) -> CellSettings | TissueSettings:
    """Those of this data set, or those for any other."""
    of = PUBLISHED_AS.get(dataset_name(dataset), "paper")
    return load(RECIPES[task], of, {"dataset": dataset, "seeds": [seed]})


def number_of_clusters(data: DataSet, method: str, seed: int) -> int:
    """A number of clusters that no label has a part in."""
    if method == ESTIMATED:
        return estimate(data.prepared, RECIPES[data.task](), seed).n
    return int(leiden_1(data.prepared.pcs, 0, seed).max() + 1)


def baseline(data: DataSet, method: str, seed: int) -> pd.Series:
    """Labels of a baseline, 'points + method'."""
    points, name = method.split(" + ")
    found = BASELINES[name](POINTS[data.task][points](data.prepared), data.prepared.known.nunique(), seed)
    return runs.as_labels(found, data.prepared)


def row_of(found: pd.Series | int, known: pd.Series) -> dict[str, Any]:
    """Scores; recall of every type and its number of cells as JSON; or a number of clusters alone."""
    if isinstance(found, int):
        return dict.fromkeys(METRICS) | {"n_clusters": found, "n_types": known.nunique(), "recall": "{}"}
    scores = score(found, known)
    sizes = known.astype(str)[known.notna()].value_counts()
    recall = {name: [int(sizes[name]), round(value, 4)] for name, value in scores["recall"].items()}
    numbers = {"n_clusters": found.nunique(), "n_types": known.nunique(), "recall": json.dumps(recall)}
    return {metric: round(scores[metric], 4) for metric in METRICS} | numbers


def run(task: Task, datasets: list[str], kind: str, seeds: list[int], methods: list[str], csv: Path) -> None:
    """Score every combination that the CSV does not hold yet."""
    done = set(pd.read_csv(csv)[KEY].itertuples(index=False, name=None)) if csv.exists() else set()
    for dataset in datasets:
        forget()
        for method, seed in ((method, seed) for method in methods for seed in seeds):
            which = task, dataset_name(dataset), kind
            if (*which, method, seed) in done:
                continue
            start = time.perf_counter()
            found, known = found_by(task, dataset, kind, method, seed)
            seconds = {"seconds": round(time.perf_counter() - start, 1)}
            rows = [dict(zip(KEY, (*which, *of))) | row_of(own, known) | seconds for of, own in found.items()]
            pd.DataFrame(rows).to_csv(csv, mode="a", header=not csv.exists(), index=False)
            log.info("%s", {name: value for name, value in rows[0].items() if name != "recall"})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--task", choices=RECIPES, default="SC")
    parser.add_argument(
        "--suite", choices=SUITES["SC"], default="main", help="which methods; --methods names single ones"
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME|PATH")
    parser.add_argument("--input", choices=INPUTS, default=AS_IT_IS, help="harder input made from counts")
    parser.add_argument("--seeds", nargs="+", type=int, default=[5, 15, 25])
    parser.add_argument("--methods", nargs="+", metavar="METHOD")
    parser.add_argument("--csv", type=Path)
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads, 0 for all; of two runs at a time give each its own"
    )
    parser.add_argument(
        "--tables", nargs="+", type=Path, metavar="CSV", help="print the tables of these and draw the figures"
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.tables:
        print(accuracy_tables.document(pd.concat(map(pd.read_csv, args.tables))))
        return
    if not args.datasets or not args.csv:
        raise UserError("Runs need --datasets and --csv; tables --tables.")
    known_methods = [method for methods in SUITES[args.task].values() for method in methods]
    unknown = set(args.methods or []) - set(known_methods)
    if unknown:
        raise UserError(f"--methods takes {', '.join(known_methods)}, not {', '.join(unknown)}.")
    methods = args.methods or SUITES[args.task][args.suite]
    with limited_threads(args.threads):
        run(args.task, args.datasets, args.input, args.seeds, methods, args.csv)


if __name__ == "__main__":
    sys.exit(guarded(main))
