"""Turn values as read into log-normalised genes, highly variable genes, encoder inputs and PCs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from scrcl.contents.gene_groups import GeneFilter
from scrcl.contents.gene_names import are_mitochondrial
from scrcl.contents.kinds import ValueKind
from scrcl.contents.values import Expression
from scrcl.keys import COUNTS, HIGHLY_VARIABLE, OURS, PCS
from scrcl.messages import UserError, log, one_line
from scrcl.prepare import components
from scrcl.prepare.features import Features
from scrcl.prepare.filters import Filter
from scrcl.runtime import limited_threads

NO_FILTER, ANY_GENE = Filter(), GeneFilter()
PUBLISHED_SUM = 1e4  # sum of a cell's values after normalisation
FEWEST_FOR_A_CURVE = 20  # genes that vary, which seurat_v3 needs for its curve
MAX_SCALED = 10  # standard deviations at which scaled values are clipped


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def preprocess(
    expression: Expression,
    target_sum: str,
    n_top_genes: int,
    hvg_flavor: str,
    min_cells: int,
    keep: Filter = NO_FILTER,
    among: GeneFilter = ANY_GENE,
) -> ad.AnnData:
    """Drop empty cells and genes, log-normalise, and choose highly variable genes.

    Parameters
    ----------
    expression
        The values found in the data.
    target_sum
        What the values of a cell sum to before the logarithm: a number, 'median' or 'auto' (`normalised_sum`).
    n_top_genes, hvg_flavor
        How many HVGs to choose, and how: scanpy's 'seurat', as published for scRNA-seq, or 'seurat_v3', on counts, as
        published for spots.
    min_cells
        HVGs are chosen among the genes seen in so many cells (`seen_often`).
    keep
        What a cell needs in order to be used.
    among
        Which genes may be HVGs.

    Returns
    -------
    `log_normalised` cells with var['highly_variable'].

    Raises
    ------
    UserError
        When fewer than 3 cells or 2 genes have a value, when the cells do not differ, and when target_sum would have no
        effect.
    """
    cells = log_normalised(expression, target_sum, keep)
    require_differences(cells.X)
    _choose_genes(cells, n_top_genes, hvg_flavor, min_cells, among)
    return cells


def log_normalised(expression: Expression, target_sum: str = "auto", keep: Filter = NO_FILTER) -> ad.AnnData:
    """Drop empty cells and genes, and log-normalise what is left.

    Parameters
    ----------
    expression, target_sum, keep
        As for `preprocess`.

    Returns
    -------
    A new AnnData of the cells with at least one count: X log-normalised (all genes, sparse), layers['counts'] when the
    input holds counts, obs['scrcl_total'], the sum of a cell's values before normalisation, unless they were
    logarithms.

    Raises
    ------
    UserError
        When fewer than 3 cells or 2 genes have a value, and when target_sum would have no effect.
    """
    cells, kind, _ = expression
    require_effect(target_sum, kind)
    totals = np.asarray(cells.X.sum(axis=1, dtype=np.float64)).ravel()
    mito = cells.X @ are_mitochondrial(cells.var).astype(np.float64)
    cells = cells[keep.keep(kind, totals, cells.X.getnnz(axis=1), mito)].copy()
    cells = cells[:, cells.X.getnnz(axis=0) > 0].copy()
    require_enough_values(*cells.shape)
    if kind == "counts":
        cells.layers[COUNTS] = cells.X.copy()
    if kind != "log-normalised":
        cells.obs[OURS.total] = np.asarray(cells.X.sum(axis=1, dtype=np.float64)).ravel()
        _normalise(cells, target_sum)
    return cells


def _normalise(cells: ad.AnnData, target_sum: str) -> None:
    """Turn X from counts into the logarithms of values that sum to target_sum in each cell."""
    sc.pp.normalize_total(cells, target_sum=normalised_sum(target_sum, cells.obs[OURS.total]))
    sc.pp.log1p(cells)


@limited_threads(1)  # as `preprocess`
def normalised_anew(
    cells: ad.AnnData, target_sum: str, n_top_genes: int, hvg_flavor: str, min_cells: int, among: GeneFilter
) -> None:
    """Normalise preprocessed cells with counts to another sum, and choose highly variable genes anew.

    Parameters
    ----------
    cells
        From `preprocess`, with layers['counts']. X and var['highly_variable'] are written.
    target_sum, n_top_genes, hvg_flavor, min_cells, among
        As for `preprocess`.
    """
    cells.X = cells.layers[COUNTS].copy()
    del cells.uns["log1p"]  # else scanpy takes the counts for logarithms
    _normalise(cells, target_sum)
    _choose_genes(cells, n_top_genes, hvg_flavor, min_cells, among)


def require_enough_values(n_cells: int, n_genes: int) -> None:
    """Raise UserError when fewer than 3 cells or 2 genes have a value."""
    if n_cells < 3 or n_genes < 2:
        raise UserError(
            f"Only {n_cells} cells and {n_genes} genes have a value above 0; at least 3 cells and 2 genes are needed."
        )


def normalised_sum(asked: str, totals: Sequence[float] | np.ndarray | pd.Series) -> float:
    """Return what the values of a cell sum to before the logarithm.

    Parameters
    ----------
    asked
        A number, 'median' for the median of `totals`, as in scanpy, or 'auto' for 10,000.
    totals
        [N], the sum of each cell's values.
    """
    if asked == "auto":
        return PUBLISHED_SUM
    return float(np.median(totals)) if asked == "median" else float(asked)


def require_effect(target_sum: str, kind: ValueKind) -> None:
    """Raise UserError when the values are logarithms already and a sum other than the usual 10,000 is asked for."""
    if kind == "log-normalised" and (target_sum == "median" or normalised_sum(target_sum, ()) != PUBLISHED_SUM):
        raise UserError(
            "--target-sum has no effect on values that are log-normalised already; leave it out, or give counts."
        )


def depth_in_first_pc(cells: ad.AnnData) -> float:
    """Return how much of the first PC is explained by the number of counts of a cell.

    log1p adds 1 to every value. When a few hundred counts are scaled up to 10,000, that 1 is a small part of one count:
    a gene seen once is then far from one not seen, and how many genes are seen depends on the number of counts
    (Ahlmann-Eltze and Huber 2023, Comparison of transformations for single-cell RNA-seq data).

    Parameters
    ----------
    cells
        Cells with obsm['X_pca'] and, unless they were logarithms, obs['scrcl_total'].

    Returns
    -------
    The share of the variance of the first PC that the logarithm of a cell's counts explains (R^2, 0 to 1); 0 when the
    values were logarithms.
    """
    if OURS.total not in cells.obs:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 when all cells have equally many counts
        return float(np.nan_to_num(np.corrcoef(cells.obsm[PCS][:, 0], np.log(cells.obs[OURS.total]))[0, 1]) ** 2)


def blown_up(cells: ad.AnnData) -> bool:
    """Return whether most cells have fewer counts than the 10,000 they were normalised to."""
    return cells.obs[OURS.total].median() < PUBLISHED_SUM


def _choose_genes(cells: ad.AnnData, n_top_genes: int, flavor: str, min_cells: int, among: GeneFilter) -> None:
    """Write var['highly_variable'], chosen among the genes seen often enough."""
    candidates = seen_often(cells.X.getnnz(axis=0), cells.n_obs, min_cells, among.allows(cells.var))
    layers = {COUNTS: cells.layers[COUNTS]} if flavor == "seurat_v3" and COUNTS in cells.layers else None
    part = ad.AnnData(cells.X, var=cells.var[[]], uns=cells.uns, layers=layers)
    if not candidates.all():
        part = part[:, candidates].copy()
    mark_highly_variable(part, n_top_genes, flavor)
    mark_among(cells, candidates, part)


def seen_often(n_cells_of: np.ndarray, n_cells: int, min_cells: int, allowed: np.ndarray) -> np.ndarray:
    """Return which genes may be highly variable, namely those seen in enough cells, of those that are allowed.

    Enough is min_cells cells, or a tenth of all cells if that is less. A gene seen in one cell of a hundred sets that
    cell apart from all others but separates no groups. The flavour 'seurat' ranks such genes first, since their
    dispersion is large for their mean.

    Parameters
    ----------
    n_cells_of
        [G], in how many cells each gene has a value.
    n_cells, min_cells
        The number of all cells, and the number asked for.
    allowed
        [G] booleans.

    Returns
    -------
    [G] booleans; all that are allowed when fewer than 2 genes are seen often enough.
    """
    often = allowed & (n_cells_of >= min(min_cells, n_cells // 10))
    return often if often.sum() >= 2 else allowed


def mark_among(cells: ad.AnnData, candidates: np.ndarray, part: ad.AnnData) -> None:
    """Write var['highly_variable'] of all genes, and what scanpy notes in uns.

    Parameters
    ----------
    cells
        Cells with all genes, which are written to.
    candidates
        [G] booleans, the genes that could be chosen.
    part
        The same cells with the candidates only, marked by `mark_highly_variable`.
    """
    chosen = np.zeros(cells.n_vars, dtype=bool)
    chosen[candidates] = part.var[HIGHLY_VARIABLE]
    cells.var[HIGHLY_VARIABLE] = chosen
    cells.uns.update(part.uns)


def require_differences(values: sparse.csr_matrix) -> None:
    """Raise UserError when fewer than 2 genes vary between the cells."""

    def varying(part: sparse.csr_matrix) -> int:
        return (part.max(axis=0) - part.min(axis=0)).nnz

    if varying(values[:1000]) >= 2:  # a few cells nearly always tell
        return
    varies = varying(values)
    if varies < 2:
        raise UserError(
            f"The cells do not differ: {varies} genes vary between them after normalisation, and at least 2 must."
        )


def mark_highly_variable(cells: ad.AnnData, n_top_genes: int, flavor: str) -> None:
    """Write var['highly_variable']: n_top_genes genes, or all if there are no more than that.

    Parameters
    ----------
    cells
        Cells with X log-normalised and, for 'seurat_v3', layers['counts'].
    n_top_genes, flavor
        As n_top_genes and hvg_flavor of `preprocess`.

    Raises
    ------
    UserError
        When 'seurat_v3' cannot be used on these data.
    """
    if cells.n_vars > n_top_genes and flavor == "seurat_v3":
        _seurat_v3(cells, n_top_genes)
        return
    if cells.n_vars > n_top_genes:
        _by_dispersion(cells, n_top_genes, flavor)
        return
    if cells.n_vars < n_top_genes:
        log.info(
            "Only %d genes have values in enough cells, fewer than the %d highly variable ones asked for: "
            "all of them are used.",
            cells.n_vars,
            n_top_genes,
        )
    cells.var[HIGHLY_VARIABLE] = True


def _by_dispersion(cells: ad.AnnData, n_top_genes: int, flavor: str) -> None:
    """Write var['highly_variable'] by one of scanpy's flavours; all genes where it finds fewer than 2."""
    try:
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top_genes, flavor=flavor)
        found = cells.var[HIGHLY_VARIABLE].sum()
    except IndexError:  # scanpy raises it when no gene's dispersion can be compared with another's
        found = 0
    if found < 2:
        log.info("Only %d genes are highly variable: all are used.", found)
        cells.var[HIGHLY_VARIABLE] = True


