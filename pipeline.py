"""The whole analysis as one function call on an AnnData in memory."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from scipy import sparse

import cluster
import data
import graphs
import preprocess
import score
import train
from config import SCConfig
from utils import VERSION, Stopwatch, UserError, find_device, limited_threads, log

LIBRARIES = ("torch", "torch_geometric", "scanpy", "anndata", "numpy", "scipy", "scikit-learn", "igraph")
PCS_FROM = 10_000  # cells from which the published cell graph is built on PCs instead of genes


@dataclass
class Result:
    """What a run found.

    cells: AnnData of the cells that have counts; X log-normalised, layers['counts']
        (if the input holds counts), obsm['X_scrcl'] the embedding that was
        clustered, obsm['X_pca'], obsp['scrcl_graph'] the cell graph, obs['scrcl']
        and obs['scrcl_seed_S'] labels, uns['scrcl'] parameters and versions.
    labels: one row per cell of the input, in its order, indexed by barcode; columns
        seed_S for every seed S, and last scrcl, the final labels; missing for
        cells without counts.
    known: known types of cells, or None.
    scores: per seed, and 'scrcl' for the final labels, as score.score returns; empty without known types.
    """

    config: Any
    cells: ad.AnnData
    labels: pd.DataFrame
    known: pd.Series | None
    n_clusters: int
    n_clusters_from: str
    values: str
    final_seed: int
    device: str
    state_dict: dict[str, torch.Tensor]
    history: list[dict[str, float]] = field(default_factory=list)
    scores: dict[str, dict] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def seeds(self) -> list[str]:
        """Column names of the single runs in labels."""
        return [name for name in self.labels if name != "scrcl"]


def find_cell_types(
    adata: ad.AnnData,
    config: SCConfig | None = None,
    *,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
    watch: Stopwatch | None = None,
    **settings: Any,
) -> Result:
    """Find cell types in scRNA-seq data with scRCL.

    adata: cells x genes, in X, a layer or .raw: counts, TPM or log-normalised
        values, sparse or dense. It receives obs['scrcl'] (categorical of strings,
        missing for cells without counts), obsm['X_scrcl'] and uns['scrcl']; all
        else of it stays as it is.
    config, settings: an SCConfig, or its fields by name, e.g. seeds=[5, 15], n_clusters=8.
    on_epoch: called with the losses after every training epoch.
    watch: collects the seconds of every stage.

    Known types are used for two things only: their number, when n_clusters is
    'auto', and scores of the finished labels.
    Raises UserError for input that cannot be used.
    """
    config = dataclasses.replace(config or SCConfig(), **settings)
    watch = watch or Stopwatch()
    device = find_device(config.device)
    with limited_threads(config.threads):
        with watch("preprocess"):
            expression = data.find_expression(adata, config.layer)
            known = data.find_labels(expression.cells.obs, config.label_key)
            cells = preprocess.preprocess(expression, config.n_top_genes, config.n_pcs, seed=0)
            values = preprocess.encoder_values(cells, config.encoder_input)
        known = None if known is None else known.loc[cells.obs_names]
        with watch("graphs"):
            cells.obsp["scrcl_graph"] = graphs.cell_graph(
                _graph_points(cells, config), config.n_neighbors, config.metric, seed=0
            )
        with watch("number of clusters"):
            n_clusters, origin = choose_n_clusters(config.n_clusters, known, cells.obsm["X_pca"])
        result = train_and_cluster(cells, values, known, n_clusters, config, device, on_epoch, watch)
    result = dataclasses.replace(result, n_clusters_from=origin, values=f"{expression.kind}, in {expression.source}")
    result.labels = result.labels.reindex(adata.obs_names)
    describe(result)
    annotate(adata, result)
    return result


def _graph_points(cells: ad.AnnData, config: SCConfig) -> np.ndarray:
    """What the cell graph is built on: PCs, or log-normalised HVGs (below 10,000 cells, as published)."""
    on_genes = config.graph_on == "genes" and cells.n_obs < PCS_FROM
    return preprocess.encoder_values(cells, "lognorm") if on_genes else cells.obsm["X_pca"]


def choose_n_clusters(asked: str, known: pd.Series | None, points: np.ndarray) -> tuple[int, str]:
    """The number of clusters and, in words, where it comes from."""
    if asked != "auto":
        number, origin = int(asked), "as asked for"
    elif known is not None and known.nunique() > 1:
        number, origin = (
            known.nunique(),
            f"the number of known types in obs[{known.name!r}], as the published protocol does",
        )
    else:
        number, origin = cluster.estimate_n_clusters(points, seed=0), "estimated without labels"
    if number > len(points):
        raise UserError(
            f"{number} clusters were asked for, but only {len(points)} cells have counts; lower --n-clusters."
        )
    log.info("Clusters: %d, %s.", number, origin)
    return number, origin


def train_and_cluster(
    cells: ad.AnnData,
    values: np.ndarray,
    known: pd.Series | None,
    n_clusters: int,
    config: SCConfig,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
    watch: Stopwatch,
) -> Result:
    """Train and cluster once per seed; choose the final labels without labels; score last.

    cells: with obsp['scrcl_graph'] and obsm['X_pca']; values: [N, G] as the encoders see them.
    The final labels are those of the seed whose labels agree best with the other seeds'.
    """
    with watch("graphs"):
        inputs = train.graph_inputs(
            values, cells.obsp["scrcl_graph"], graphs.gene_graph(values, config.gene_neighbors), config.hops, device
        )
    history, labels, best = [], {}, {}
    for seed in config.seeds:
        with watch("train"):
            fitted = train.fit(
                inputs,
                seed=seed,
                refined_width=config.refined_width or n_clusters,
                on_epoch=on_epoch,
                **_training_settings(config),
            )
        with watch("cluster"):
            points = embedding(fitted, cells.obsm["X_pca"], config.embedding)
            labels[f"seed_{seed}"] = cluster.cluster(points, n_clusters, config.cluster_method, seed)
        history += fitted.history
        best[seed] = (points, {name: value.cpu() for name, value in fitted.model.state_dict().items()})
    final = config.seeds[cluster.most_agreeing(list(labels.values()))]
    labels = pd.DataFrame(labels, index=cells.obs_names).astype(str)
    labels["scrcl"] = labels[f"seed_{final}"]
    cells.obsm["X_scrcl"], state_dict = best[final]
    for name in labels:
        cells.obs["scrcl" if name == "scrcl" else f"scrcl_{name}"] = as_categories(labels[name])
    with watch("score"):
        scores = {} if known is None else {name: score.score(labels[name], known) for name in labels}
    return Result(
        config, cells, labels, known, n_clusters, "", "", final, str(device), state_dict, history, scores, watch.seconds
    )


def _training_settings(config: SCConfig) -> dict[str, Any]:
    names = ("hidden", "dropout", "epochs", "lr", "weight_decay", "temperature", "lambda1", "lambda2")
    return {name: getattr(config, name) for name in names}


def embedding(fitted: train.Fitted, pcs: np.ndarray, choice: str) -> np.ndarray:
    """What is clustered, [N, d] float32: 'encoder' [E1 | E2] or 'refined' [Z1 | Z2]."""
    return {"encoder": fitted.encoder, "refined": fitted.refined}[choice]


def add_umap(cells: ad.AnnData) -> None:
    """Write obsm['X_umap'] of obsm['X_scrcl'], with scanpy's neighbours in obsp['distances'] and obsp['connectivities']."""
    sc.pp.neighbors(cells, n_neighbors=min(15, cells.n_obs - 1), use_rep="X_scrcl", random_state=0)
    sc.tl.umap(cells, random_state=0)


