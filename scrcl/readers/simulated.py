"""Simulate a layered tissue, or any number of cells, for a first look, for tests and for measuring speed.

Nothing in these data is real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

THICKNESS = (0.08, 0.14, 0.2, 0.12, 0.2, 0.14, 0.12)  # of layers L1, L2, ..., as shares of the depth
BEND = 0.1  # how far the layers bend, as a share of the depth
SPACING = 100.0  # um between spots, as on Visium slides


def layered_tissue(n_spots: int = 1600, n_genes: int = 400, seed: int = 0) -> ad.AnnData:
    """Return a simulated bent piece of cortex: seven layers of unequal thickness, with negative binomial counts.

    Each layer has markers, half of which it shares with a neighbouring layer. The other half of all genes carry no
    signal. Spots mix with what is next to them, and differ in depth.

    Parameters
    ----------
    n_spots, n_genes
        N and G.
    seed
        The same seed gives the same tissue.

    Returns
    -------
    Spots x genes: counts in X (CSR), layers in obs['ground_truth'] (missing for 2 % of the spots), positions on a
    hexagonal grid in obsm['spatial'] (um), obs['array_row'] and obs['array_col'].
    """
    rng = np.random.default_rng(seed)
    width = int(np.ceil(np.sqrt(n_spots * np.sqrt(3) / 2)))
    row, column = np.divmod(np.arange(n_spots), width)
    places = SPACING * np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2])
    borders = np.cumsum(THICKNESS)[:-1] / np.sum(THICKNESS)
    layer = np.searchsorted(borders, _depth(places))
    # Each spot also takes up RNA from a place nearby, which may lie in another layer.
    mixed = np.searchsorted(borders, _depth(places + rng.normal(0, 0.7 * SPACING, places.shape)))

    mean = rng.gamma(0.5, 1.0, n_genes) * np.ones((len(THICKNESS), 1)) + 0.05
    for gene in range(n_genes // 2):
        mean[gene % len(THICKNESS), gene] *= 3
        if gene % 4 < 2:
            mean[min(gene % len(THICKNESS) + 1, len(THICKNESS) - 1), gene] *= 2
    depth = rng.gamma(5, 1 / 5, n_spots)
    counts = np.empty((n_spots, n_genes), dtype=np.float32)
    for start in range(0, n_spots, 10_000):  # in blocks, to keep the arrays of random numbers small
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
    """Return the depth below a bent surface, as a share of the whole depth from 0 to 1."""
    x, y = (places / places.max(axis=0)).T
    return (y + BEND * np.sin(np.pi * x)) / (1 + BEND)


BLOCK = 10_000  # cells simulated at a time, to keep the arrays of random numbers small
MARKER_FOLD = 6.0  # how many times more of its markers a type expresses


def write_cells(path: Path, n_cells: int, n_genes: int = 5000, n_types: int = 20, mean_counts: float = 400.0) -> None:
    """Write an h5ad file of simulated cells, one block of cells at a time.

    The file has counts in X (CSR float32) and types in obs['cell_type']. The same arguments give the same file. See
    `cell_blocks` for what is simulated.

    Parameters
    ----------
    path
        The file.
    n_cells, n_genes, n_types
        How many cells, genes and types.
    mean_counts
        Mean number of counts of a cell. 400 in 5,000 genes leave about 5 % of the values other than 0.
    """
    types: list[np.ndarray] = []
    with h5py.File(path, "w") as file:
        for counts, kind in cell_blocks(n_cells, n_genes, n_types, mean_counts):
            if types:
                ad.io.sparse_dataset(file["X"]).append(counts)
            else:
                var = pd.DataFrame(index=[f"gene-{i:04d}" for i in range(n_genes)])
                ad.io.write_elem(file, "/", ad.AnnData(counts, var=var))
            types.append(kind)
        # obs is written last, since the types are known only once all cells are simulated.
        names = [f"type {i + 1}" for i in np.concatenate(types)]
        obs = pd.DataFrame({"cell_type": pd.Categorical(names)}, index=[f"cell-{i:07d}" for i in range(n_cells)])
        ad.io.write_elem(file, "obs", obs)


def cell_blocks(
    n_cells: int, n_genes: int, n_types: int, mean_counts: float, seed: int = 0
) -> Iterator[tuple[sparse.csr_matrix, np.ndarray]]:
    """Yield simulated cells, one block at a time.

    Types are of unequal size: the k-th has 1/k of the cells of the largest. Each type has 2 % of all genes as markers.
    Every cell is also in one of five states, which cross the types and make up a twentieth of its RNA. A cell's depth
    is gamma distributed, so with Poisson sampling a gene's counts are negative binomial among the cells of a type and
    state.

    Parameters
    ----------
    n_cells, n_genes, n_types
        How many cells, genes and types.
    mean_counts
        Mean number of counts of a cell.
    seed
        The same seed gives the same cells.

    Yields
    ------
    Counts [block, G], float32 CSR, and types [block], integers from 0.
    """
    rng = np.random.default_rng(seed)
    base = rng.gamma(0.5, 1.0, n_genes) + 0.01
    profiles = np.tile(base, (n_types, 1))
    for profile in profiles:
        profile[rng.choice(n_genes, max(1, n_genes // 50), replace=False)] *= MARKER_FOLD
    states = base * rng.gamma(0.5, 2.0, (5, n_genes))
    profiles, states = (table / table.sum(axis=1, keepdims=True) for table in (profiles, states))
    mixed = (0.95 * profiles[:, None] + 0.05 * states).reshape(-1, n_genes).cumsum(axis=1)
    share = 1 / np.arange(1, n_types + 1)
    for start in range(0, n_cells, BLOCK):
        size = min(BLOCK, n_cells - start)
        kind = rng.choice(n_types, size, p=share / share.sum())
        group = kind * len(states) + rng.integers(len(states), size=size)
        depth = rng.poisson(rng.gamma(4, mean_counts / 4, size))
        genes = np.empty(depth.sum(), dtype=np.int64)
        cells = np.repeat(np.arange(size), depth)
        for own in np.unique(group):
            mine = np.flatnonzero(group[cells] == own)
            # Draw a gene for every count, by inverting the cumulative profile.
            genes[mine] = np.searchsorted(mixed[own] / mixed[own, -1], rng.random(len(mine)))
        ones = np.ones(len(genes), dtype=np.float32)
        yield sparse.coo_matrix((ones, (cells, genes)), shape=(size, n_genes)).tocsr(), kind
