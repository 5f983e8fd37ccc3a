"""Do what `prepare.genes.preprocess` does when values stay on disk and are processed in blocks of cells."""

from __future__ import annotations

import anndata as ad
import dask
import dask.array as da
import numpy as np
import scanpy as sc
from scipy import sparse

from scrcl.contents import values as contents
from scrcl.contents.blocks import ExpressionOnDisk, find_values
from scrcl.contents.features import Features
from scrcl.contents.values import Expression, Values
from scrcl.keys import COUNTS, HIGHLY_VARIABLE, OURS
from scrcl.messages import UserError, progress
from scrcl.prepare.filters import Filter
from scrcl.prepare.genes import (
    NO_FILTER,
    mark_among,
    mark_highly_variable,
    normalised_sum,
    require_effect,
    require_enough_values,
    seen_often,
)
from scrcl.runtime import limited_threads


class Normalised:
    """Read log-normalised blocks of the cells and genes that have values, and track the range of each gene.

    Parameters
    ----------
    found
        The values on disk.
    target_sum
        As for `genes.preprocess`.

    Attributes
    ----------
    sizes
        The number of cells with values in each block that has any, by block.
    lowest, highest
        [G] float32, the range of each gene's values other than 0, over the blocks read so far.
    sum
        What the values of a cell sum to before the logarithm.
    n_genes
        G, the number of genes with values.
    """

    def __init__(self, found: ExpressionOnDisk, target_sum: str) -> None:
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
        """Read one block of log-normalised values, and the same values before normalisation.

        Parameters
        ----------
        block
            The number of the block, a key of `sizes`.

        Returns
        -------
        [block, G] CSR, and its stored values before normalisation, in the order in which the matrix stores them.
        """
        matrix = self.found.blocks.read(block)
        matrix.data = self.found.how.convert(matrix.data)
        matrix = matrix[self.found.seen.filled[slice(*self.found.blocks.bounds[block])]]
        matrix = sparse.csr_matrix(
            (matrix.data, self._column[matrix.indices], matrix.indptr), shape=(matrix.shape[0], self.n_genes)
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
        """Raise UserError when fewer than 2 genes vary between the cells; to be called once all blocks are read."""
        everywhere = self.found.seen.n_cells[self.found.seen.n_cells > 0] == sum(self.sizes.values())
        # A gene that is 0 in some cell has 0 as its lowest value, which sparse blocks do not store.
        varies = int((self.highest > np.where(everywhere, self.lowest, 0)).sum())
        if varies < 2:
            raise UserError(
                f"The cells do not differ: {varies} genes vary between them after normalisation, and at least 2 must."
            )


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def preprocess(
    adata: ad.AnnData,
    layer: str,
    target_sum: str,
    n_top_genes: int,
    hvg_flavor: str,
    min_cells: int,
    keep: Filter = NO_FILTER,
    values: Values = "auto",
    features: Features = "genes",
) -> tuple[ad.AnnData, str]:
    """Find values on disk, log-normalise them, and keep the highly variable genes.

    This does what `values.find_expression` and `genes.preprocess` do together, but returns the highly variable genes
    only. It goes through the values it uses three times, or twice when all genes are used. It holds one block and the
    result in memory.

    Parameters
    ----------
    adata
        Cells or spots x genes, with some or all values on disk.
    layer, values, features
        As for `values.find_expression`.
    target_sum, n_top_genes, hvg_flavor, min_cells, keep
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
    found = _filtered(find_values(adata, layer, values, features), keep)
    require_effect(target_sum, found.kind)
    cells = _without_values(adata, found)
    normalised = Normalised(found, target_sum)
    seen = found.seen.n_cells[found.seen.n_cells > 0]
    candidates = seen_often(seen, cells.n_obs, min_cells)
    part = ad.AnnData(obs=cells.obs[[]], var=cells.var.loc[candidates, []], uns=cells.uns)
    if part.n_vars > n_top_genes:
        _choose_genes(part, normalised, candidates, n_top_genes, hvg_flavor)
        normalised.require_differences()
    else:
        mark_highly_variable(part, n_top_genes, hvg_flavor)  # marks all, for which it needs no values
    mark_among(cells, candidates, part)
    chosen = cells.var[HIGHLY_VARIABLE].to_numpy()
    cells = cells[:, chosen].copy()
    _gather(cells, chosen, normalised)
    normalised.require_differences()
    return cells, Expression(cells, found.kind, found.slot).in_words()


def _filtered(found: ExpressionOnDisk, keep: Filter) -> ExpressionOnDisk:
    """Return the values with only those cells taken for filled that are to be used."""
    seen = found.seen
    kept = keep.keep(found.kind, seen.totals, seen.n_genes, seen.mito)
    if (kept == seen.filled).all():
        return found
    n_cells = np.zeros_like(seen.n_cells)
    for block, (start, stop) in enumerate(progress(found.blocks.bounds, desc="cells that are kept", unit="block")):
        n_cells += found.blocks.read(block)[kept[start:stop]].getnnz(axis=0)
    return found._replace(seen=seen._replace(filled=kept, n_cells=n_cells))


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


def _choose_genes(cells: ad.AnnData, values: Normalised, genes: np.ndarray, n_top_genes: int, flavor: str) -> None:
    """Write var['highly_variable'] by scanpy's choice, on a dask array whose blocks are read when they are summed.

    `cells` has no values, and the genes that the mask `genes` marks. Blocks are float64: scipy sums a block in the
    precision of its values, while scanpy uses float64 for values in memory.
    """
    blocks = list(values.sizes)
    with (
        progress(total=len(blocks), desc="highly variable genes", unit="block") as bar,
        dask.config.set(scheduler="synchronous"),  # one block in memory at a time
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
    """Write X, and layers['counts'] where there are counts, for the genes that the mask `chosen` marks.

    The number of values is known, so arrays of the final size are filled block by block. Joining parts would take twice
    the memory.
    """
    seen = values.found.seen
    n_stored = int(seen.n_cells[seen.n_cells > 0][chosen].sum())
    column = (np.cumsum(chosen) - 1).astype(np.int32)
    indptr = np.zeros(cells.n_obs + 1, dtype=np.int32 if n_stored <= np.iinfo(np.int32).max else np.int64)
    indices = np.empty(n_stored, dtype=indptr.dtype)  # scipy wants both index arrays of one type
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
