"""The whole analysis as one function call on an AnnData in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from scipy import sparse

import backed
import cluster
import data
import graphs
import memory
import preprocess
import score
import spatial
import train
from checkpoints import Checkpoints
from config import Config, SCConfig, STConfig
from features import Features
from model import GraphInputs
from utils import VERSION, Stopwatch, find_device, limited_threads, log, matrix_products, release_memory

FINAL = "scrcl"  # column of the final labels
CONFIDENCE = "scrcl_confidence"  # column of how far the seeds agree with them
UNSMOOTHED = "_unsmoothed"  # ends the name of labels before they are smoothed in space
RUN_ONLY = (
    "dataset",
    "annotation",
    "output",
    "figures",
    "report",
    "checkpoint_every",
    "resume",
)  # settings of the entry script, without effect in a notebook
LIBRARIES = (
    "torch",
    "torch_geometric",
    "scanpy",
    "anndata",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "igraph",
    "pynndescent",
    "umap-learn",
)
UMAP_ON = 50_000  # cells; its layout takes one thread where it is to be repeatable
DEPTH_IS_FIRST_PC = 0.75  # R^2 of the first PC and the logarithm of the number of counts
PCS_FROM = 10_000  # cells from which the published cell graph is built on PCs instead of genes


@dataclass
class Prepared:
    """A data set as training needs it.

    cells: AnnData of the cells (or spots) that have counts, with X log-normalised, obsm['X_pca']
        and obsp['scrcl_graph'], the cell graph A.
    inputs: [N, G] float32, what the encoders see; sparse where the cells are worked on in blocks.
    beside: [N, d] float32, what stands beside the encoder's embedding in the joint one: the PCs, of few cells without_long_rows.
    known: known types of these cells, or None.
    n_clusters, n_clusters_from: how many clusters, and in words why.
    values: in words, what the values are and where they were found.
    voters: [N, N] sparse, row i marks the spots whose labels smooth that of i; None for no smoothing.
    block: cells that training takes at a time, 0 for all.
    order: [N], in which training takes the cells and in which inputs has them; None for that of cells.
    """

    cells: ad.AnnData
    inputs: np.ndarray | Features
    beside: np.ndarray
    known: pd.Series | None
    n_clusters: int
    n_clusters_from: str
    values: str
    voters: sparse.csr_matrix | None = None
    block: int = 0
    order: np.ndarray | None = None

    @property
    def graph(self) -> sparse.csr_matrix:
        """The cell graph in the order of training."""
        graph = self.cells.obsp["scrcl_graph"]
        return graph if self.order is None else graph[self.order][:, self.order]


@dataclass
class Result:
    """What a run found.

    prepared: the data set; its cells now have obs['scrcl'] and obs['scrcl_seed_S'] (labels), obs['scrcl_total'] (data.TOTAL; not of log-normalised values),
        obs['scrcl_confidence'], obsm['X_scrcl'] (the embedding) and uns['scrcl'] (parameters, versions, what was clustered per seed).
    labels: indexed by barcode; columns seed_S for every seed S, and last scrcl, the
        final labels, the consensus; where labels are smoothed, also those before it, NAME_unsmoothed. One row per
        cell of the input, in its order, missing for cells that could not be used.
    confidence: share of the seeds that put the cell where the final labels do, [cells of the input],
        missing as they are; all missing of one seed.
    scores: per column of labels, as score.score returns; empty without known types.
    chosen_seed: the seed whose labels agree best with the final ones; obsm['X_scrcl'] is its embedding (for 'joint-or-pcs'
        the joint one, which holds both).
    state_dict: the parameters of its model.
    history: the losses per seed and epoch; seconds: per stage.
    """

    config: Config
    prepared: Prepared
    labels: pd.DataFrame
    confidence: pd.Series
    scores: dict[str, dict]
    chosen_seed: int
    state_dict: dict[str, torch.Tensor]
    history: list[dict[str, float]]
    device: str
    seconds: dict[str, float]

    @property
    def cells(self) -> ad.AnnData:
        """The AnnData of the cells that have counts, with all results in it."""
        return self.prepared.cells

    @property
    def seeds(self) -> list[str]:
        """Column names of the single runs in labels."""
        return [f"seed_{seed}" for seed in self.config.seeds]


def find_cell_types(
    adata: ad.AnnData,
    config: SCConfig | None = None,
    *,
    on_epoch: Callable[[dict[str, float]], None] = lambda losses: None,
    watch: Stopwatch | None = None,
    checkpoints: Checkpoints | None = None,
    **settings: Any,
) -> Result:
    """Find cell types in scRNA-seq data with scRCL.

    adata: cells x genes; in X, a layer or .raw: counts, TPM or log-normalised values,
        sparse or dense. It receives obs['scrcl'] and obs['scrcl_seed_S'] (categoricals of
        strings, missing for cells without counts), obs['scrcl_confidence'] (0 to 1; missing of one seed), obsm['X_scrcl'] (NaN for those),
        obsp['scrcl_graph'] and uns['scrcl']; all else of it stays as it is.
    config, settings: an SCConfig, and fields of it by name, e.g. seeds=[5, 15], n_clusters=8.
    on_epoch: called with the losses after every training epoch.
    watch: collects the seconds of every stage.
    checkpoints: Checkpoints(folder, every=10, resume=True) keeps what was trained in a folder, and goes on from there;
        it stays there until its remove() is called.

    Known types serve two ends only: their number, when n_clusters is 'auto', and
    scores of the finished labels.
    Raises UserError for input that cannot be used.
    """
    return _run(adata, config or SCConfig(), settings, prepare_cells, on_epoch, watch, checkpoints)


def find_domains(
    adata: ad.AnnData,
    config: STConfig | None = None,
    *,
    on_epoch: Callable[[dict[str, float]], None] = lambda losses: None,
    watch: Stopwatch | None = None,
    checkpoints: Checkpoints | None = None,
    **settings: Any,
) -> Result:
    """Find spatial domains with scRCL: find_cell_types for spots that have positions.

    adata: spots x genes, values as for find_cell_types; positions in obsm['spatial'] or
        in columns x and y (or the like) of obs. It receives the same keys, and
        obs['scrcl_unsmoothed'], the final labels before they are smoothed in space.
    config, settings: an STConfig, and fields of it by name.

    Raises UserError for input that cannot be used.
    """
    return _run(adata, config or STConfig(), settings, prepare_spots, on_epoch, watch, checkpoints)


def _run(
    adata: ad.AnnData,
    config: Config,
    settings: dict[str, Any],
    prepare: Callable[[ad.AnnData, Any, Stopwatch], Prepared],
    on_epoch: Callable[[dict[str, float]], None],
    watch: Stopwatch | None,
    checkpoints: Checkpoints | None,
) -> Result:
    config = dataclasses.replace(config, **settings)
    watch = watch or Stopwatch()
    device = find_device(config.device)
    with limited_threads(config.threads), matrix_products(device, config.tf32):
        prepared = prepare(adata, config, watch)
        result = train_and_cluster(prepared, config, device, on_epoch, watch, checkpoints)
    result.labels = result.labels.reindex(adata.obs_names)
    result.confidence = result.confidence.reindex(adata.obs_names)
    annotate(adata, result)
    return result


def prepare_cells(adata: ad.AnnData, config: SCConfig, watch: Stopwatch) -> Prepared:
    """Everything before training: values, HVGs, PCs, cell graph, number of clusters."""
    with watch("preprocess"):
        cells, values, planned, inputs = without_depth(adata, config)
        log.info("Training: %s.", planned.in_words())
        known = known_labels(adata.obs, config.label_key, data.LABEL_KEYS, cells)
    with watch("graphs"):
        on_genes = config.graph_on == "genes" and cells.n_obs < PCS_FROM
        points = preprocess.encoder_values(cells, "lognorm") if on_genes else cells.obsm["X_pca"]
        cells.obsp["scrcl_graph"] = graphs.cell_graph(points, config.n_neighbors, config.metric, seed=0)
        inputs, order = in_training_order(inputs, cells.obsp["scrcl_graph"])
    pcs = cells.obsm["X_pca"] if cells.n_obs >= cluster.FEW_CELLS else without_long_rows(cells.obsm["X_pca"])
    with watch("number of clusters"):
        number = choose_n_clusters(config.n_clusters, known, pcs, cells.obsp["scrcl_graph"], cluster.estimate_of_cells)
    return Prepared(cells, inputs, pcs, known, *number, values, block=planned.block, order=order)


def prepare_spots(adata: ad.AnnData, config: STConfig, watch: Stopwatch) -> Prepared:
    """prepare_cells for spots.

    The graph joins spots that are near in position; genes weigh as much as they share with it,
    var['spatial_weight']; beside the encoder stand means of the PCs over neighbours, obsm['X_pca_spatial'].
    """
    with watch("preprocess"):
        cells, values = preprocessed(spatial.placed(adata), config)
        known = known_labels(adata.obs, config.label_key, spatial.LABEL_KEYS, cells)
        if "spatial" in adata.uns:  # squidpy's images and scale factors
            cells.uns["spatial"] = adata.uns["spatial"]
    with watch("graphs"):
        sections, places = spatial.sections(cells.obs, config.section_key), cells.obsm["spatial"]
        graph = graphs.spatial_graph(places, config.graph, config.n_neighbors, config.radius, sections)
        cells.obsp["scrcl_graph"] = graph
        voters = graphs.nearest_spots(places, config.refine_neighbors, sections) if config.refine_neighbors else None

    def weigh(values: np.ndarray | Features) -> np.ndarray | Features:
        hvgs = cells.var["highly_variable"]
        if data.SPATIAL_WEIGHT not in cells.var:
            cells.var.loc[hvgs, data.SPATIAL_WEIGHT] = preprocess.spatial_weights(values, graph, sections)
        weights = cells.var.loc[hvgs, data.SPATIAL_WEIGHT].to_numpy(dtype=np.float32)
        return values.weighted(weights) if isinstance(values, Features) else np.multiply(values, weights, out=values)

    with watch("preprocess"):
        planned = plan(cells, config)
        log.info("Training: %s.", planned.in_words())
        inputs = pcs_and_inputs(cells, config, planned, weigh if config.gene_weights == "spatial" else None)
        cells.obsm["X_pca_spatial"] = graphs.neighbour_mean(cells.obsm["X_pca"], graph)
        inputs, order = in_training_order(inputs, graph)
    with watch("number of clusters"):
        number = choose_n_clusters(
            config.n_clusters, known, cells.obsm["X_pca_spatial"], graph, cluster.estimate_n_clusters
        )
    return Prepared(cells, inputs, cells.obsm["X_pca_spatial"], known, *number, values, voters, planned.block, order)


class Encoded(NamedTuple):
    """cells: with X and obsm['X_pca']; values: in words, what they are; planned: how training takes them; inputs: [N, G], what the encoders see."""

    cells: ad.AnnData
    values: str
    planned: memory.Plan
    inputs: np.ndarray | Features


def encoded(adata: ad.AnnData, config: Config) -> Encoded:
    """The cells preprocessed, with PCs, and what the encoders see of them."""
    cells, values = preprocessed(adata, config)
    planned = plan(cells, config)
    return Encoded(cells, values, planned, pcs_and_inputs(cells, config, planned))


def without_depth(adata: ad.AnnData, config: SCConfig) -> Encoded:
    """encoded; for the target_sum 'auto' again with the median where counts were blown up and the first PC is their number (preprocess.depth_in_first_pc)."""
    found = encoded(adata, config)
    depth = preprocess.depth_in_first_pc(found.cells)
    if config.target_sum != "auto" or depth < DEPTH_IS_FIRST_PC or not preprocess.blown_up(found.cells):
        return found
    log.info(
        "Counts normalised to 10,000 per cell have their number as first PC (R^2 %.2f): normalised to its median.",
        depth,
    )
    del found  # first, since two of them could fill the memory
    release_memory()
    found = encoded(adata, dataclasses.replace(config, target_sum="median"))
    return found._replace(values=f"{found.values}, normalised to the median")


def preprocessed(adata: ad.AnnData, config: Config) -> tuple[ad.AnnData, str]:
    """The cells as preprocess.preprocess makes them, and in words what values they are; of values on disk, with HVGs alone."""
    if backed.is_backed(adata):
        return backed.preprocess(adata, config.layer, **config.preprocessing)
    expression = data.find_expression(adata, config.layer)
    return preprocess.preprocess(expression, **config.preprocessing), expression.in_words()


def plan(cells: ad.AnnData, config: Config) -> memory.Plan:
    """How many cells training takes at a time."""
    hvgs = cells.var["highly_variable"].to_numpy()
    stored = int(cells.X.getnnz(axis=0)[hvgs].sum())
    sizes = cells.n_obs, int(hvgs.sum()), stored, config.n_neighbors, config.hidden, config.refined_width
    return memory.plan(*sizes, config.max_memory)


def pcs_and_inputs(
    cells: ad.AnnData,
    config: Config,
    planned: memory.Plan,
    weigh: Callable[[np.ndarray | Features], np.ndarray | Features] | None = None,
) -> np.ndarray | Features:
    """Write obsm['X_pca'], the PCs of the scaled HVGs; what the encoders see, [N, G] float32.

    weigh: makes weighted genes of others; first called with the scaled ones.
    """
    kind = preprocess.sparse_encoder_values if planned.block else preprocess.encoder_values

    def values(choice: str) -> np.ndarray | Features:
        return kind(cells, choice) if weigh is None else weigh(kind(cells, choice))

    scaled = values("scaled")
    cells.obsm["X_pca"] = preprocess.principal_components(scaled, config.n_pcs)
    return scaled if config.encoder_input == "scaled" else values(config.encoder_input)


def in_training_order(
    inputs: np.ndarray | Features, graph: sparse.csr_matrix
) -> tuple[np.ndarray | Features, np.ndarray | None]:
    """Inputs with neighbours near each other, and their order; small ones, which the cache holds anyway, as they are."""
    if not isinstance(inputs, Features):
        return inputs, None
    order = graphs.near_order(graph)
    return inputs.reordered(order), order


def known_labels(obs: pd.DataFrame, label_key: str, usual: tuple[str, ...], cells: ad.AnnData) -> pd.Series | None:
    """The known labels of these cells, or None where none of them has one."""
    known = data.find_labels(obs, label_key, usual)
    return None if known is None or known.loc[cells.obs_names].isna().all() else known.loc[cells.obs_names]


def choose_n_clusters(
    asked: str,
    known: pd.Series | None,
    points: np.ndarray,
    graph: sparse.csr_matrix,
    estimate: Callable[[np.ndarray, sparse.csr_matrix, int], int],
) -> tuple[int, str]:
    """The number of clusters and, in words, where it comes from. estimate: makes it of points, graph and seed, where nothing else says it."""
    n_types = 0 if known is None else known.nunique()
    if asked != "auto":
        number, origin = int(asked), "as asked for"
    elif known is not None and n_types > 1:
        number, origin = n_types, f"the number of known labels in obs[{known.name!r}], as the published protocol does"
    else:
        number, origin = estimate(points, graph, 0), "estimated without labels"
    cluster.require_enough(points, number)
    log.info("Clusters: %d, %s.", number, origin)
    return number, origin


def train_and_cluster(
    prepared: Prepared,
    config: Config,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
    watch: Stopwatch,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """Train and cluster once per seed; agree on the final labels without known types; score last.

    The final labels are the consensus of all seeds (cluster.consensus).
    """
    config = config.with_seeds(prepared.cells.n_obs)
    cells, n_clusters, checkpoints = prepared.cells, prepared.n_clusters, checkpoints or Checkpoints()
    with watch("graphs"):
        genes = graphs.gene_graph(prepared.inputs, config.gene_neighbors)
        constants = train.graph_inputs(
            prepared.inputs, prepared.graph, genes, config.hops, device, block=prepared.block
        )
    release_memory()
    if checkpoints.wanted:
        checkpoints.open(decisive(prepared, config, device))
    found = {
        seed: _kept_seed(checkpoints, seed, on_epoch)
        or train_seed(prepared, constants, config, seed, on_epoch, watch, checkpoints)
        for seed in config.seeds
    }
    with watch("cluster"):
        labels, confidence, chosen = agree({seed: own.labels for seed, own in found.items()}, prepared)
    if labels[FINAL].nunique() != n_clusters:
        log.info("The final labels have %d clusters where %d were asked for.", labels[FINAL].nunique(), n_clusters)
    model = train.restored_model(found[chosen].model, constants, **_model_settings(prepared, config))
    # Embedded once more, since the embeddings of all seeds could fill the memory.
    cells.obsm["X_scrcl"] = embedding(train.embed(model, constants), prepared.beside, config.embedding, prepared.order)
    with watch("score"):
        known = prepared.known
        scores = {} if known is None else {name: score.score(labels[name], known) for name in labels}
    cells.uns["scrcl"] = describe(prepared, config, chosen, device)
    cells.uns["scrcl"]["clustered"] = {f"seed_{seed}": own.of for seed, own in found.items()}
    if checkpoints.resumed_from:
        cells.uns["scrcl"]["resumed_from"] = checkpoints.resumed_from
    write_labels(cells, labels, confidence)
    history = [record for own in found.values() for record in own.history]
    state = train.in_order_of_cells(found[chosen].model, prepared.order)
    return Result(config, prepared, labels, confidence, scores, chosen, state, history, str(device), watch.seconds)


class SeedResult(NamedTuple):
    """labels: [N] integers, 0 the largest cluster; of: what was clustered, in words; model: its parameters, in memory of the CPU; history: losses per epoch."""

    labels: np.ndarray
    of: str
    model: dict[str, torch.Tensor]
    history: list[dict[str, float]]


def train_seed(
    prepared: Prepared,
    constants: GraphInputs,
    config: Config,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None],
    watch: Stopwatch,
    checkpoints: Checkpoints,
) -> SeedResult:
    """Train and cluster with one seed, and keep what came out in the checkpoint."""
    settings = _model_settings(prepared, config) | _training_settings(config)
    with watch("train"):
        model, history = train.fit(constants, seed=seed, on_epoch=on_epoch, checkpoints=checkpoints, **settings)
    with watch("cluster"):
        labels, of = partition(train.embed(model, constants), prepared, config, seed)
    found = SeedResult(labels, of, {name: value.cpu() for name, value in model.state_dict().items()}, history)
    checkpoints.keep_seed(seed, found._asdict() | {"labels": torch.as_tensor(labels)})
    return found


def partition(found: train.Embedded, prepared: Prepared, config: Config, seed: int) -> tuple[np.ndarray, str]:
    """Labels [N] of one seed, and in words what was clustered.

    Of several numbers of dimensions, and for 'joint-or-pcs' of the joint embedding and the PCs alone, those labels stay that
    agree best with the cell graph (cluster.agreement_with_graph), the first of equals.
    """
    mixture = config.cluster_method == "gmm"
    graph, tried = prepared.cells.obsp["scrcl_graph"], []
    dims = sorted({cluster.dims_for(graph.shape[0], n_dims) for n_dims in config.mixture_dims}) if mixture else [0]
    for choice in ("joint", "pcs") if config.embedding == "joint-or-pcs" else (config.embedding,):
        points = embedding(found, prepared.beside, choice, prepared.order)
        if mixture:
            points = cluster.leading_components(points, max(dims))
        for n_dims in dims:
            how = (config.cluster_method, seed, n_dims, config.mixture_rounds)
            labels = cluster.cluster(points, prepared.n_clusters, *how)
            tried.append((labels, f"{choice}, {n_dims} dimensions" if mixture else choice))
    if len(tried) == 1:
        return tried[0]
    agreements = np.round([cluster.agreement_with_graph(labels, graph) for labels, _ in tried], 12)
    told = "; ".join(f"{of} {agreement:.4f}" for (_, of), agreement in zip(tried, agreements))
    log.info("Seed %d, agreement of labels with the cell graph: %s.", seed, told)
    return tried[int(agreements.argmax())]


def _kept_seed(checkpoints: Checkpoints, seed: int, on_epoch: Callable[[dict[str, float]], None]) -> SeedResult | None:
    kept = checkpoints.seed(seed)
    if kept is None:
        return None
    for record in kept["history"]:
        on_epoch(record)
    return SeedResult(**kept | {"labels": kept["labels"].numpy()})


def decisive(prepared: Prepared, config: Config, device: torch.device) -> dict[str, Any]:
    """All that decides what a seed gives, for people to compare and for a checkpoint to be of the same run."""
    content, graph = hashlib.sha256("\n".join(prepared.cells.obs_names).encode()), prepared.cells.obsp["scrcl_graph"]
    inputs = prepared.inputs
    if isinstance(inputs, Features):
        parts = [inputs.values.indptr, inputs.values.indices, inputs.values.data, inputs.offset]
    else:
        parts = [inputs]
    for part in (*parts, prepared.beside, graph.indptr, graph.indices, graph.data):
        content.update(np.ascontiguousarray(part).data)
    settings = {name: value for name, value in vars(config).items() if name not in (*RUN_ONLY, "seeds", "label_key")}
    return {
        "task": config.task,
        "input": content.hexdigest(),
        **settings,
        "n_clusters": prepared.n_clusters,
        "cells_at_a_time": prepared.block or len(prepared.beside),
        "device": str(device),
        "threads": torch.get_num_threads(),
        **versions(),
    }


def smooth(labels: np.ndarray, voters: sparse.csr_matrix | None) -> np.ndarray:
    """Labels [N] after the vote of each spot's neighbours (cluster.majority), or as they are where there are no voters."""
    return labels if voters is None else cluster.majority(labels, voters)