def _seurat_v3(cells: ad.AnnData, n_top_genes: int) -> None:
    """Write var['highly_variable'] by the flavour 'seurat_v3', or raise UserError with its reason."""
    if COUNTS not in cells.layers:
        raise UserError("seurat_v3 chooses genes by counts, and the data hold none; add --hvg-flavor seurat.")
    counts = cells.layers[COUNTS]
    varying = (counts.max(axis=0) - counts.min(axis=0)).nnz
    if varying < FEWEST_FOR_A_CURVE:  # its library crashes on a handful of genes
        raise UserError(
            f"seurat_v3 fits a curve through the genes, of which only {varying} vary; add --hvg-flavor seurat."
        )
    try:
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top_genes, flavor="seurat_v3", layer=COUNTS)
    except ImportError as error:
        raise UserError(
            "seurat_v3 needs scikit-misc; `pip install scikit-misc`, or add --hvg-flavor seurat."
        ) from error
    except ValueError as error:  # its local regression fails on few cells with few counts
        raise UserError(f"seurat_v3 fails on these data ({one_line(error)}); add --hvg-flavor seurat.") from error


def values_for(cells: ad.AnnData, choice: str, stay_sparse: bool, device: str = "cpu") -> np.ndarray | Features:
    """Return `encoder_values`, sparse or dense; `device` is that of `Features`."""
    return (
        replace(sparse_encoder_values(cells, choice), device=device) if stay_sparse else encoder_values(cells, choice)
    )


