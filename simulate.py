"""A simulated layered tissue, for a first look, for tests and for measuring speed. Nothing in it is real."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

THICKNESS = (0.08, 0.14, 0.2, 0.12, 0.2, 0.14, 0.12)  # of the layers L1, L2, ..., as shares of the depth
BEND = 0.1  # of the layers, as a share of the depth
SPACING = 100.0  # um between spots, as on Visium slides


def layered_tissue(n_spots: int = 1600, n_genes: int = 400, seed: int = 0) -> ad.AnnData:
    """Spots x genes of a bent piece of cortex: seven layers of unequal thickness, negative binomial counts.

    Counts are in X (CSR), layers in obs['ground_truth'] (missing for 2 % of the spots), positions
    on a hexagonal grid in obsm['spatial'] (um), obs['array_row'] and obs['array_col'].
    Each layer has markers, half of which it shares with a neighbouring layer; the other half
    of all genes carry no signal. Spots mix with what is next to them, and differ in depth.
    """
    rng = np.random.default_rng(seed)
    width = int(np.ceil(np.sqrt(n_spots * np.sqrt(3) / 2)))
    row, column = np.divmod(np.arange(n_spots), width)
    places = SPACING * np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2])
    borders = np.cumsum(THICKNESS)[:-1] / np.sum(THICKNESS)
    layer = np.searchsorted(borders, _depth(places))
    mixed = np.searchsorted(borders, _depth(places + rng.normal(0, 0.7 * SPACING, places.shape)))

    mean = rng.gamma(0.5, 1.0, n_genes) * np.ones((len(THICKNESS), 1)) + 0.05
    for gene in range(n_genes // 2):
        mean[gene % len(THICKNESS), gene] *= 3
        if gene % 4 < 2:
            mean[min(gene % len(THICKNESS) + 1, len(THICKNESS) - 1), gene] *= 2
    depth = rng.gamma(5, 1 / 5, n_spots)
    counts = np.empty((n_spots, n_genes), dtype=np.float32)
    for start in range(0, n_spots, 10_000):  # a block at a time keeps the random numbers small
        part = slice(start, start + 10_000)
        expected = (0.7 * mean[layer[part]] + 0.3 * mean[mixed[part]]) * depth[part, None]
        counts[part] = rng.negative_binomial(2, 2 / (2 + expected))

    known = pd.Series([f"L{i + 1}" for i in layer], dtype=object)
    known[rng.random(n_spots) < 0.02] = np.nan
    obs = pd.DataFrame(
        {"ground_truth": known.to_numpy(), "array_row": row, "array_col": column},
        index=[f"spot-{i:05d}" for i in range(n_spots)],
    )
    var = pd.DataFrame(index=[f"gene-{i:04d}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=var, obsm={"spatial": places})


def _depth(places: np.ndarray) -> np.ndarray:
    """Depth below a bent surface as a share of the whole, from 0 to 1."""
    x, y = (places / places.max(axis=0)).T
    return (y + BEND * np.sin(np.pi * x)) / (1 + BEND)
