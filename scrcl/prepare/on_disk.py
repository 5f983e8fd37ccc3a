"""Do what `prepare.genes.preprocess` does when values are not in memory and are worked on in blocks of cells."""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import dask.array as da
import numpy as np
import scanpy as sc
import torch
from scipy import sparse

from scrcl import scheduler
from scrcl.contents import values as contents
from scrcl.contents.blocks import ExpressionOnDisk, find_values
from scrcl.contents.features import Features
from scrcl.contents.gene_groups import GeneFilter
from scrcl.contents.values import Conversion, Expression, Values
from scrcl.keys import COUNTS, HIGHLY_VARIABLE, OURS
from scrcl.messages import UserError, log
from scrcl.prepare.filters import Filter
from scrcl.prepare.genes import (
    ANY_GENE,
    NO_FILTER,
    mark_among,
    mark_highly_variable,
    normalised_sum,
    require_differences,
    require_effect,
    require_enough_values,
    seen_often,
)
from scrcl.runtime import limited_threads


def preprocess(
    adata: ad.AnnData,
    layer: str,
    target_sum: str,
    n_top_genes: int,
    hvg_flavor: str,
    min_cells: int,
    keep: Filter = NO_FILTER,
    among: GeneFilter = ANY_GENE,
    values: Values = "auto",
    features: Features = "genes",
) -> tuple[ad.AnnData, str]:
    """Find values that are not in memory, log-normalise them, and keep the highly variable genes.

    This does what `values.find_expression` and `genes.preprocess` do together, but returns the highly variable genes
    only. dask goes through the values three times, or twice when all genes are used: on threads of this process, or on
    a cluster if a client of dask.distributed is connected. Results are the same for any number of threads and workers.
    A block for each thread and the result are in memory.

    Parameters
    ----------
    adata
        Cells or spots x genes, with some or all values on disk or in dask arrays.
    layer, values, features
        As for `values.find_expression`.
    target_sum, n_top_genes, hvg_flavor, min_cells, keep, among
        As for `genes.preprocess`; hvg_flavor cannot be 'seurat_v3'.

    Returns
    -------
    The cells, with X, layers['counts'] where there are counts, obs['scrcl_total'] and var['highly_variable']; and what
    their values are, for people to read.

    Raises
    ------
    UserError
        As the two functions do, and for seurat_v3 and values stored by genes.
    """
    if hvg_flavor == "seurat_v3":
        raise UserError(
            "seurat_v3 needs all values in memory at once, and these are read in blocks; add --hvg-flavor seurat."
        )
    with scheduler.threads(torch.get_num_threads()), limited_threads(1):  # sums in an order that is always the same
        found = _filtered(find_values(adata, layer, values, features), keep)
        require_effect(target_sum, found.kind)
        cells = _without_values(adata, found)
        genes = found.seen.n_cells > 0
        candidates = seen_often(found.seen.n_cells[genes], cells.n_obs, min_cells, among.allows(cells.var))
        asked = _Asked(found.how, normalised_sum(target_sum, found.seen.totals[found.seen.filled]))
        part = ad.AnnData(obs=cells.obs[[]], var=cells.var.loc[candidates, []], uns=cells.uns)
        if part.n_vars > n_top_genes:
            log.info("Choosing highly variable genes.")
            part.X = _normalised(found, asked, np.flatnonzero(genes)[candidates])
        mark_highly_variable(part, n_top_genes, hvg_flavor)  # marks all where there are few, for which it needs no X
        mark_among(cells, candidates, part)
        chosen = cells.var[HIGHLY_VARIABLE].to_numpy()
        cells = cells[:, chosen].copy()
        _gather(cells, found, asked, np.flatnonzero(genes)[chosen])
    require_differences(cells.X)
    return cells, Expression(cells, found.kind, found.slot).in_words()


class _Asked(NamedTuple):
    """How a block is brought to log-normalised values: first converted, then normalised to a sum."""

    how: Conversion
    target_sum: float


def _filtered(found: ExpressionOnDisk, keep: Filter) -> ExpressionOnDisk:
    """Return the values with only those cells taken for filled that are to be used."""
    seen = found.seen
    kept = keep.keep(found.kind, seen.totals, seen.n_genes, seen.mito)
    if (kept == seen.filled).all():
        return found
    n_cells = sum(found.blocks.each(_genes_seen, own=_by_block(found, kept), desc="cells that are kept"))
    return found._replace(seen=seen._replace(filled=kept, n_cells=n_cells))


