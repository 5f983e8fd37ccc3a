"""The whole analysis: prepare, choose the number of clusters, train and cluster with every seed, combine, score."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from scrcl.annotate import write_cells
from scrcl.cluster import consensus, number, scores, trust, views
from scrcl.cluster.agreement import agreement_with_graph
from scrcl.cluster.embedding import embedding
from scrcl.cluster.number import Number
from scrcl.disk.checkpoints import Checkpoints
from scrcl.fingerprint import fingerprint
from scrcl.keys import OURS, UNSMOOTHED
from scrcl.messages import UserError, log
from scrcl.method import training, worker
from scrcl.method.inputs import GraphInputs, HostInputs, host_inputs
from scrcl.method.kernels import compiled
from scrcl.method.losses import Objective
from scrcl.method.network import Architecture
from scrcl.method.training import Embedded, Schedule
from scrcl.methods import METHODS
from scrcl.prepare import cells, graphs, tissue
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.result import Result
from scrcl.runtime import Stopwatch, card_or_cpu, find_device, limited_threads, release_memory, tf32_products

OnEpoch = Callable[[dict[str, float]], None]
PREPARE: dict[str, Callable[..., Prepared]] = {"SC": cells.prepare, "ST": tissue.prepare}


def analyse(
    adata: ad.AnnData,
    settings: CellSettings | TissueSettings,
    *,
    on_epoch: OnEpoch = lambda losses: None,
    watch: Stopwatch | None = None,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """Find the cell types or domains of a data set, which stays as it is.

    Known labels serve two purposes only: their number, when n_clusters is 'auto', and the scores of the finished
    labels.

    Parameters
    ----------
    adata
        Cells or spots x genes, see `scrcl.find_cell_types` and `scrcl.find_domains`.
    settings
        The recipe; its class decides between cells and tissue.
    on_epoch
        Called with the losses after every training epoch.
    watch
        Collects the seconds of every stage.
    checkpoints
        `Checkpoints(folder, every=10, resume=True)` saves what was trained in a folder, and continues from there. It
        stays there until its `remove()` is called.

    Returns
    -------
    What the run found, with one row of labels per cell of the input.

    Raises
    ------
    UserError
        When the input cannot be used.
    """
    require_one_number(settings)
    watch, device = watch or Stopwatch(), find_device(settings.device)
    with (
        limited_threads(settings.threads),
        tf32_products(device, settings.tf32),
        compiled(device, settings.compile),
    ):
        prepared = PREPARE[settings.task](adata, settings, watch)
        with watch("number of clusters"):
            n_clusters = number.choose(prepared, settings)
        result = train_and_cluster(prepared, n_clusters, settings, device, on_epoch, watch, checkpoints)
    result.labels = result.labels.reindex(adata.obs_names)
    result.confidence = result.confidence.reindex(adata.obs_names)
    return result


def require_one_number(settings: CellSettings | TissueSettings) -> None:
    """Raise UserError where the settings name several numbers of clusters, which only a finished run can compare."""
    if len(settings.numbers_of_clusters()) > 1:
        raise UserError(
            f"--n-clusters {settings.n_clusters} compares numbers on a finished run, named by its folder; a run takes "
            "one number, or 'auto'."
        )


def train_and_cluster(
    prepared: Prepared,
    n_clusters: Number,
    settings: CellSettings | TissueSettings,
    device: torch.device,
    on_epoch: OnEpoch = lambda losses: None,
    watch: Stopwatch | None = None,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """Train and cluster once per seed, agree on the final labels without known types, and score last.

    Parameters
    ----------
    prepared
        The data set.
    n_clusters
        How many clusters, and why.
    settings
        The recipe.
    device
        Where to train.
    on_epoch, watch, checkpoints
        As for `analyse`.

    Returns
    -------
    What the run found, with one row of labels per prepared cell. Everything is also written to `prepared.cells`.

    Raises
    ------
    UserError
        When training fails, or the checkpoint cannot be used.
    """
    settings = settings.with_seeds(prepared.cells.n_obs)
    watch, checkpoints = watch or Stopwatch(), checkpoints or Checkpoints()
    if checkpoints.wanted:
        checkpoints.open(fingerprint(prepared, n_clusters.n, settings, device))
    found, inputs = train_seeds(prepared, n_clusters.n, settings, device, on_epoch, watch, checkpoints)
    with watch("cluster"):
        voters = np.concatenate([own.voters for own in found.values()])
        of_seeds = {seed: own.labels for seed, own in found.items()}
        labels, confidence, chosen = agree(of_seeds, prepared, n_clusters.n, voters)
        final, graph = labels[OURS.labels], graph_of_values(prepared, settings)
        clusters, tree = trust.table(final, confidence, graph), trust.tree(final, graph)
    # Embedded once more, since keeping the embeddings of all seeds could fill the memory.
    model = training.restored_model(found[chosen].model, inputs, architecture_of(settings, n_clusters.n))
    points = embedding(training.embed(model, inputs), prepared.pcs, settings.embedding, prepared.order)
    with watch("score"):
        of_labels = {} if prepared.known is None else {n: scores.score(labels[n], prepared.known) for n in labels}
    result = Result(
        settings=settings,
        prepared=prepared,
        n_clusters=n_clusters.n,
        n_clusters_from=n_clusters.reason,
        numbers=n_clusters.curve,
        labels=labels,
        confidence=confidence,
        clusters=clusters,
        tree=tree,
        scores=of_labels,
        chosen_seed=chosen,
        clustered={f"seed_{seed}": own.clustered for seed, own in found.items()},
        state_dict=training.in_order_of_cells(found[chosen].model, prepared.order),
        history=[record for own in found.values() for record in own.history],
        device=str(device),
        threads=torch.get_num_threads(),
        seconds=watch.seconds,
        resumed_from=checkpoints.resumed_from,
    )
    write_cells(result, points)
    return result


def train_seeds(
    prepared: Prepared,
    n_clusters: int,
    settings: CellSettings | TissueSettings,
    device: torch.device,
    on_epoch: OnEpoch,
    watch: Stopwatch,
    checkpoints: Checkpoints,
) -> tuple[dict[int, SeedResult], GraphInputs]:
    """Train and cluster with every seed that the checkpoint has not finished.

    Parameters
    ----------
    prepared, n_clusters, settings, device, on_epoch, watch, checkpoints
        As for `run_seed` and `analyse`; the checkpoint is open.

    Returns
    -------
    What every seed found, and what stays constant during training.
    """
    kept = {seed: kept_seed(checkpoints, seed, on_epoch) for seed in settings.seeds}
    to_train = [seed for seed, own in kept.items() if own is None]
    with watch("graphs"):
        how = architecture_of(settings, n_clusters), objective_of(settings), schedule_of(settings)
        inputs = worker.shared_inputs(inputs_of(prepared, settings), device, *how, to_train)
    release_memory()
    found = {
        seed: own or run_seed(prepared, inputs, n_clusters, settings, seed, on_epoch, watch, checkpoints)
        for seed, own in kept.items()
    }
    return found, inputs


def graph_of_values(prepared: Prepared, settings: CellSettings | TissueSettings) -> sparse.csr_matrix:
    """Return a graph that joins cells with like values: the cell graph, and for spots the same of what is clustered.

    In the graph of the spots' places every contiguous piece of tissue is well apart from all others.
    """
    if settings.task == "SC":
        return prepared.graph
    points = next(iter(prepared.views.values()), prepared.pcs)
    n_neighbors = min(CellSettings.n_neighbors, len(points))
    return graphs.cell_graph(points, n_neighbors, CellSettings.metric, 0, card_or_cpu(settings.device))


def inputs_of(prepared: Prepared, settings: CellSettings | TissueSettings) -> HostInputs:
    """Return what stays constant over training: both views, and the graphs of cells and genes."""
    genes = graphs.gene_graph(prepared.inputs, settings.gene_neighbors, card_or_cpu(settings.device))
    return host_inputs(prepared.inputs, prepared.graph_in_training, genes, settings.hops, prepared.block)


class SeedResult(NamedTuple):
    """What one seed returns.

    Attributes
    ----------
    labels
        [N] integers, 0 the largest cluster.
    voters
        [partitions, N] integers, the partitions that the labels are a vote of; the labels themselves if there was none.
    clustered
        What was clustered, for people to read.
    model
        The parameters of its model, in CPU memory.
    history
        The losses of each epoch.
    """

    labels: np.ndarray
    voters: np.ndarray
    clustered: str
    model: dict[str, torch.Tensor]
    history: list[dict[str, float]]


def run_seed(
    prepared: Prepared,
    inputs: GraphInputs,
    n_clusters: int,
    settings: CellSettings | TissueSettings,
    seed: int,
    on_epoch: OnEpoch,
    watch: Stopwatch,
    checkpoints: Checkpoints,
) -> SeedResult:
    """Train and cluster with one seed, and save the result in the checkpoint.

    Parameters
    ----------
    prepared, inputs
        The data set, and what stays constant during training.
    n_clusters
        How many clusters.
    settings
        The recipe.
    seed
        For training and clustering.
    on_epoch, watch, checkpoints
        As for `analyse`.
    """
    architecture = architecture_of(settings, n_clusters)
    how = objective_of(settings), schedule_of(settings)
    with watch("train"):
        fitted = training.fit(inputs, architecture, *how, seed=seed, on_epoch=on_epoch, checkpoints=checkpoints)
    with watch("cluster"):
        own = partition(training.embed(fitted.model, inputs), prepared, n_clusters, settings, seed)
    state = training.whole_parameters(fitted.model, inputs.share)
    found = SeedResult(own.labels, own.voters, own.clustered, state, fitted.history)
    arrays = {name: torch.as_tensor(getattr(found, name)) for name in ("labels", "voters")}
    checkpoints.keep_seed(seed, found._asdict() | arrays)
    return found


def kept_seed(checkpoints: Checkpoints, seed: int, on_epoch: OnEpoch) -> SeedResult | None:
    """Return the result of a seed that an earlier run finished, if the checkpoint has it."""
    kept = checkpoints.seed(seed)
    if kept is None:
        return None
    for record in kept["history"]:
        on_epoch(record)
    return SeedResult(**kept | {name: kept[name].numpy() for name in ("labels", "voters")})


def architecture_of(settings: CellSettings | TissueSettings, n_clusters: int) -> Architecture:
    """Return the network's sizes; K' is the number of clusters if the settings have 0."""
    return Architecture(settings.hidden, settings.refined_width or n_clusters, settings.dropout)


def objective_of(settings: CellSettings | TissueSettings) -> Objective:
    """Return what is minimised, by the settings that the fields name."""
    return Objective(**{name: getattr(settings, name) for name in Objective._fields})


def schedule_of(settings: CellSettings | TissueSettings) -> Schedule:
    """Return how long and how fast to train, by the settings that the fields name."""
    return Schedule(**{name: getattr(settings, name) for name in Schedule._fields})


class Partition(NamedTuple):
    """The labels of one seed, with what they are from: `SeedResult` says what each is."""

    labels: np.ndarray
    voters: np.ndarray
    clustered: str


def partition(
    found: Embedded, prepared: Prepared, n_clusters: int, settings: CellSettings | TissueSettings, seed: int
) -> Partition:
    """Cluster with one seed.

    With 'views', all partitions of all views vote. Otherwise a method may give several partitions, and 'joint-or-pcs'
    clusters both the joint embedding and the PCs alone; then the one that agrees best with the cell graph is kept, the
    first of equals.

    Parameters
    ----------
    found
        The trained embeddings.
    prepared
        The data set.
    n_clusters
        How many clusters.
    settings
        The recipe.
    seed
        For the clustering.

    Returns
    -------
    The labels, the partitions that voted, and what was clustered, for people to read.
    """
    if settings.embedding == "views":
        of_seed = views.all_views(found, prepared.views, prepared.order)
        labels, voters = views.vote(of_seed, n_clusters, settings, seed)
        stacked = np.stack(list(voters.values())).astype(np.int32)
        return Partition(labels, stacked, f"a vote of {len(voters)} partitions of {len(of_seed)} views")
    tried: dict[str, np.ndarray] = {}
    for choice in ("joint", "pcs") if settings.embedding == "joint-or-pcs" else (settings.embedding,):
        points = embedding(found, prepared.pcs, choice, prepared.order)
        for how, labels in METHODS[settings.cluster_method].partitions(points, n_clusters, seed, settings).items():
            tried[", ".join(filter(None, (choice, how)))] = labels
    words = next(iter(tried))
    if len(tried) > 1:
        # Rounded, so that the last bits do not decide between equals.
        agreements = np.round([agreement_with_graph(labels, prepared.graph) for labels in tried.values()], 12)
        told = "; ".join(f"{name} {agreement:.4f}" for name, agreement in zip(tried, agreements))
        log.debug("Seed %d, agreement of labels with the cell graph: %s.", seed, told)
        words = list(tried)[int(agreements.argmax())]
    return Partition(tried[words], tried[words][None], words)


def agree(
    found: dict[int, np.ndarray], prepared: Prepared, n_clusters: int, voters: np.ndarray
) -> tuple[pd.DataFrame, pd.Series, int]:
    """Combine the labels of all seeds into the final labels.

    Parameters
    ----------
    found
        Labels [N] by seed.
    prepared
        The data set.
    n_clusters
        How many clusters were asked for.
    voters
        [partitions, N] integers, all partitions of all seeds; their share that agrees is the confidence.

    Returns
    -------
    The table of the seeds' labels and the final labels (`Result.labels`), the confidence of the final labels, and the
    seed whose labels agree best with them.
    """
    unsmoothed = {f"seed_{seed}": labels for seed, labels in found.items()}
    unsmoothed[OURS.labels] = consensus.consensus(list(found.values()), n_clusters)
    smoothed = {name: consensus.smoothed(labels, prepared.smoothing_graph) for name, labels in unsmoothed.items()}
    columns = {}
    for name, labels in smoothed.items():
        if prepared.smoothing_graph is not None:
            columns[name + UNSMOOTHED] = unsmoothed[name]
        columns[name] = labels
    *of_seeds, final = smoothed.values()
    # A single partition agrees with itself, which says nothing.
    agreeing = [consensus.smoothed(labels, prepared.smoothing_graph) for labels in voters] if len(voters) > 1 else []
    share = consensus.confidence(agreeing, final) if agreeing else np.float32("nan")
    barcodes = prepared.cells.obs_names
    confidence = pd.Series(share, index=barcodes, name=OURS.confidence)
    nearest = list(found)[consensus.nearest(of_seeds, final)]
    if len(np.unique(final)) != n_clusters:
        log.info("The final labels have %d clusters where %d were asked for.", len(np.unique(final)), n_clusters)
    return pd.DataFrame(columns, index=barcodes).astype(str), confidence, nearest
