"""Small cells with clusters, log-normalised, as the ranking of genes takes them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from conftest import simulate
from scipy import sparse

from scrcl.genes.ranking import GROUP


def grouped(values: list[list[float]], groups: list[str], genes: list[str]) -> ad.AnnData:
    """Log-normalised values with clusters."""
    names = [f"cell-{i}" for i in range(len(values))]
    obs = pd.DataFrame({GROUP: pd.Categorical(groups, sorted(set(groups)))}, index=names)
    return ad.AnnData(sparse.csr_matrix(np.array(values, dtype=np.float32)), obs=obs, var=pd.DataFrame(index=genes))


def simulated(n_types: int = 3, n_cells: int = 120) -> ad.AnnData:
    """Log-normalised simulated cells; the markers of type 0 are gene-0 and so on, of type 1 those after them."""
    cells = simulate(n_cells=n_cells, n_types=n_types)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.obs[GROUP] = cells.obs["cell_type1"].astype("category")
    return cells