def agree(found: dict[int, np.ndarray], prepared: Prepared) -> tuple[pd.DataFrame, pd.Series, int]:
    """Of labels [N] per seed: the table of theirs and of the final ones (Result.labels), the confidence of these, and the seed nearest to them."""
    unsmoothed = {f"seed_{seed}": labels for seed, labels in found.items()}
    unsmoothed[FINAL] = cluster.consensus(list(found.values()), prepared.n_clusters)
    smoothed = {name: smooth(labels, prepared.voters) for name, labels in unsmoothed.items()}
    columns = {}
    for name, labels in smoothed.items():
        if prepared.voters is not None:
            columns[name + UNSMOOTHED] = unsmoothed[name]
        columns[name] = labels
    *of_seeds, final = smoothed.values()
    # One seed agrees with itself, which says nothing.
    share = cluster.confidence(of_seeds, final) if len(of_seeds) > 1 else np.float32("nan")
    barcodes = prepared.cells.obs_names
    confidence = pd.Series(share, index=barcodes, name=CONFIDENCE)
    return pd.DataFrame(columns, index=barcodes).astype(str), confidence, list(found)[cluster.nearest(of_seeds, final)]


def _model_settings(prepared: Prepared, config: Config) -> dict[str, Any]:
    width = config.refined_width or prepared.n_clusters
    return {"hidden": config.hidden, "refined_width": width, "dropout": config.dropout}