def as_categories(labels: pd.Series) -> pd.Series:
    """Cluster numbers as a categorical of strings, in numeric order."""
    numbers = sorted(labels.dropna().unique(), key=int)
    return labels.astype(pd.CategoricalDtype(numbers))


def describe(result: Result) -> None:
    """Write uns['scrcl'] of the result's cells: parameters, versions, how many clusters and why."""
    result.cells.uns["scrcl"] = {
        "params": {name: value for name, value in dataclasses.asdict(result.config).items()},
        "versions": versions(),
        "n_clusters": result.n_clusters,
        "n_clusters_from": result.n_clusters_from,
        "values": result.values,
        "final_seed": result.final_seed,
        "device": result.device,
    }


def versions() -> dict[str, str]:
    """Versions of this software, Python and the libraries that decide the result."""
    return {"scrcl": VERSION, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def annotate(adata: ad.AnnData, result: Result) -> None:
    """Write the labels, the embedding (NaN for cells without counts) and the parameters into the caller's AnnData."""
    for name in result.labels:
        adata.obs["scrcl" if name == "scrcl" else f"scrcl_{name}"] = as_categories(result.labels[name])
    where = adata.obs_names.get_indexer(result.cells.obs_names)
    points = np.full((adata.n_obs, result.cells.obsm["X_scrcl"].shape[1]), np.nan, dtype=np.float32)
    points[where] = result.cells.obsm["X_scrcl"]
    adata.obsm["X_scrcl"] = points
    place = sparse.csr_matrix(
        (np.ones(len(where), np.float32), (where, np.arange(len(where)))), shape=(adata.n_obs, len(where))
    )
    adata.obsp["scrcl_graph"] = (place @ result.cells.obsp["scrcl_graph"] @ place.T).tocsr()
    adata.uns["scrcl"] = result.cells.uns["scrcl"]
