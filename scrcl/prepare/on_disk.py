"""What `prepare.genes.preprocess` does, for values that stay on the disk and are worked through in blocks of cells."""

from __future__ import annotations

import anndata as ad
import dask
import dask.array as da
import numpy as np
import scanpy as sc
from scipy import sparse

from scrcl.contents import values as contents
from scrcl.contents.blocks import Found, find_values
from scrcl.contents.values import Expression
from scrcl.keys import COUNTS, HIGHLY_VARIABLE, OURS
from scrcl.messages import UserError, log, progress
from scrcl.prepare.genes import (
    mark_among,
    mark_highly_variable,
    normalised_sum,
    require_effect,
    require_enough_values,
    seen_often,
)
from scrcl.runtime import limited_threads


class Normalised:
    """Blocks of the cells and genes that have values, log-normalised; and the range of each gene over what was read.

    sizes: of each block with such cells, their number; lowest and highest: [G] float32, of the values that are not 0.
    """

    def __init__(self, found: Found, target_sum: str) -> None:
        self.found = found
        self.sum = normalised_sum(target_sum, found.seen.totals[found.seen.filled])
        genes = found.seen.n_cells > 0
        self.n_genes = int(genes.sum())
        self._column = (np.cumsum(genes) - 1).astype(np.int32)
        sizes = [int(found.seen.filled[start:stop].sum()) for start, stop in found.blocks.bounds]
        self.sizes = {block: size for block, size in enumerate(sizes) if size}
        self.lowest = np.full(self.n_genes, np.inf, dtype=np.float32)
        self.highest = np.zeros(self.n_genes, dtype=np.float32)

    def read(self, block: int) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Log-normalised values of one block; and the values before, in the order in which a CSR matrix stores them."""
        matrix = self.found.blocks.read(block)
        if self.found.undo:
            matrix.data = contents.counts_of(matrix.data)
        filled = self.found.seen.filled[slice(*self.found.blocks.bounds[block])]
        starts = np.append(matrix.indptr[:-1][filled], matrix.indptr[-1])  # cells without a value hold none
        matrix = sparse.csr_matrix(
            (matrix.data, self._column[matrix.indices], starts), shape=(len(starts) - 1, self.n_genes)
        )
        before = matrix.data.copy()
        if self.found.kind != "log-normalised":
            cells = ad.AnnData(matrix)
            sc.pp.normalize_total(cells, target_sum=self.sum)
            sc.pp.log1p(cells)
            matrix = cells.X
        np.minimum.at(self.lowest, matrix.indices, matrix.data)
        np.maximum.at(self.highest, matrix.indices, matrix.data)
        return matrix, before

    def require_differences(self) -> None:
        """Raise UserError where the cells do not differ, once all blocks were read."""
        everywhere = self.found.seen.n_cells[self.found.seen.n_cells > 0] == sum(self.sizes.values())
        varies = int((self.highest > np.where(everywhere, self.lowest, 0)).sum())
        if varies < 2:
            raise UserError(
                f"The cells do not differ: {varies} genes vary between them after normalisation, and at least 2 must."
            )


@limited_threads(1)  # sums in an order that the number of threads does not change
def preprocess(
    adata: ad.AnnData, layer: str, target_sum: str, n_top_genes: int, hvg_flavor: str, min_cells: int
) -> tuple[ad.AnnData, str]:
    """What contents.find_expression and preprocess.preprocess give together, of the highly variable genes only.

    adata: values on disk, or in part. Goes through those it uses three times, or twice where all genes are
    used; holds one block and what it returns: the cells, and in words what values they are.
    Raises UserError where those do, for seurat_v3, and for values stored by genes.
    """
    if hvg_flavor == "seurat_v3":
        raise UserError(
            "seurat_v3 needs all values in memory at once, and these are read in blocks; add --hvg-flavor seurat."
        )
    found = find_values(adata, layer)
    require_effect(target_sum, found.kind)
    cells = _without_values(adata, found)
    values = Normalised(found, target_sum)
    seen = found.seen.n_cells[found.seen.n_cells > 0]
    candidates = seen_often(seen, cells.n_obs, min_cells)
    part = ad.AnnData(obs=cells.obs[[]], var=cells.var.loc[candidates, []], uns=cells.uns)
    if part.n_vars > n_top_genes:
        _choose_genes(part, values, candidates, n_top_genes, hvg_flavor)
        values.require_differences()
    else:
        mark_highly_variable(part, n_top_genes, hvg_flavor)  # all
    mark_among(cells, candidates, part)
    chosen = cells.var[HIGHLY_VARIABLE].to_numpy()
    cells = cells[:, chosen].copy()
    _gather(cells, chosen, values)
    values.require_differences()
    return cells, Expression(cells, found.kind, found.source).in_words()


def _without_values(adata: ad.AnnData, found: Found) -> ad.AnnData:
    """The cells and genes that have values, without these."""
    filled, genes = found.seen.filled, found.seen.n_cells > 0
    cells = ad.AnnData(obs=contents.storable(adata.obs), var=contents.storable(found.var), obsm=contents.foreign(adata))
    cells = cells[filled, genes].copy()
    if not filled.all():
        log.info("%d of %d cells have no counts at all: left out, without a label.", (~filled).sum(), len(filled))
    require_enough_values(*cells.shape)
    if found.kind != "log-normalised":
        cells.obs[OURS.total] = found.seen.totals[filled]
        cells.uns["log1p"] = {"base": None}  # as scanpy notes it
    return cells


def _choose_genes(cells: ad.AnnData, values: Normalised, genes: np.ndarray, n_top_genes: int, flavor: str) -> None:
    """Write var['highly_variable'] of cells that have these genes, a mask, and no values: scanpy's choice, of a dask array whose blocks are read when they are added up.

    In float64: scipy adds up a block in the precision of its values, where scanpy takes float64 for those in memory.
    """
    blocks = list(values.sizes)
    with (
        progress(total=len(blocks), desc="highly variable genes", unit="block") as bar,
        dask.config.set(scheduler="synchronous"),  # one block after the other
    ):

        def read(block_id: tuple[int, int]) -> sparse.csr_matrix:
            matrix = values.read(blocks[block_id[0]])[0][:, genes].astype(np.float64)
            bar.update()
            return matrix

        cells.X = da.map_blocks(
            read,
            name="values",
            chunks=(tuple(values.sizes.values()), (cells.n_vars,)),
            meta=sparse.csr_matrix((0, 0), dtype=np.float64),
        )
        mark_highly_variable(cells, n_top_genes, flavor)
        cells.X = None


def _gather(cells: ad.AnnData, chosen: np.ndarray, values: Normalised) -> None:
    """Write X, and layers['counts'] where there are counts: of the chosen genes, a mask.

    Filled block by block, as it is known how many values there are: parts and their whole would take twice the memory.
    """
    seen = values.found.seen
    n_stored = int(seen.n_cells[seen.n_cells > 0][chosen].sum())
    column = (np.cumsum(chosen) - 1).astype(np.int32)
    indptr = np.zeros(cells.n_obs + 1, dtype=np.int32 if n_stored <= np.iinfo(np.int32).max else np.int64)
    indices = np.empty(n_stored, dtype=indptr.dtype)  # scipy takes both of one type
    normalised = np.empty(n_stored, dtype=np.float32)
    counts = np.empty(n_stored if values.found.kind == "counts" else 0, dtype=np.float32)
    row = end = 0
    for block, rows in progress(values.sizes.items(), desc="gathering genes", unit="block"):
        matrix, before = values.read(block)
        kept = chosen[matrix.indices]
        start, end = end, end + int(kept.sum())
        indices[start:end] = column[matrix.indices[kept]]
        normalised[start:end] = matrix.data[kept]
        if len(counts):
            counts[start:end] = before[kept]
        indptr[row + 1 : row + rows + 1] = start + np.append(0, np.cumsum(kept))[matrix.indptr[1:]]
        row += rows
    cells.X = sparse.csr_matrix((normalised, indices, indptr), shape=cells.shape)
    if len(counts):
        cells.layers[COUNTS] = sparse.csr_matrix((counts, indices.copy(), indptr.copy()), shape=cells.shape)
