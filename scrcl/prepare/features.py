"""Genes as the encoders see them, kept sparse: values less one number per gene, made dense a block of cells at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

BLOCK = 4096  # cells made dense at a time


@dataclass(frozen=True)
class Features:
    """[N, G] float32: `values` less `offset` in every row, which is dense and never made.

    Standardised expression has this form: clip((x - m) / s) is, but for what stands in its zeros, as sparse as x.

    values: [N, G] float32 CSR; offset: [G] float32.
    """

    values: sparse.csr_matrix
    offset: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape

    @property
    def density(self) -> float:
        """Share of the values that are stored."""
        return self.values.nnz / max(1, np.prod(self.shape, dtype=float))

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Every block of cells in turn: which rows, and their dense values."""
        for start in range(0, self.shape[0], BLOCK):
            rows = slice(start, min(start + BLOCK, self.shape[0]))
            yield rows, self.values[rows].toarray() - self.offset

    def __getitem__(self, cells: np.ndarray) -> Features:
        """Those of some cells."""
        return Features(self.values[cells], self.offset)

    def reordered(self, order: np.ndarray) -> Features:
        """The cells in another order; sums over cells stay known."""
        other = self[order]
        vars(other).update({name: vars(self)[name] for name in ("mean", "gram") if name in vars(self)})
        return other

    def spread(self) -> np.ndarray:
        """[G], largest less smallest value of every gene."""
        return (self.values.max(axis=0) - self.values.min(axis=0)).toarray().ravel()

    def columns(self, genes: slice | np.ndarray) -> np.ndarray:
        """[N, these genes], dense."""
        return self.values[:, genes].toarray() - self.offset[genes]

    def times(self, weights: np.ndarray) -> np.ndarray:
        """The product with weights [G, d], [N, d] float32."""
        weights = weights.astype(np.float32)
        return np.concatenate([values @ weights for _, values in self.blocks()])

    def weighted(self, weights: np.ndarray) -> Features:
        """Every gene times its weight, [G]."""
        return Features((self.values @ sparse.diags(weights.astype(np.float32))).tocsr(), self.offset * weights)

    @cached_property
    def mean(self) -> np.ndarray:
        """[G] float64, over cells."""
        return np.asarray(self.values.mean(axis=0, dtype=np.float64)).ravel() - self.offset

    @cached_property
    def gram(self) -> np.ndarray:
        """[G, G] float64, products of genes summed over cells: what PCs and distances between genes are made of."""
        total = np.zeros((self.shape[1],) * 2)
        for _, values in self.blocks():
            total += values.T @ values
        return total
