"""Labelled data sets as the benchmarks take them: read, made harder where that is asked for, and prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc

from scrcl.analysis import PREPARE
from scrcl.contents.labels import find_labels
from scrcl.method.network import ScRCL
from scrcl.prepare.prepared import Prepared
from scrcl.readers import source
from scrcl.recipes import RECIPES, Task
from scrcl.runtime import Stopwatch

AS_IT_IS = "as it is"
PREPARING = (  # settings that decide how a data set is prepared, of those that are ever changed here
    *("target_sum", "min_cells", "hvg_flavor", "n_top_genes", "encoder_input", "gene_weights"),
    *("graph_on", "metric", "n_neighbors", "refine_neighbors"),
)


def thinned(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Every count is kept with a probability of one half."""
    adata.X.data = rng.binomial(adata.X.data.astype(int), 0.5).astype(np.float32)
    adata.X.eliminate_zeros()
    return adata


def drawn(adata: ad.AnnData, rng: np.random.Generator, n_cells: int) -> ad.AnnData:
    """So many of the cells, in their order."""
    return adata[np.sort(rng.choice(adata.n_obs, n_cells, replace=False))].copy()


def per_million(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Values that sum to a million in every cell."""
    sc.pp.normalize_total(adata, target_sum=1e6)
    return adata


def log_normalised(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Logarithms of values that sum to 10,000 in every cell."""
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def dominated(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """All cells of the largest type, and so many of the others that it has 65 %.

    Types left with fewer than 5 cells are taken out.
    """
    known = find_labels(adata.obs)
    largest = (known == known.value_counts().index[0]).to_numpy()
    others = np.flatnonzero(~largest)
    chosen = rng.choice(others, min(len(others), int(largest.sum() * 0.35 / 0.65)), replace=False)
    part = adata[np.sort(np.append(np.flatnonzero(largest), chosen))]
    sizes = known[part.obs_names].astype(str).value_counts()
    kept = part[known[part.obs_names].astype(str).map(sizes).to_numpy() >= 5].copy()
    kept.obs[known.name] = kept.obs[known.name].astype(str)
    return kept


def mixed(adata: ad.AnnData, draw: int) -> ad.AnnData:
    """Some of the types, 4 at least, in drawn proportions.

    There are as many cells as the types have for that, 1,500 at most. Types left with fewer than 6 cells are taken out.
    """
    rng = np.random.default_rng(draw)
    known = find_labels(adata.obs).astype(str)
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


INPUTS: dict[str, Callable[[ad.AnnData, np.random.Generator], ad.AnnData]] = {
    AS_IT_IS: lambda adata, rng: adata,
    "half-counts": thinned,
    "half-cells": lambda adata, rng: drawn(adata, rng, adata.n_obs // 2),
    "hundred-cells": lambda adata, rng: drawn(adata, rng, min(100, adata.n_obs)),
    "per-million": per_million,
    "log-normalised": log_normalised,
    "dominated": dominated,
    **{f"mixed-{draw}": lambda adata, rng, draw=draw: mixed(adata, draw) for draw in (1, 2, 3)},
}


@dataclass
class DataSet:
    """A data set as the recipe's settings prepare it, and the models trained on it, so that none is trained twice."""

    task: Task
    prepared: Prepared
    models: dict[tuple, ScRCL] = field(default_factory=dict)


@lru_cache(maxsize=1)
def read(task: Task, dataset: str, kind: str) -> ad.AnnData:
    """The data set, harder in the way that a key of `INPUTS` names."""
    adata = source(dataset, task).read()
    if kind != AS_IT_IS:
        adata = ad.AnnData(adata.X.tocsr().astype(np.float32), obs=adata.obs, var=adata.var[[]], obsm=adata.obsm)
    return INPUTS[kind](adata, np.random.default_rng(0))


def prepared(task: Task, dataset: str, kind: str, settings: dict[str, Any]) -> DataSet:
    """The data set as the recipe with some settings changed prepares it; the last two are kept."""
    relevant = tuple((name, value) for name, value in sorted(settings.items()) if name in PREPARING)
    return _prepared(task, dataset, kind, relevant)


@lru_cache(maxsize=2)
def _prepared(task: Task, dataset: str, kind: str, settings: tuple[tuple[str, Any], ...]) -> DataSet:
    how = RECIPES[task](**dict(settings))
    return DataSet(task, PREPARE[task](read(task, dataset, kind), how, Stopwatch()))


def forget() -> None:
    """Drop what is kept: models of one data set and of the next could fill the memory together."""
    _prepared.cache_clear()
