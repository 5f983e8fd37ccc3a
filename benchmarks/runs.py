"""The recipe, its variants and the published settings, trained and clustered by the steps of `scrcl.analysis`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from benchmarks.datasets import DataSet
from benchmarks.variants import Variant
from scrcl.analysis import agree, architecture_of, inputs_of, objective_of, partition, schedule_of
from scrcl.cluster import number
from scrcl.cluster.consensus import smoothed
from scrcl.cluster.scores import score
from scrcl.keys import OURS
from scrcl.method import training
from scrcl.method.inputs import GraphInputs, on_device
from scrcl.method.losses import Losses, Objective
from scrcl.method.network import ScRCL
from scrcl.method.training import Embedded
from scrcl.method.updates import update
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import RECIPES, CellSettings, TissueSettings

CPU = torch.device("cpu")
ORACLE_EVERY = 10  # epochs at which the oracle looks
ORACLE_BY = {"SC": "NMI", "ST": "ARI"}  # what it likes


def of_recipe(data: DataSet, variant: Variant, seeds: list[int]) -> dict[str, pd.Series]:
    """Labels of the recipe with a change: of the consensus, '', and of every seed."""
    settings, prepared = RECIPES[data.task](seeds=seeds, **variant.settings), data.prepared
    n_clusters = number.choose(prepared, settings).n
    inputs = on_device(inputs_of(prepared, settings), CPU)
    found = {}
    for seed in seeds:
        embedded = training.embed(model_of(data, inputs, settings, variant.without, n_clusters, seed), inputs)
        embedded = equally_long(embedded) if variant.unit_rows else embedded
        found[seed] = partition(embedded, prepared, n_clusters, settings, seed).labels
    labels, _, _ = agree(found, prepared, n_clusters, np.stack(list(found.values())))
    return {"": labels[OURS.labels], **{str(seed): labels[f"seed_{seed}"] for seed in seeds}}


def as_published(data: DataSet, settings: CellSettings | TissueSettings, seed: int) -> tuple[pd.Series, pd.Series]:
    """Labels of the last epoch, and of the epoch that the known labels like best."""
    prepared, best = data.prepared, -1.0
    n_clusters = number.choose(prepared, settings).n
    inputs = on_device(inputs_of(prepared, settings), CPU)
    torch.manual_seed(seed)
    model = training.new_model(inputs, architecture_of(settings, n_clusters))
    optimizer = training.adam(model, schedule_of(settings))
    for epoch in range(1, settings.epochs + 1):
        update(model, inputs, optimizer, objective_of(settings))
        if epoch % ORACLE_EVERY == 0:
            found = partition(training.embed(model, inputs), prepared, n_clusters, settings, seed).labels
            labels = as_labels(found, prepared)
            likes = score(labels, prepared.known)[ORACLE_BY[data.task]]
            if likes > best:
                best, oracle = likes, labels
    return labels, oracle


def as_labels(found: np.ndarray, prepared: Prepared) -> pd.Series:
    """A partition as final labels: smoothed where the recipe does that, strings, by barcode."""
    return pd.Series(smoothed(found, prepared.smoothing_graph), index=prepared.cells.obs_names).astype(str)


def model_of(
    data: DataSet,
    inputs: GraphInputs,
    settings: CellSettings | TissueSettings,
    without: tuple[str, ...],
    n_clusters: int,
    seed: int,
) -> ScRCL:
    """The model that these settings give on a data set, trained where none has been trained with them before."""
    objective = objective_without(without, objective_of(settings))
    how = architecture_of(settings, n_clusters), objective, schedule_of(settings)
    key = *how, *settings.hops, settings.gene_neighbors, without, seed
    if key not in data.models:
        data.models[key] = training.fit(inputs, *how, seed=seed).model
    return data.models[key]


def objective_without(names: tuple[str, ...], objective: Objective) -> Objective:
    """The same objective, with some fields of `Losses` left out of the total."""

    class Without(Objective):
        def total(self, terms: Losses) -> torch.Tensor:
            return super().total(terms._replace(**{name: 0 * getattr(terms, name) for name in names}))

    return Without(*objective)


def equally_long(embedded: Embedded) -> Embedded:
    """The same as if all rows of H had one length, so that `shortened_rows` leaves all rows of E at one length."""
    return embedded._replace(lengths=np.ones_like(embedded.lengths))
