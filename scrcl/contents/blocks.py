"""Find expression values that stay on disk, and read them in blocks of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from scrcl.contents import values as contents
from scrcl.contents.features import Features, are_genes
from scrcl.contents.gene_names import are_mitochondrial
from scrcl.contents.kinds import BASES, Evidence, Kind, ValueKind, counts_of
from scrcl.contents.values import PREFERENCE, Conversion, Values
from scrcl.messages import UserError, log, one_line, progress

CELLS = 10_000  # most cells in a block
VALUES = 4_000_000  # stored values in a block, roughly; they take about 250 MB while they are processed


def is_backed(adata: ad.AnnData) -> bool:
    """Return whether any values are on disk, opened by `open_in_place` or by anndata's own backed mode."""
    if adata.isbacked or adata.is_view:  # looking into a view would read it
        return adata.isbacked
    values = [adata.X, None if adata.raw is None else adata.raw.X, *adata.layers.values()]
    return any(isinstance(part, h5py.Dataset | CSRDataset | CSCDataset) for part in values)


class Blocks:
    """Read one matrix as float32 CSR blocks of cells, without explicit zeros.

    Parameters
    ----------
    values
        [N, G], cells x genes: an HDF5 data set, a sparse matrix on disk, or a matrix in memory.
    slot
        Where the values come from, as named in messages.
    genes
        [G] booleans, the columns that are read; None for all.

    Attributes
    ----------
    bounds
        For every block, its first cell and the one after its last.
    shape
        (N, G), with the genes that are read.
    slot
        As given.

    Raises
    ------
    UserError
        When the values cannot be read or are not numbers, and when they are stored by genes (CSC).
    """

    def __init__(self, values: Any, slot: str, genes: np.ndarray | None = None) -> None:
        if isinstance(values, CSCDataset):
            raise UserError(
                f"The matrix in {slot} is stored by genes (CSC), which cannot be read in blocks of cells; save it by "
                "cells, adata.X = adata.X.tocsr(), where there is enough memory, or name another with --layer."
            )
        self.slot = slot
        self._values = values.tocsr() if sparse.issparse(values) else values
        n_cells, n_genes = self._stored_shape = values.shape
        self._genes = None if genes is None or genes.all() else genes
        self.shape: tuple[int, int] = (n_cells, n_genes if self._genes is None else int(self._genes.sum()))
        stored = n_cells * n_genes
        if isinstance(values, CSRDataset):
            self._reading(self._open)
            stored = int(self._pointers[-1])
        elif sparse.issparse(values):
            stored = values.nnz
        size = int(np.clip(VALUES * n_cells // max(stored, 1), 1, CELLS))
        if isinstance(values, h5py.Dataset) and values.chunks and values.chunks[0] * n_genes <= 8 * VALUES:
            size = max(size // values.chunks[0], 1) * values.chunks[0]  # HDF5 reads whole chunks, even for a part
        self.bounds = [(start, min(start + size, n_cells)) for start in range(0, n_cells, size)]

    def _reading(self, read: Callable[..., Any], *arguments: int) -> Any:
        """Return what `read` gives, and turn its errors into the UserErrors that values in memory would raise."""
        try:
            return read(*arguments)
        except ValueError as error:
            raise UserError(
                f"The sparse matrix in {self.slot} is damaged ({one_line(error)}); save or download it again."
            ) from error
        except (OSError, RuntimeError, LookupError, TypeError) as error:
            raise UserError(
                f"The values in {self.slot} cannot be read ({one_line(error)}); "
                "the file may be cut off, so download or save it again."
            ) from error

    def _open(self) -> None:
        """Find the parts of a sparse matrix on disk and check its row pointers.

        Damaged row pointers would not show in any single block.
        """
        group = self._values.group
        self._data, self._indices, self._pointers = group["data"], group["indices"], group["indptr"][()]
        if len(self._pointers) != self.shape[0] + 1:
            raise ValueError(f"index pointer size {len(self._pointers)} should be {self.shape[0] + 1}")
        if self._pointers[0] != 0:
            raise ValueError("index pointer should start with 0")
        if len(self._indices) != len(self._data):
            raise ValueError("indices and data should have the same size")
        if self._pointers[-1] > len(self._indices):
            raise ValueError("Last value of index pointer should be less than the size of index and data arrays")
        if (self._pointers[1:] < self._pointers[:-1]).any():
            raise ValueError("indptr must be a non-decreasing sequence")

    def _slice(self, start: int, stop: int) -> Any:
        """Return the cells from start to stop, in whatever form the slot gives them."""
        if not isinstance(self._values, CSRDataset):
            return self._values[start:stop]
        pointers = self._pointers[start : stop + 1]
        part = slice(int(pointers[0]), int(pointers[-1]))
        data = self._data[part]
        data = data.astype(np.float32) if data.dtype == np.float16 else data  # which scipy does not have
        block = sparse.csr_matrix(
            (data, self._indices[part], pointers - pointers[0]), shape=(stop - start, self._stored_shape[1])
        )
        block.check_format(full_check=True)  # scipy crashes on indices outside the matrix
        return block

    def read(self, block: int) -> sparse.csr_matrix:
        """Read one block of cells with all genes, as float32 CSR.

        Parameters
        ----------
        block
            The number of the block, an index into `bounds`.

        Raises
        ------
        UserError
            When the values are damaged, cut off or not numbers.
        """
        values = self._reading(self._slice, *self.bounds[block])
        try:
            # A block read from disk belongs to nobody else, so it needs no copy.
            matrix = contents.as_matrix(values, copy=not isinstance(self._values, CSRDataset))
        except (TypeError, ValueError) as error:
            raise UserError(f"The values in {self.slot} are not numbers ({one_line(error)}).") from error
        return matrix if self._genes is None else matrix[:, self._genes]


class Overview(NamedTuple):
    """What one pass over all values shows.

    Attributes
    ----------
    kind
        What the values are, as `kinds.Evidence` tells it.
    filled
        [N] booleans, whether a cell has any value.
    totals
        [N], the sum of each cell's values. Where they are logarithms of counts, the sum of the counts.
    n_genes
        [N], how many values each cell has.
    mito
        [N], the sum of the mitochondrial genes' values, as `totals`.
    n_cells
        [G], in how many cells each gene has a value.
    """

    kind: Kind
    filled: np.ndarray
    totals: np.ndarray
    n_genes: np.ndarray
    mito: np.ndarray
    n_cells: np.ndarray


def overview(blocks: Blocks, mitochondrial: np.ndarray | None = None) -> Overview:
    """Go through all blocks once, and return their `Overview`.

    Parameters
    ----------
    blocks
        The values of one slot.
    mitochondrial
        [G] booleans; None for no such gene.

    Raises
    ------
    UserError
        When a block cannot be read.
    """
    n_cells, n_genes = blocks.shape
    mito = np.zeros(n_genes) if mitochondrial is None else mitochondrial.astype(np.float64)
    evidence = Evidence(n_cells)
    sums = {how: np.zeros((n_cells, 2)) for how in (None, *BASES)}  # as they are, and of counts by their logarithm
    n_genes_of, n_cells_of = np.zeros(n_cells, dtype=np.int64), np.zeros(n_genes, dtype=np.int64)
    for i, (start, stop) in enumerate(progress(blocks.bounds, desc=f"values in {blocks.slot}", unit="block")):
        matrix = blocks.read(i)
        evidence.add(matrix, start)
        n_genes_of[start:stop] = np.diff(matrix.indptr)
        n_cells_of += np.bincount(matrix.indices, minlength=n_genes)
        stored = matrix.data
        for how in evidence.still_possible():
            matrix.data = stored if how is None else counts_of(stored, how)
            sums[how][start:stop, 0] = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
            sums[how][start:stop, 1] = matrix @ mito
    kind = evidence.kind()
    totals, mito_totals = sums[kind.base if kind.name == "log1p of counts" else None].T
    return Overview(kind, n_genes_of > 0, totals, n_genes_of, mito_totals, n_cells_of)


class ExpressionOnDisk(NamedTuple):
    """The values to work on, as `values.Expression` holds them, but in blocks.

    Attributes
    ----------
    blocks
        The values on disk.
    var
        Their genes.
    seen
        What one pass over them showed.
    how
        What is done to each block before it is used.
    """

    blocks: Blocks
    var: pd.DataFrame
    seen: Overview
    how: Conversion

    @property
    def kind(self) -> ValueKind:
        """What the values are, once converted."""
        return self.how.kind

    @property
    def slot(self) -> str:
        """Where the values were found, for people to read."""
        return self.blocks.slot + self.how.in_words


def find_values(
    adata: ad.AnnData, layer: str, values: Values = "auto", features: Features = "genes"
) -> ExpressionOnDisk:
    """Find the values to work on when they are on disk.

    Parameters
    ----------
    adata
        Cells or spots x genes, with values on disk.
    layer, values, features
        As for `values.find_expression`.

    Returns
    -------
    What `values.find_expression` would find for the same values in memory.

    Raises
    ------
    UserError
        As `values.find_expression` does, and when the values cannot be read.
    """
    contents.require_content(adata)
    best: tuple[Blocks, pd.DataFrame, Overview] | None = None
    for candidate in contents.candidates(adata, layer, values):
        if best is not None and contents.is_needless(candidate, best[0].slot, best[2].kind):
            break
        matrix, var = contents.values_at(adata, candidate.slot)
        genes = are_genes(var, features)
        blocks, var = Blocks(matrix, candidate.slot, genes), var[genes]
        seen = overview(blocks, are_mitochondrial(var))
        if best is None or PREFERENCE[seen.kind.name] < PREFERENCE[best[2].kind.name]:
            best = (blocks, var, seen)
        if PREFERENCE[seen.kind.name] == 0:
            break
    assert best is not None  # slots_of gives at least one, or raises
    blocks, var, seen = best
    contents.refuse_unusable(seen.kind.name, blocks.slot, adata)
    contents.require_names(var.index, "gene name", "var_names_make_unique")
    found = ExpressionOnDisk(blocks, var, seen, contents.conversion(seen.kind, values, adata))
    log.info("Values: %s, in %s.", found.kind, found.slot)
    return found