def _training_settings(config: Config) -> dict[str, Any]:
    names = (
        *("epochs", "plateau", "lr", "weight_decay"),
        *("temperature", "lambda1", "lambda2", "consistency"),
    )
    return {name: getattr(config, name) for name in names}


def embedding(found: train.Embedded, beside: np.ndarray, choice: str, order: np.ndarray | None = None) -> np.ndarray:
    """What is clustered, [N, d] float32.

    'encoder' is [E1 | E2], 'refined' [Z1 | Z2], as in the paper; 'pcs' are the PCs alone. 'joint' and 'joint-refined' are either
    of the first two beside the PCs (for spots, PCs of the neighbourhood), the trained half and the PCs each centred and
    scaled to a total variance of 1: the PCs bring back how much a cell expresses, and what the graph has smoothed
    away of rare types. In 'joint' the rows of E are shortened (shortened_rows); 'joint-or-pcs' is 'joint' here. order: that of the cells in found, None for the one of beside.
    """
    if choice == "pcs":
        return beside
    points = found.refined if choice in ("refined", "joint-refined") else found.encoder
    if choice in ("joint", "joint-or-pcs"):
        points = shortened_rows(points, found.lengths)
    if order is not None:
        in_order = np.empty_like(points)
        in_order[order] = points
        points = in_order  # what was shortened is freed
    if choice.startswith("joint"):
        return np.hstack([unit_variance(points), unit_variance(beside)])
    return points