def encoder_values(cells: ad.AnnData, choice: str) -> np.ndarray:
    """Return the highly variable genes as the encoders see them.

    Parameters
    ----------
    cells
        Cells with X log-normalised, var['highly_variable'] and, for 'counts', layers['counts'].
    choice
        'scaled' (log-normalised, zero mean, unit variance, clipped at 10 sd), 'uncentred' (the same without subtracting
        the mean, as published for spots), 'lognorm', or 'counts' (as published for cells).

    Returns
    -------
    [N, G] dense float32.

    Raises
    ------
    UserError
        When the choice is 'counts' and there are none.
    """
    genes = cells[:, cells.var[HIGHLY_VARIABLE]]
    if choice == "counts":
        _require_counts(cells)
    values = (genes.layers[COUNTS] if choice == "counts" else genes.X).toarray()
    if choice in ("scaled", "uncentred"):
        values = sc.pp.scale(values, zero_center=choice == "scaled", max_value=MAX_SCALED, copy=True)
    return np.asarray(values, dtype=np.float32)


def _require_counts(cells: ad.AnnData) -> None:
    """Raise UserError when there are no counts for the encoders."""
    if COUNTS not in cells.layers:
        raise UserError(
            "These settings feed raw counts to the encoders, but the data hold none; "
            "add --encoder-input lognorm, or use data with counts."
        )


