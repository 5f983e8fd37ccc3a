"""Keep the genes that the encoders see sparse, and make a block of cells at a time dense where that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from scrcl.runtime import Array, sparse_tensors_expected, to_device, to_host

BLOCK = 4096  # cells made dense at a time


# Up to this share of stored values, a CPU multiplies sparse values faster than dense ones. On two cores, a product of
# 32,768 x 2,000 values with 256 columns takes 0.06 s at a share of 0.08, growing in proportion, and that of the
# transpose, which the gradient needs, 0.07 s. Dense products take 0.17 to 0.25 s each.
SPARSE_UP_TO = 0.2


@dataclass(frozen=True)
class Features:
    """A matrix [N, G] float32 that equals sparse values minus one number per gene.

    The dense difference, `values - offset`, is never formed as a whole. Standardised expression has this form: within a
    gene, clip((x - m) / s) is the same wherever x is 0, so it is as sparse as x once that number is taken off.

    Attributes
    ----------
    values
        [N, G] float32 CSR.
    offset
        [G] float32, subtracted from every row.
    device
        Where products are computed: 'cpu', or a CUDA card.
    """

    values: sparse.csr_matrix
    offset: np.ndarray
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, int]:
        """(N, G)."""
        return self.values.shape

    @property
    def density(self) -> float:
        """The share of the values that are stored."""
        return self.values.nnz / max(1, np.prod(self.shape, dtype=float))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield every block of cells: its rows, and their dense values, float64 on a card."""
        for start in range(0, self.shape[0], BLOCK):
            rows = slice(start, min(start + BLOCK, self.shape[0]))
            yield rows, self._dense(rows)

    def _dense(self, rows: slice) -> Array:
        """Return the dense values of some cells."""
        part = self.values[rows]
        if self.device == "cpu":
            return part.toarray() - self.offset
        import torch

        ends, genes, stored = (torch.as_tensor(x, device=self.device) for x in (part.indptr, part.indices, part.data))
        with sparse_tensors_expected():
            dense = torch.sparse_csr_tensor(ends, genes, stored, size=part.shape, check_invariants=False).to_dense()
        return dense.double() - to_device(self.offset, self.device)

    def __getitem__(self, cells: np.ndarray | slice) -> Features:
        """Return the rows of some cells."""
        return replace(self, values=self.values[cells])

    def of_genes(self, genes: np.ndarray) -> Features:
        """Return the columns of some genes."""
        return replace(self, values=self.values[:, genes], offset=self.offset[genes])

    def reordered(self, order: np.ndarray) -> Features:
        """Return the cells in another order, and keep the sums over cells that are already known."""
        other = self[order]
        vars(other).update({name: vars(self)[name] for name in ("mean", "gram") if name in vars(self)})
        return other

    def spread(self) -> np.ndarray:
        """Return the largest minus the smallest value of every gene, [G]."""
        return (self.values.max(axis=0) - self.values.min(axis=0)).toarray().ravel()

    def columns(self, genes: slice | np.ndarray) -> np.ndarray:
        """Return some genes of all cells as a dense matrix, [N, these genes]."""
        return self.values[:, genes].toarray() - self.offset[genes]

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return the product with weights [G, d], as [N, d] float32."""
        weights = to_device(weights.astype(np.float32), self.device)
        return np.concatenate([to_host(values @ weights).astype(np.float32, copy=False) for _, values in self.blocks()])

    def weighted(self, weights: np.ndarray) -> Features:
        """Return every gene times its weight, [G]."""
        values = (self.values @ sparse.diags(weights.astype(np.float32))).tocsr()
        return replace(self, values=values, offset=self.offset * weights)

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean of every gene over cells, [G] float64."""
        return np.asarray(self.values.mean(axis=0, dtype=np.float64)).ravel() - self.offset

    @cached_property
    def gram(self) -> np.ndarray:
        """The products of genes summed over cells, [G, G] float64.

        PCs and distances between genes are computed from it.
        """
        total = to_device(np.zeros((self.shape[1],) * 2), self.device)
        for _, values in self.blocks():
            total += values.T @ values
        return to_host(total)