def shortened_rows(encoder: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[E1 | E2], [N, 2H], with rows of E shorter where those of H were: H / sqrt(|H|^2 + median |H|^2) in place of H / |H|.

    The encoders see centred values. Where most cells are of one type, the centre lies in it: its cells have short rows that point
    anywhere, and at unit length they spread over the whole sphere. lengths: [N, 2], |H1| and |H2|.
    """
    squares = lengths.astype(np.float64) ** 2
    half = np.maximum(np.median(squares, axis=0), np.finfo(np.float64).tiny)
    share = np.sqrt(squares / (squares + half)).astype(encoder.dtype)
    return (encoder.reshape(len(encoder), 2, -1) * share[:, :, None]).reshape(encoder.shape)


def without_long_rows(points: np.ndarray) -> np.ndarray:
    """x / sqrt(|x|^2 + 4 median |x|^2) of every row: short rows are all scaled alike, the longest come near a length of 1."""
    squares = (points.astype(np.float64) ** 2).sum(axis=1, keepdims=True)
    scale = np.sqrt(squares + max(4 * np.median(squares), np.finfo(np.float64).tiny))
    return (points / scale).astype(np.float32)


def unit_variance(points: np.ndarray) -> np.ndarray:
    """Centred, with variances of the columns that sum to 1; float32."""
    centred = points - points.mean(axis=0)
    blocks = np.array_split(centred, -(-len(centred) // 100_000))  # a block's squares at a time, not all
    lengths = np.concatenate([(block**2).sum(axis=1, dtype=np.float64) for block in blocks])
    centred /= max(np.sqrt(lengths.mean()), np.finfo(np.float32).tiny)
    return centred.astype(np.float32, copy=False)


def add_umap(cells: ad.AnnData, use_rep: str = "X_scrcl") -> None:
    """Write obsm['X_umap'] of obsm[use_rep], with scanpy's neighbours in obsp['distances'] and obsp['connectivities'].

    Of more than 50,000 cells, a random 50,000 are laid out; the others have NaN, and no neighbours.
    """
    if cells.n_obs <= UMAP_ON:
        sc.pp.neighbors(cells, n_neighbors=min(15, cells.n_obs - 1), use_rep=use_rep, random_state=0)
        sc.tl.umap(cells, random_state=0)
        return
    log.info("The UMAP is of %d cells drawn at random; it would take hours for all.", UMAP_ON)
    drawn = np.sort(np.random.default_rng(0).choice(cells.n_obs, UMAP_ON, replace=False))
    part = ad.AnnData(obsm={use_rep: cells.obsm[use_rep][drawn]})
    add_umap(part, use_rep)
    cells.obsm["X_umap"] = rows_among(part.obsm["X_umap"], drawn, cells.n_obs)
    for name in ("distances", "connectivities"):
        cells.obsp[name] = graph_among(part.obsp[name], drawn, cells.n_obs)
    cells.uns["neighbors"] = part.uns["neighbors"]


def rows_among(points: np.ndarray, where: np.ndarray, n: int) -> np.ndarray:
    """Rows of points at these places of n rows, NaN elsewhere; points itself where they fill all."""
    if len(where) == n and np.array_equal(where, np.arange(n)):
        return points
    among = np.full((n, points.shape[1]), np.nan, dtype=np.float32)
    among[where] = points
    return among


def graph_among(graph: sparse.csr_matrix, where: np.ndarray, n: int) -> sparse.csr_matrix:
    """A graph of the cells at these places as one of n cells, the others without neighbours."""
    ones = np.ones(len(where), dtype=np.float32)
    place = sparse.csr_matrix((ones, (where, np.arange(len(where)))), shape=(n, len(where)))
    return (place @ graph @ place.T).tocsr()


def write_labels(adata: ad.AnnData, labels: pd.DataFrame, confidence: pd.Series) -> None:
    """Write every column of labels to obs, as a categorical of strings in numeric order: scrcl, scrcl_seed_S; and the confidence.

    Those of an earlier run are removed.
    """
    ours = (f"{FINAL}_seed_", FINAL + UNSMOOTHED)
    adata.obs = adata.obs.drop(columns=[name for name in adata.obs if str(name).startswith(ours)])
    for name, column in labels.items():
        numbers = sorted(column.dropna().unique(), key=int)
        key = name if name.startswith(FINAL) else f"{FINAL}_{name}"
        adata.obs[key] = column.astype(pd.CategoricalDtype(numbers))
    adata.obs[CONFIDENCE] = confidence


def describe(prepared: Prepared, config: Config, chosen_seed: int, device: torch.device) -> dict[str, Any]:
    """What uns['scrcl'] holds: parameters, versions, how many clusters and why."""
    return {
        "task": config.task,
        "params": {name: value for name, value in dataclasses.asdict(config).items() if name not in RUN_ONLY},
        "versions": versions(),
        "n_clusters": prepared.n_clusters,
        "n_clusters_from": prepared.n_clusters_from,
        "values": prepared.values,
        "chosen_seed": chosen_seed,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Versions of this software, Python and the libraries that decide the result."""
    return {"scrcl": VERSION, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def annotate(adata: ad.AnnData, result: Result) -> None:
    """Write labels, embedding, cell graph and parameters into the caller's AnnData, which may have more cells."""
    cells = result.cells
    where = adata.obs_names.get_indexer(cells.obs_names)
    write_labels(adata, result.labels, result.confidence)
    adata.obsm["X_scrcl"] = rows_among(cells.obsm["X_scrcl"], where, adata.n_obs)
    adata.obsp["scrcl_graph"] = graph_among(cells.obsp["scrcl_graph"], where, adata.n_obs)
    adata.uns["scrcl"] = cells.uns["scrcl"]
