"""Shared small data. The repository is flat, so its root is put on the path by pyproject's pythonpath."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


def simulate(n_cells: int = 120, n_genes: int = 80, n_types: int = 3, seed: int = 0) -> ad.AnnData:
    """Negative binomial counts of well separated types, each with its own marker genes."""
    rng = np.random.default_rng(seed)
    types = np.arange(n_cells) % n_types
    mean = np.full((n_types, n_genes), 0.5)
    for i, genes in enumerate(np.array_split(np.arange(n_genes // 2), n_types)):
        mean[i, genes] = 6
    mean = mean[types] * rng.gamma(8, 1 / 8, (n_cells, 1))
    counts = rng.negative_binomial(2, 2 / (2 + mean))
    counts[:, 0] += 1  # no empty cell by accident
    obs = pd.DataFrame({"cell_type1": [f"type {t}" for t in types]}, index=[f"cell-{i}" for i in range(n_cells)])
    var = pd.DataFrame(index=[f"gene-{i}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def counts() -> ad.AnnData:
    return simulate()


@pytest.fixture
def fast() -> dict:
    """Settings of a run that takes a second."""
    return {"epochs": 8, "hidden": 16, "n_top_genes": 60, "n_pcs": 10, "figures": False}