def _genes_seen(matrix: sparse.csr_matrix, cells: np.ndarray) -> np.ndarray:
    """Return in how many of these cells each gene has a value."""
    return matrix[cells].getnnz(axis=0)


def _by_block(found: ExpressionOnDisk, mask: np.ndarray) -> list[np.ndarray]:
    """Return a mask of cells in parts, one for each block."""
    return [mask[start:stop] for start, stop in found.blocks.bounds]


def _without_values(adata: ad.AnnData, found: ExpressionOnDisk) -> ad.AnnData:
    """Return the cells and genes that have values, but not the values."""
    filled, genes = found.seen.filled, found.seen.n_cells > 0
    cells = ad.AnnData(obs=contents.storable(adata.obs), var=contents.storable(found.var), obsm=contents.foreign(adata))
    cells = cells[filled, genes].copy()
    require_enough_values(*cells.shape)
    if found.kind != "log-normalised":
        cells.obs[OURS.total] = found.seen.totals[filled]
        cells.uns["log1p"] = {"base": None}  # as scanpy notes it
    return cells


def _normalised(found: ExpressionOnDisk, asked: _Asked, genes: np.ndarray) -> da.Array:
    """Return the log-normalised values of the filled cells, for scanpy to choose genes by.

    Blocks are float64: scipy sums a block in the precision of its values, while scanpy uses float64 for values in
    memory.
    """
    cells = _by_block(found, found.seen.filled)
    masks = da.from_array(found.seen.filled[:, None], chunks=(found.blocks.array.chunks[0], 1), name=False)
    sizes = tuple(int(mask.sum()) for mask in cells)
    return da.map_blocks(
        _log_normalised, found.blocks.array, masks, asked, genes, np.float64,
        chunks=(sizes, (len(genes),)), dtype=np.float64, meta=sparse.csr_matrix((0, 0), dtype=np.float64),
    )  # fmt: skip


def _log_normalised(
    matrix: sparse.csr_matrix, cells: np.ndarray, asked: _Asked, genes: np.ndarray, dtype: type = np.float32
) -> sparse.csr_matrix:
    """Return some log-normalised cells and genes of one block."""
    part = ad.AnnData(_converted(matrix, cells, asked.how))
    if asked.how.kind != "log-normalised" and part.n_obs:  # a block may hold none of the cells
        sc.pp.normalize_total(part, target_sum=asked.target_sum)
        sc.pp.log1p(part)
    return part.X[:, genes].astype(dtype)


def _converted(matrix: sparse.csr_matrix, cells: np.ndarray, how: Conversion) -> sparse.csr_matrix:
    """Return some cells of one block, converted."""
    matrix = matrix[cells.ravel()]
    matrix.data = how.convert(matrix.data)
    return matrix


def _both(
    matrix: sparse.csr_matrix, cells: np.ndarray, asked: _Asked, genes: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return some log-normalised cells and genes of one block, and the same values before."""
    before = _converted(matrix, cells, asked.how)[:, genes]
    return _log_normalised(matrix, cells, asked, genes), before.data


def _gather(cells: ad.AnnData, found: ExpressionOnDisk, asked: _Asked, genes: np.ndarray) -> None:
    """Write X, and layers['counts'] where there are counts, for these genes.

    The number of values is known, so arrays of the final size are filled block by block. Joining parts would take twice
    the memory.
    """
    n_stored = int(found.seen.n_cells[genes].sum())
    indptr = np.zeros(cells.n_obs + 1, dtype=np.int32 if n_stored <= np.iinfo(np.int32).max else np.int64)
    indices = np.empty(n_stored, dtype=indptr.dtype)  # scipy wants both index arrays of one type
    normalised = np.empty(n_stored, dtype=np.float32)
    counts = np.empty(n_stored if found.kind == "counts" else 0, dtype=np.float32)
    row = end = 0
    own = _by_block(found, found.seen.filled)
    for part, before in found.blocks.each(_both, asked, genes, own=own, desc="gathering genes"):
        start, end = end, end + part.nnz
        indices[start:end], normalised[start:end] = part.indices, part.data
        if len(counts):
            counts[start:end] = before
        indptr[row + 1 : row + part.shape[0] + 1] = start + part.indptr[1:]
        row += part.shape[0]
    cells.X = sparse.csr_matrix((normalised, indices, indptr), shape=cells.shape)
    if len(counts):
        cells.layers[COUNTS] = sparse.csr_matrix((counts, indices.copy(), indptr.copy()), shape=cells.shape)
