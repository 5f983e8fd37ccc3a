"""Describe the same cells by one half of the genes and by the other; what both show is no accident of a few genes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from scrcl.contents.places import sections
from scrcl.keys import HARMONY, SPATIAL, SPATIAL_WEIGHT
from scrcl.prepare import batches, genes, scales, tissue
from scrcl.prepare.features import Features
from scrcl.prepare.prepared import Matrix, Prepared, pcs_of
from scrcl.recipes import Task
from scrcl.runtime import limited_threads

SPLITS = 2  # random ways to part the genes
DIMS = 20  # PCs of a half, as many as k-means sees
MOST_CELLS = 3_000  # a random part of more, so that the number of clusters does not grow with the number of cells


class Described(NamedTuple):
    """The same cells, described by all genes and by halves of them.

    Attributes
    ----------
    whole
        [N, d], by all genes.
    halves
        Pairs of [N, d], by one random half of the genes and by the other.
    """

    whole: np.ndarray
    halves: list[tuple[np.ndarray, np.ndarray]]


def described(prepared: Prepared, task: Task, seed: int = 0) -> Described:
    """Return PCs of all genes and of random halves of them; for spots with their means over one ring and two.

    Parameters
    ----------
    prepared
        The data set. Of cells, a random MOST_CELLS are described if there are more; of spots, all.
    task
        SC or ST.
    seed
        Decides which cells are taken, and which genes are together.
    """
    rng, cells = np.random.default_rng(seed), prepared.cells
    if task == "SC" and cells.n_obs > MOST_CELLS:
        cells = cells[np.sort(rng.choice(cells.n_obs, MOST_CELLS, replace=False))]
    values = genes.values_for(cells, "scaled", stay_sparse=task == "ST" and prepared.block > 0)
    of_cells = None  # their sizes were checked before; of some cells, a batch may have few
    if prepared.batch_key != "none" and cells.obs[prepared.batch_key].nunique() > 1:
        of_cells = cells.obs[prepared.batch_key].astype(str)
    if of_cells is not None and not isinstance(values, Features):
        values = batches.corrected_values(values, cells.obsm[HARMONY], of_cells)
    if SPATIAL_WEIGHT in cells.var:
        values = tissue.weighted(values, cells)
    members = sections(cells.obs, prepared.section_key) if task == "ST" else None

    def described_by(pcs: np.ndarray) -> np.ndarray:
        # Without the wide mean: it shows drifts across the tissue in both halves, which are real but no domains.
        return scales.at_scales(pcs, cells.obsm[SPATIAL], members, wide=False) if task == "ST" else pcs

    def half(chosen: np.ndarray) -> np.ndarray:
        pcs = _components(values, np.sort(chosen))
        return described_by(pcs if of_cells is None else batches.corrected_points(pcs, of_cells))

    n_genes = values.shape[1]
    parted = [np.array_split(rng.permutation(n_genes), 2) for _ in range(SPLITS)]
    return Described(described_by(pcs_of(cells)[:, :DIMS]), [(half(one), half(other)) for one, other in parted])


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def _components(values: Matrix, chosen: np.ndarray) -> np.ndarray:
    """Return PCs of some genes; also of a single one, or of genes that do not vary."""
    if isinstance(values, Features):
        if len(chosen) > DIMS:
            return genes.principal_components(values.of_genes(chosen), DIMS)
        part = values.columns(chosen)
    else:
        part = values[:, chosen]
    return PCA(min(DIMS, *part.shape), svd_solver="covariance_eigh").fit_transform(part)