def sparse_encoder_values(cells: ad.AnnData, choice: str) -> Features:
    """Return `encoder_values` without forming a dense matrix.

    clip((x - m) / s) + min(m / s, 10) is 0 where x is 0. That sum is stored, and min(m / s, 10) is the offset of
    `Features`.

    Parameters
    ----------
    cells, choice
        As for `encoder_values`.

    Raises
    ------
    UserError
        When the choice is 'counts' and there are none.
    """
    genes = cells[:, cells.var[HIGHLY_VARIABLE]]
    if choice == "counts":
        _require_counts(cells)
    values = sparse.csr_matrix(genes.layers[COUNTS] if choice == "counts" else genes.X, dtype=np.float32, copy=True)
    offset = np.zeros(values.shape[1], dtype=np.float32)
    if choice in ("scaled", "uncentred"):
        mean, variance = mean_variance_axis(values, axis=0)
        scale = np.sqrt(variance * (len(cells) / (len(cells) - 1)))  # the sample's variance, as in scanpy
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        centre = (mean / scale).astype(np.float32) if choice == "scaled" else offset
        offset = np.minimum(centre, MAX_SCALED)
        values.data /= scale[values.indices]
        values.data -= centre[values.indices]
        np.clip(values.data, -MAX_SCALED, MAX_SCALED, out=values.data)
        values.data += offset[values.indices]
    return Features(values, offset)


def principal_components(values: np.ndarray | Features, n_pcs: int, device: str = "cpu") -> np.ndarray:
    """Return the first principal components of values.

    Parameters
    ----------
    values
        [N, G].
    n_pcs
        How many; fewer are returned where there are no more.
    device
        Where dense values are worked on: 'cpu', or a CUDA card. Sparse ones have their own.

    Returns
    -------
    [N, n_pcs] float32.
    """
    n_pcs = min(n_pcs, min(values.shape) - 1)
    if isinstance(values, Features):
        return _components_of_gram(values, n_pcs)
    if device != "cpu":
        return components.components(values, n_pcs, device).astype(np.float32)
    with limited_threads(1):  # so that the order of sums does not depend on the number of threads
        return sc.pp.pca(values, n_comps=n_pcs, random_state=0)


def _components_of_gram(features: Features, n_pcs: int) -> np.ndarray:
    """Return PCs from the products of genes, which `graphs.gene_graph` needs as well."""
    n_cells = features.shape[0]
    axes = components.principal_axes(features.gram / n_cells - np.outer(features.mean, features.mean), n_pcs)
    return features.times(axes) - (features.mean @ axes).astype(np.float32)
