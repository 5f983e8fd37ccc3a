"""From values as read to log-normalised genes, highly variable genes, what the encoders see, and PCs."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import linalg, sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from scrcl.contents.values import Expression, ValueKind
from scrcl.keys import COUNTS, HIGHLY_VARIABLE, OURS, PCS
from scrcl.messages import UserError, log, one_line
from scrcl.prepare.features import Features
from scrcl.runtime import limited_threads

PUBLISHED_SUM = 1e4  # values of a cell after normalisation
FEWEST_FOR_A_CURVE = 20  # genes
MAX_SCALED = 10  # standard deviations at which scaled values are clipped


@limited_threads(1)  # sums in an order that the number of threads does not change
def preprocess(
    expression: Expression, target_sum: str, n_top_genes: int, hvg_flavor: str, min_cells: int
) -> ad.AnnData:
    """Drop empty cells and genes, log-normalise, and choose highly variable genes.

    Parameters
    ----------
    expression
        What was found in the data.
    target_sum
        What the values of a cell sum up to before the logarithm: a number, 'median' or 'auto' (`normalised_sum`).
    n_top_genes, hvg_flavor
        How many HVGs, by scanpy's 'seurat' flavour, as published for scRNA-seq, or by 'seurat_v3', on counts, as
        published for spots.
    min_cells
        They are chosen among the genes seen in so many cells (`seen_often`).

    Returns
    -------
    `log_normalised` cells with var['highly_variable'].

    Raises
    ------
    UserError
        Where fewer than 3 cells or 2 genes have a value, and for a target_sum that would have no effect.
    """
    cells = log_normalised(expression, target_sum)
    _require_differences(cells.X)
    _choose_genes(cells, n_top_genes, hvg_flavor, min_cells)
    return cells


def log_normalised(expression: Expression, target_sum: str = "auto") -> ad.AnnData:
    """Drop empty cells and genes, and log-normalise what is left.

    Returns
    -------
    A new AnnData of the cells with at least one count: X log-normalised (all genes, sparse), layers['counts'] where the
    input holds counts, obs['scrcl_total'], the sum of a cell's values before, unless they were logarithms.

    Raises
    ------
    UserError
        As `preprocess` does.
    """
    cells, kind, _ = expression
    require_effect(target_sum, kind)
    n_all = cells.n_obs
    cells = cells[cells.X.getnnz(axis=1) > 0].copy()
    cells = cells[:, cells.X.getnnz(axis=0) > 0].copy()
    if n_all > cells.n_obs:
        log.info("%d of %d cells have no counts at all: left out, without a label.", n_all - cells.n_obs, n_all)
    require_enough_values(*cells.shape)
    if kind == "counts":
        cells.layers[COUNTS] = cells.X.copy()
    if kind != "log-normalised":
        cells.obs[OURS.total] = np.asarray(cells.X.sum(axis=1, dtype=np.float64)).ravel()
        sc.pp.normalize_total(cells, target_sum=normalised_sum(target_sum, cells.obs[OURS.total]))
        sc.pp.log1p(cells)
    return cells


def require_enough_values(n_cells: int, n_genes: int) -> None:
    """Raise UserError where fewer than 3 cells or 2 genes have a value."""
    if n_cells < 3 or n_genes < 2:
        raise UserError(
            f"Only {n_cells} cells and {n_genes} genes have a value above 0; at least 3 cells and 2 genes are needed."
        )


def normalised_sum(asked: str, totals: Sequence[float] | np.ndarray | pd.Series) -> float:
    """What the values of a cell sum up to before the logarithm.

    The number asked for; for 'median' that of totals, [N], as in scanpy; for 'auto' 10,000.
    """
    if asked == "auto":
        return PUBLISHED_SUM
    return float(np.median(totals)) if asked == "median" else float(asked)


def require_effect(target_sum: str, kind: ValueKind) -> None:
    """Raise UserError where the logarithm is taken already and another sum than the usual 10,000 is asked for."""
    if kind == "log-normalised" and (target_sum == "median" or normalised_sum(target_sum, ()) != PUBLISHED_SUM):
        raise UserError(
            "--target-sum has no effect on values that are log-normalised already; leave it out, or give counts."
        )


def depth_in_first_pc(cells: ad.AnnData) -> float:
    """Share of the variance of the first PC, obsm['X_pca'], that the logarithm of a cell's counts explains (R^2, 0 to 1); 0 where the values are no counts.

    log1p adds 1 to every value. Of a few hundred counts blown up to 10,000 that is a small part of one count: a gene seen once
    is then far from one not seen, and how many are seen depends on the number of counts (Ahlmann-Eltze and Huber
    2023, Comparison of transformations for single-cell RNA-seq data).
    """
    if COUNTS not in cells.layers:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # cells of equally many counts
        return float(np.nan_to_num(np.corrcoef(cells.obsm[PCS][:, 0], np.log(cells.obs[OURS.total]))[0, 1]) ** 2)


def blown_up(cells: ad.AnnData) -> bool:
    """Whether most cells have fewer counts than 10,000, to which they were normalised."""
    return cells.obs[OURS.total].median() < PUBLISHED_SUM


def _choose_genes(cells: ad.AnnData, n_top_genes: int, flavor: str, min_cells: int) -> None:
    """Write var['highly_variable']: genes among those that are seen often enough."""
    candidates = seen_often(cells.X.getnnz(axis=0), cells.n_obs, min_cells)
    part = ad.AnnData(cells.X, var=cells.var[[]], uns=cells.uns, layers=cells.layers if flavor == "seurat_v3" else None)
    if not candidates.all():
        part = part[:, candidates].copy()
    mark_highly_variable(part, n_top_genes, flavor)
    mark_among(cells, candidates, part)


def seen_often(n_cells_of: np.ndarray, n_cells: int, min_cells: int) -> np.ndarray:
    """Which genes may be highly variable: those seen in min_cells cells, or in a tenth of all where that is less. All, where fewer than 2 are.

    A gene seen in one cell of a hundred tells that cell from all others and no group from another, and the flavour 'seurat'
    ranks such genes first: their dispersion is large for their mean.
    n_cells_of: [G], in how many of n_cells cells each gene has a value. Returns [G] booleans.
    """
    often = n_cells_of >= min(min_cells, n_cells // 10)
    return often if often.sum() >= 2 else np.ones_like(often)


def mark_among(cells: ad.AnnData, candidates: np.ndarray, part: ad.AnnData) -> None:
    """Write var['highly_variable'] of all genes, and what scanpy notes in uns, from part, which holds the candidates, [G] booleans."""
    chosen = np.zeros(cells.n_vars, dtype=bool)
    chosen[candidates] = part.var[HIGHLY_VARIABLE]
    cells.var[HIGHLY_VARIABLE] = chosen
    cells.uns.update(part.uns)


def _require_differences(values: sparse.csr_matrix) -> None:
    varies = (values.max(axis=0) - values.min(axis=0)).nnz
    if varies < 2:
        raise UserError(
            f"The cells do not differ: {varies} genes vary between them after normalisation, and at least 2 must."
        )


def mark_highly_variable(cells: ad.AnnData, n_top_genes: int, flavor: str) -> None:
    """Write var['highly_variable']: n_top_genes genes, or all where there are no more than that."""
    if cells.n_vars > n_top_genes and flavor == "seurat_v3":
        _seurat_v3(cells, n_top_genes)
        return
    if cells.n_vars > n_top_genes:
        _by_dispersion(cells, n_top_genes, flavor)
        return
    if cells.n_vars < n_top_genes:
        log.info(
            "Only %d genes have values in enough cells, fewer than the %d highly variable ones asked for: all of them are used.",
            cells.n_vars,
            n_top_genes,
        )
    cells.var[HIGHLY_VARIABLE] = True


def _by_dispersion(cells: ad.AnnData, n_top_genes: int, flavor: str) -> None:
    try:
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top_genes, flavor=flavor)
        found = cells.var[HIGHLY_VARIABLE].sum()
    except IndexError:  # where no gene's dispersion can be compared with that of another
        found = 0
    if found < 2:
        log.info("Only %d genes are highly variable: all are used.", found)
        cells.var[HIGHLY_VARIABLE] = True


def _seurat_v3(cells: ad.AnnData, n_top_genes: int) -> None:
    if COUNTS not in cells.layers:
        raise UserError("seurat_v3 chooses genes by counts, and the data hold none; add --hvg-flavor seurat.")
    counts = cells.layers[COUNTS]
    varying = (counts.max(axis=0) - counts.min(axis=0)).nnz
    if varying < FEWEST_FOR_A_CURVE:  # its library crashes on a handful
        raise UserError(
            f"seurat_v3 fits a curve through the genes, of which only {varying} vary; add --hvg-flavor seurat."
        )
    try:
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top_genes, flavor="seurat_v3", layer=COUNTS)
    except ImportError as error:
        raise UserError(
            "seurat_v3 needs scikit-misc; `pip install scrcl[seurat-v3]`, or add --hvg-flavor seurat."
        ) from error
    except ValueError as error:  # its local regression fails on few cells with few counts
        raise UserError(f"seurat_v3 fails on these data ({one_line(error)}); add --hvg-flavor seurat.") from error


def encoder_values(cells: ad.AnnData, choice: str) -> np.ndarray:
    """The highly variable genes as the encoders see them: [N, G] dense float32.

    choice: 'scaled' (log-normalised, zero mean, unit variance, clipped at 10 sd),
    'uncentred' (the same without taking the mean off, as published for spots), 'lognorm',
    or 'counts' (as published for cells). Raises UserError for counts that are not there.
    """
    genes = cells[:, cells.var[HIGHLY_VARIABLE]]
    if choice == "counts":
        _require_counts(cells)
    values = (genes.layers[COUNTS] if choice == "counts" else genes.X).toarray()
    if choice in ("scaled", "uncentred"):
        values = sc.pp.scale(values, zero_center=choice == "scaled", max_value=MAX_SCALED, copy=True)
    return np.asarray(values, dtype=np.float32)


def _require_counts(cells: ad.AnnData) -> None:
    if COUNTS not in cells.layers:
        raise UserError(
            "These settings feed raw counts to the encoders, but the data hold none; add --encoder-input lognorm, or use data with counts."
        )


def sparse_encoder_values(cells: ad.AnnData, choice: str) -> Features:
    """encoder_values without a dense matrix: clip((x - m) / s) + min(m / s, 10) is 0 where x is."""
    genes = cells[:, cells.var[HIGHLY_VARIABLE]]
    if choice == "counts":
        _require_counts(cells)
    values = sparse.csr_matrix(genes.layers[COUNTS] if choice == "counts" else genes.X, dtype=np.float32, copy=True)
    offset = np.zeros(values.shape[1], dtype=np.float32)
    if choice in ("scaled", "uncentred"):
        mean, variance = mean_variance_axis(values, axis=0)
        scale = np.sqrt(variance * (len(cells) / (len(cells) - 1)))
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        centre = (mean / scale).astype(np.float32) if choice == "scaled" else offset
        offset = np.minimum(centre, MAX_SCALED)
        values.data /= scale[values.indices]
        values.data -= centre[values.indices]
        np.clip(values.data, -MAX_SCALED, MAX_SCALED, out=values.data)
        values.data += offset[values.indices]
    return Features(values, offset)


def principal_components(values: np.ndarray | Features, n_pcs: int) -> np.ndarray:
    """The first n_pcs principal components of [N, G] values, or as many as there are; float32."""
    n_pcs = min(n_pcs, min(values.shape) - 1)
    if isinstance(values, Features):
        return _components_of_gram(values, n_pcs)
    with limited_threads(1):  # sums in an order that the number of threads does not change
        return sc.pp.pca(values, n_comps=n_pcs, random_state=0)


def _components_of_gram(features: Features, n_pcs: int) -> np.ndarray:
    """PCs from the products of genes, which distances between genes are made of as well (graphs.gene_graph)."""
    n_cells, n_genes = features.shape
    covariance = features.gram / n_cells - np.outer(features.mean, features.mean)
    _, axes = linalg.eigh(covariance, subset_by_index=(n_genes - n_pcs, n_genes - 1))
    axes = axes[:, ::-1]  # the largest variance first
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_pcs)])  # else the sign is arbitrary
    return features.times(axes) - (features.mean @ axes).astype(np.float32)
