"""Scores of the recipe, of its parts, and of baselines on labelled data sets.

    python benchmarks/accuracy.py --datasets a.h5ad b.h5ad --csv scores.csv
    python benchmarks/accuracy.py --task ST --datasets 151510 c.h5ad --csv spatial.csv
    python benchmarks/accuracy.py --suite ablation --datasets a.h5ad --seeds 5 15 --csv ablation.csv
    python benchmarks/accuracy.py --input half-counts --datasets a.h5ad --csv harder.csv
    python benchmarks/accuracy.py --tables scores.csv spatial.csv ablation.csv harder.csv > docs/RESULTS.md

A row per data set, method and seed goes to the CSV as soon as it is known; a second call with the
same CSV continues where the first one ended, so take a new CSV after a change of the recipe. All
methods get the number of known labels and nothing else of the labels, but for 'oracle', which
picks its epoch by them and is no result. The recipe with five seeds from a given one, s, s + 1, ...,
is one row, and each of its seeds one of 'scRCL, one seed'. Baselines work on the 50 PCs of the
scaled HVGs that the recipe computes: for cells plain and with rows of unit length, for spots plain and
as means over the neighbours of the recipe's graph; '(20)' means the first 20 of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import lru_cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import accuracy_tables  # noqa: E402

import cluster  # noqa: E402
import config  # noqa: E402
import data  # noqa: E402
import graphs  # noqa: E402
import pipeline  # noqa: E402
import spatial  # noqa: E402
import train  # noqa: E402
from config import SCConfig, STConfig  # noqa: E402
from score import METRICS, score  # noqa: E402
from utils import Stopwatch, UserError, limited_threads, log, run_script  # noqa: E402

N_INIT = 10  # starts of the baselines; the best by its own objective is kept
CONFIGS = {"SC": SCConfig, "ST": STConfig}
SEEDS_OF_A_CONSENSUS = 5
ORACLE_EVERY = 10  # epochs at which the oracle looks
# Sets that have published settings by another name
PUBLISHED_AS = {"Zeisel_4000genes": "paper/Zeisel", "Baron_human1": "paper/Baron_human"}
CPU = torch.device("cpu")

# Baselines: points [N, d], number of clusters and seed to labels [N]


def kmeans(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit_predict(points)


def mixture(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    model = GaussianMixture(n_clusters, covariance_type="tied", n_init=N_INIT, max_iter=200, random_state=seed)
    return model.fit_predict(points)


def leiden_1(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return cluster.leiden(cluster.neighbour_graph(points, seed), 1.0, seed)


BASELINES = {
    "k-means": kmeans,
    "tied GMM": mixture,
    "tied GMM (20)": lambda points, k, seed: mixture(cluster.leading_components(points, 20), k, seed),
    "Leiden": lambda points, k, seed: cluster.cluster(points, k, "leiden", seed),
    "Leiden, resolution 1": leiden_1,
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
# The recipe with one thing changed
PARTS = {
    "as it is": {},
    "encoder alone": {"embedding": "encoder"},
    "refined alone": {"embedding": "refined"},
    "PCs alone": {"embedding": "pcs"},
    "refined beside the PCs": {"embedding": "joint-refined"},
    "k-means": {"cluster_method": "kmeans"},
    "Leiden": {"cluster_method": "leiden"},
    "no CVC": {"lambda2": 0},
    "no NDC": {"lambda1": 0},
    "no HEA": {"hea_global": False, "hea_cell": False},
    "no HEA, global": {"hea_global": False},
    "no HEA, cell": {"hea_cell": False},
    "input not centred": {"encoder_input": "uncentred"},
    "hops 5 0": {"hops": [5, 0]},
    "k 30": {"n_neighbors": 30},
    "H 64": {"hidden": 64},
    "rows of E at unit length": {"shortened": False},
    **{f"{n} epoch{'s' * (n > 1)}": {"epochs": n, "plateau": 0} for n in (1, 20, 100, 200, 300, 500)},
}
CVC_AS_PUBLISHED = {"consistency": "published"}
CVC_FITTED = {"consistency": "scale-free"}
ABLATION = {
    "SC": PARTS
    | {
        "joint always": {"embedding": "joint"},
        "20 dimensions": {"mixture_dims": [20]},
        "30 dimensions": {"mixture_dims": [30]},
        "joint always, 20 dimensions": {"embedding": "joint", "mixture_dims": [20]},
        "CVC as published": CVC_AS_PUBLISHED,
        "CVC and K' as published": CVC_AS_PUBLISHED | {"refined_width": 0},
        "refined beside the PCs, CVC as published": CVC_AS_PUBLISHED | {"embedding": "joint-refined"},
        "refined beside the PCs, CVC and K' as published": CVC_AS_PUBLISHED
        | {"embedding": "joint-refined", "refined_width": 0},
        "genes seen in any cell": {"min_cells": 1},
        "normalised to the median": {"target_sum": "median"},
        "K' = K": {"refined_width": 0},
        "K' 32": {"refined_width": 32},
        "K' 128": {"refined_width": 128},
        "t 0.1": {"temperature": 0.1},
        "cosine graph": {"metric": "cosine"},
        "graph on genes": {"graph_on": "genes"},
    },
    "ST": PARTS
    | {
        "equal gene weights": {"gene_weights": "none"},
        "t 1": {"temperature": 1.0},
        "K' 64": {"refined_width": 64},
        "K' 64, scale-free CVC": CVC_FITTED | {"refined_width": 64},
        "refined beside the PCs, K' 64, scale-free CVC": CVC_FITTED
        | {"embedding": "joint-refined", "refined_width": 64},
    },
}
UNWEIGHTED = {"SC": {}, "ST": {"gene_weights": "none"}}
SUITES = {
    task: {
        "main": ["scRCL", *(f"{points} + {name}" for points in POINTS[task] for name in BASELINES)],
        "ablation": list(ABLATION[task]),
        "published": ["published settings, last epoch"],
        "number": ["number: estimated", "number: Leiden, resolution 1"],
    }
    for task in CONFIGS
}
TRAINED: dict = {"of": None}  # what the last data set was trained to, by settings, so that nothing is trained twice
PREPARING = (
    "target_sum",
    "min_cells",
    "graph_on",
    "metric",
    "n_neighbors",
    "encoder_input",
    "gene_weights",
    "hvg_flavor",
    "n_top_genes",
    "refine_neighbors",
)

# Harder input: counts [N, G] to other values


def thinned(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    adata.X.data = rng.binomial(adata.X.data.astype(int), 0.5).astype(np.float32)
    adata.X.eliminate_zeros()
    return adata


def drawn(adata: ad.AnnData, rng: np.random.Generator, n_cells: int) -> ad.AnnData:
    return adata[np.sort(rng.choice(adata.n_obs, n_cells, replace=False))].copy()


def per_million(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    sc.pp.normalize_total(adata, target_sum=1e6)
    return adata


def log_normalised(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def dominated(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """All cells of the largest type, and so many of the others that it has 65 %; types left with fewer than 5 cells are taken out."""
    known = data.find_labels(adata.obs)
    largest = (known == known.value_counts().index[0]).to_numpy()
    others = np.flatnonzero(~largest)
    chosen = rng.choice(others, min(len(others), int(largest.sum() * 0.35 / 0.65)), replace=False)
    part = adata[np.sort(np.append(np.flatnonzero(largest), chosen))]
    sizes = known[part.obs_names].astype(str).value_counts()
    kept = part[known[part.obs_names].astype(str).map(sizes).to_numpy() >= 5].copy()
    kept.obs[known.name] = kept.obs[known.name].astype(str)
    return kept


def mixed(adata: ad.AnnData, draw: int) -> ad.AnnData:
    """Some of the types, 4 at least, in drawn proportions; as many cells as there are of each for that, 1,500 at most. Types left with under 6 cells are taken out."""
    rng = np.random.default_rng(draw)
    known = data.find_labels(adata.obs).astype(str)
    sizes = known.value_counts()
    types = rng.permutation(sizes.index[sizes >= 12])
    types = types[: rng.integers(min(4, len(types)), len(types) + 1)]
    shares = rng.dirichlet(np.full(len(types), 0.7)) + 0.01
    shares /= shares.sum()
    n_cells = np.clip(3 * (sizes[types] / shares).min(), 150, 1500)
    wanted = np.minimum(sizes[types], (shares * n_cells).astype(int))
    places = [
        rng.choice(np.flatnonzero(known == name), n, replace=False)
        for name, n in zip(types, wanted, strict=True)
        if n >= 6
    ]
    part = adata[np.sort(np.concatenate(places))].copy()
    part.obs[known.name] = known[part.obs_names]
    return part


INPUTS = {
    "as it is": lambda adata, rng: adata,
    "half-counts": thinned,
    "half-cells": lambda adata, rng: drawn(adata, rng, adata.n_obs // 2),
    "hundred-cells": lambda adata, rng: drawn(adata, rng, min(100, adata.n_obs)),
    "per-million": per_million,
    "log-normalised": log_normalised,
    "dominated": dominated,
    **{f"mixed-{draw}": lambda adata, rng, draw=draw: mixed(adata, draw) for draw in (1, 2, 3)},
}


@lru_cache(maxsize=1)
def read(task: str, dataset: str, changed: str) -> ad.AnnData:
    if task == "SC":
        adata = data.read(data.find_h5ad(dataset))
    else:
        adata = spatial.read(spatial.find(dataset), spatial.dataset_name(dataset))
    if changed != "as it is":
        adata = ad.AnnData(adata.X.tocsr().astype(np.float32), obs=adata.obs, var=adata.var[[]], obsm=adata.obsm)
    return INPUTS[changed](adata, np.random.default_rng(0))


@lru_cache(maxsize=2)
def _prepared(task: str, dataset: str, changed: str, settings: str) -> pipeline.Prepared:
    prepare = pipeline.prepare_cells if task == "SC" else pipeline.prepare_spots
    return prepare(read(task, dataset, changed), CONFIGS[task](**json.loads(settings)), Stopwatch())


def prepared(task: str, dataset: str, changed: str, settings: dict) -> pipeline.Prepared:
    """The data set as the settings prepare it; the last ones are kept."""
    relevant = {name: value for name, value in sorted(settings.items()) if name in PREPARING}
    return _prepared(task, dataset, changed, json.dumps(relevant))


def recipe(task: str, ready: pipeline.Prepared, change: dict, seeds: list[int]) -> dict[str, pd.Series]:
    """Labels of the recipe with a change: of the consensus, '', and of every seed."""
    change = dict(change)
    plain_total, plain_fit, plain_rows = train.Losses.total, train.fit, pipeline.shortened_rows
    shortened = change.pop("shortened", True)
    off = [name for name in ("hea_global", "hea_cell") if change.pop(name, None) is False]

    def total(terms: train.Losses, lambda1: float, lambda2: float) -> torch.Tensor:
        gone = {name: getattr(terms, name) * 0 for name in off}
        return plain_total(terms._replace(**gone), lambda1, lambda2)

    def fit(inputs: train.GraphInputs, **settings) -> train.Fitted:
        key = json.dumps(
            [off, change.get("hops"), {k: v for k, v in settings.items() if k not in ("on_epoch", "checkpoints")}]
        )
        if key not in TRAINED:
            TRAINED[key] = plain_fit(inputs, **settings)
        return TRAINED[key]

    if TRAINED["of"] is not ready:
        TRAINED.clear()
        TRAINED["of"] = ready
    train.Losses.total, train.fit = total if off else plain_total, fit
    pipeline.shortened_rows = plain_rows if shortened else lambda encoder, lengths: encoder
    try:
        found = pipeline.train_and_cluster(
            ready, CONFIGS[task](seeds=seeds, **change), CPU, lambda _: None, Stopwatch()
        )
    finally:
        train.Losses.total, train.fit, pipeline.shortened_rows = plain_total, plain_fit, plain_rows
    return {"": found.labels["scrcl"], **{str(seed): found.labels[f"seed_{seed}"] for seed in seeds}}


def published(task: str, dataset: str, seed: int) -> dict[str, pd.Series]:
    """Labels by the published settings: of the last epoch, and of the epoch that the known labels like best."""
    of = PUBLISHED_AS.get(data.dataset_name(dataset), "paper")
    settings = config.load(CONFIGS[task], of, {"dataset": dataset, "seeds": [seed]})
    ready = prepared(task, dataset, "as it is", vars(settings))
    genes = graphs.gene_graph(ready.inputs, settings.gene_neighbors)
    inputs = train.graph_inputs(ready.inputs, ready.cells.obsp["scrcl_graph"], genes, settings.hops, CPU)
    torch.manual_seed(seed)
    width = settings.refined_width or ready.n_clusters
    model = train.ScRCL(*inputs.view1.shape, settings.hidden, width, settings.dropout)
    optimizer = train.adam(model, settings.lr, settings.weight_decay)
    by, best = ("NMI" if task == "SC" else "ARI"), -1.0
    for epoch in range(1, settings.epochs + 1):
        train.step(model, inputs, optimizer, settings.temperature, settings.lambda1, settings.lambda2)
        if epoch % ORACLE_EVERY == 0:
            found = cluster.cluster(train.embed(model, inputs).refined, ready.n_clusters, "kmeans", seed)
            labels = pd.Series(pipeline.smooth(found, ready.voters), index=ready.cells.obs_names).astype(str)
            likes = score(labels, ready.known)[by]
            if likes > best:
                best, oracle = likes, labels
    return {"": labels, "oracle": oracle}


def labels_of(task: str, dataset: str, changed: str, method: str, seed: int) -> tuple[dict, pd.Series]:
    """Predicted labels, by (method, seed) as they are reported, and known labels of one run."""
    if method.startswith("published"):
        found = published(task, dataset, seed)
        known = prepared(task, dataset, changed, {}).known
        return {(method, seed): found[""], ("published settings, oracle epoch", seed): found["oracle"]}, known
    change = ABLATION[task].get(method, {})
    if method.startswith(tuple(POINTS[task])):
        change = UNWEIGHTED[task]  # baselines see genes as users of them would
    ready = prepared(task, dataset, changed, change)
    if method == "scRCL":
        found = recipe(task, ready, {}, list(range(seed, seed + SEEDS_OF_A_CONSENSUS)))
        return {
            (method if of == "" else "scRCL, one seed", int(of or seed)): labels for of, labels in found.items()
        }, ready.known
    if method in ABLATION[task]:
        return {(method, seed): recipe(task, ready, change, [seed])[""]}, ready.known
    if method.startswith("number"):
        points, graph = ready.beside, ready.cells.obsp["scrcl_graph"]
        if "estimated" in method:
            estimate = cluster.estimate_of_cells if task == "SC" else cluster.estimate_n_clusters
            number = estimate(points, graph, seed)
        else:
            number = leiden_1(points, 0, seed).max() + 1
        return {(method, seed): int(number)}, ready.known
    points, name = method.split(" + ")
    labels = BASELINES[name](POINTS[task][points](ready), ready.known.nunique(), seed)
    labels = pipeline.smooth(labels, ready.voters)
    return {(method, seed): pd.Series(labels, index=ready.cells.obs_names).astype(str)}, ready.known


def row_of(found: pd.Series | int, known: pd.Series) -> dict:
    """Scores; recall of every type and its number of cells as JSON; or a number of clusters alone."""
    if isinstance(found, int):
        return dict.fromkeys(METRICS) | {"n_clusters": found, "n_types": known.nunique(), "recall": "{}"}
    scores = score(found, known)
    sizes = known.astype(str)[known.notna()].value_counts()
    recall = {name: [int(sizes[name]), round(value, 4)] for name, value in scores["recall"].items()}
    return {m: round(scores[m], 4) for m in METRICS} | {
        "n_clusters": found.nunique(), "n_types": known.nunique(), "recall": json.dumps(recall),
    }  # fmt: skip


def run(task: str, datasets: list[str], changed: str, seeds: list[int], methods: list[str], csv: Path) -> None:
    """Score every combination that the CSV does not hold yet."""
    key = ["task", "dataset", "input", "method", "seed"]
    done = set(pd.read_csv(csv)[key].itertuples(index=False, name=None)) if csv.exists() else set()
    for dataset in datasets:
        for method in methods:
            for seed in seeds:
                name = data.dataset_name(dataset)
                if (task, name, changed, method, seed) in done:
                    continue
                start = time.perf_counter()
                found, known = labels_of(task, dataset, changed, method, seed)
                seconds = round(time.perf_counter() - start, 1)
                rows = [
                    dict(zip(key, (task, name, changed, *of))) | row_of(labels, known) | {"seconds": seconds}
                    for of, labels in found.items()
                ]
                pd.DataFrame(rows).to_csv(csv, mode="a", header=not csv.exists(), index=False)
                log.info("%s", {name: value for name, value in rows[0].items() if name != "recall"})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--task", choices=CONFIGS, default="SC")
    parser.add_argument(
        "--suite", choices=SUITES["SC"], default="main", help="which methods; --methods names single ones"
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME|PATH")
    parser.add_argument("--input", choices=INPUTS, default="as it is", help="harder input made from counts")
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
    sys.exit(run_script(main))
