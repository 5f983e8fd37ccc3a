"""The recipe, its variants and the published settings, trained and clustered by the steps of `scrcl.analysis`."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from benchmarks.datasets import DataSet
from benchmarks.variants import Variant
from scrcl.analysis import agree, architecture_of, partition
from scrcl.cluster import number
from scrcl.cluster.consensus import smoothed
from scrcl.cluster.scores import score
from scrcl.keys import OURS
from scrcl.method import training
from scrcl.method.inputs import GraphInputs, graph_inputs
from scrcl.method.losses import Objective, losses
from scrcl.method.network import Architecture, ScRCL
from scrcl.method.training import PLATEAU_EPOCHS, Embedded, Schedule
from scrcl.prepare import graphs
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import RECIPES, CellSettings, TissueSettings
from scrcl.runtime import keep_freed_memory, limited_threads

CPU = torch.device("cpu")
ORACLE_EVERY = 10  # epochs at which the oracle looks
ORACLE_BY = {"SC": "NMI", "ST": "ARI"}  # what it likes
T = TypeVar("T", Objective, Schedule)


def of_recipe(data: DataSet, variant: Variant, seeds: list[int]) -> dict[str, pd.Series]:
    """Labels of the recipe with a change: of the consensus, '', and of every seed."""
    settings, prepared = RECIPES[data.task](seeds=seeds, **variant.settings), data.prepared
    n_clusters = number.choose(prepared, settings).n
    inputs = inputs_of(prepared, settings)
    found = {}
    for seed in seeds:
        embedded = training.embed(model_of(data, inputs, settings, variant.without, n_clusters, seed), inputs)
        embedded = equally_long(embedded) if variant.unit_rows else embedded
        found[seed], _ = partition(embedded, prepared, n_clusters, settings, seed)
    labels, _, _ = agree(found, prepared, n_clusters)
    return {"": labels[OURS.labels], **{str(seed): labels[f"seed_{seed}"] for seed in seeds}}


def as_published(data: DataSet, settings: CellSettings | TissueSettings, seed: int) -> tuple[pd.Series, pd.Series]:
    """Labels of the last epoch, and of the epoch that the known labels like best."""
    prepared, best = data.prepared, -1.0
    n_clusters = number.choose(prepared, settings).n
    inputs = inputs_of(prepared, settings)
    torch.manual_seed(seed)
    model = training.new_model(inputs, architecture_of(settings, n_clusters))
    optimizer = training.adam(model, named(Schedule, settings))
    for epoch in range(1, settings.epochs + 1):
        training.step(model, inputs, optimizer, named(Objective, settings))
        if epoch % ORACLE_EVERY == 0:
            found, _ = partition(training.embed(model, inputs), prepared, n_clusters, settings, seed)
            labels = as_labels(found, prepared)
            likes = score(labels, prepared.known)[ORACLE_BY[data.task]]
            if likes > best:
                best, oracle = likes, labels
    return labels, oracle


def as_labels(found: np.ndarray, prepared: Prepared) -> pd.Series:
    """A partition as final labels: smoothed where the recipe does that, strings, by barcode."""
    return pd.Series(smoothed(found, prepared.smoothing_graph), index=prepared.cells.obs_names).astype(str)


def inputs_of(prepared: Prepared, settings: CellSettings | TissueSettings) -> GraphInputs:
    """What stays constant over training."""
    genes = graphs.gene_graph(prepared.inputs, settings.gene_neighbors)
    return graph_inputs(prepared.inputs, prepared.graph_in_training, genes, settings.hops, CPU, block=prepared.block)


def model_of(
    data: DataSet,
    inputs: GraphInputs,
    settings: CellSettings | TissueSettings,
    without: tuple[str, ...],
    n_clusters: int,
    seed: int,
) -> ScRCL:
    """The model that these settings give on a data set, trained where none has been trained with them before."""
    how = architecture_of(settings, n_clusters), named(Objective, settings), named(Schedule, settings)
    key = *how, *settings.hops, settings.gene_neighbors, without, seed
    if key not in data.models:
        if without:
            data.models[key] = fit_without(without, inputs, *how, seed=seed)
        else:
            data.models[key] = training.fit(inputs, *how, seed=seed).model
    return data.models[key]


def named(kind: type[T], settings: CellSettings | TissueSettings) -> T:
    """A NamedTuple of the settings that its fields name."""
    return kind(*(getattr(settings, name) for name in kind._fields))


def fit_without(
    without: tuple[str, ...],
    inputs: GraphInputs,
    architecture: Architecture,
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
) -> ScRCL:
    """What `training.fit` trains, to the letter, with some fields of `Losses` left out of the total."""
    keep_freed_memory()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = training.new_model(inputs, architecture)
        optimizer = training.adam(model, schedule)
        totals: list[float] = []
        while len(totals) < schedule.epochs and not has_flattened(totals, schedule.plateau):
            model.train()
            optimizer.zero_grad(set_to_none=True)
            terms = losses(model(inputs), inputs.neighbourhood, objective, inputs.block)
            total = terms._replace(**{name: 0 * getattr(terms, name) for name in without}).total(objective)
            total.backward()
            with limited_threads(1):  # as in training.update
                optimizer.step()
            totals.append(total.item())
    return model


def has_flattened(totals: list[float], plateau: float) -> bool:
    """Whether the total has fallen by less than that share of its first value over the last epochs; never for 0."""
    if plateau == 0 or len(totals) <= PLATEAU_EPOCHS:
        return False
    return totals[-1 - PLATEAU_EPOCHS] - totals[-1] < plateau * abs(totals[0])


def equally_long(embedded: Embedded) -> Embedded:
    """The same as if all rows of H had one length, so that `shortened_rows` leaves all rows of E at one length."""
    return embedded._replace(lengths=np.ones_like(embedded.lengths))
