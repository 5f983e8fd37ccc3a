"""Find expression values that stay on disk, and go through them in blocks of cells, with dask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import anndata as ad
import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from scrcl import scheduler
from scrcl.contents import values as contents
from scrcl.contents.features import Features, are_genes
from scrcl.contents.gene_names import are_mitochondrial
from scrcl.contents.kinds import BASES, Evidence, Kind, ValueKind, counts_of
from scrcl.contents.values import PREFERENCE, Conversion, Values
from scrcl.messages import UserError, log, one_line, progress

CELLS = 10_000  # most cells in a block
VALUES = 2_000_000  # stored values in a block, roughly; they take about 125 MB while they are processed
AT_ONCE = 4  # blocks for each thread whose results are waited for together


def is_lazy(adata: ad.AnnData) -> bool:
    """Return whether any values are not in memory: dask arrays, and values that anndata left on disk."""
    if adata.isbacked or adata.is_view:  # looking into a view would read it
        return adata.isbacked
    values = [adata.X, None if adata.raw is None else adata.raw.X, *adata.layers.values()]
    return any(isinstance(part, da.Array | CSCDataset) or _is_stored(part) for part in values)


def _is_stored(values: Any) -> bool:
    """Return whether values are an array, or a sparse matrix by cells, in HDF5 or zarr."""
    return isinstance(values, CSRDataset | h5py.Dataset) or type(values).__module__.startswith("zarr.")


class Stored(NamedTuple):
    """A matrix in a file, which every worker opens for itself: an open HDF5 file cannot be sent to another process.

    Attributes
    ----------
    place
        The path of an HDF5 file, or a group or an array of a zarr store.
    name
        Of the matrix in the HDF5 file.
    """

    place: Any
    name: str = ""

    def rows(self, block_info: Any = None) -> Any:
        """Return one block of cells, for `da.map_blocks`."""
        start, stop = block_info[None]["array-location"][0]
        if not self.name:
            return _rows(self.place, start, stop)
        with h5py.File(self.place) as file:
            return _rows(file[self.name], start, stop)


def _rows(matrix: Any, start: int, stop: int) -> Any:
    """Return some cells of a matrix in a file."""
    if not hasattr(matrix, "keys"):
        return matrix[start:stop]
    pointers = matrix["indptr"][start : stop + 1]
    part = slice(int(pointers[0]), int(pointers[-1]))
    data = matrix["data"][part]
    data = data.astype(np.float32) if data.dtype == np.float16 else data  # which scipy does not have
    rows = sparse.csr_matrix(
        (data, matrix["indices"][part], pointers - pointers[0]), shape=(stop - start, _shape(matrix)[1])
    )
    rows.check_format(full_check=True)  # scipy crashes on indices outside the matrix
    return rows


def _shape(matrix: Any) -> tuple[int, int]:
    """Return the shape of a matrix in a file."""
    if not hasattr(matrix, "keys"):
        return matrix.shape
    n_cells, n_genes = matrix.attrs["shape" if "shape" in matrix.attrs else "h5sparse_shape"]
    return int(n_cells), int(n_genes)


def _open(matrix: Any) -> da.Array:
    """Return a matrix in a file as a dask array."""
    is_sparse = hasattr(matrix, "keys")
    n_cells, n_genes = _shape(matrix)
    if is_sparse:
        _require_sound_pointers(matrix, n_cells)
    size = _block_size(n_cells, matrix["data"].shape[0] if is_sparse else n_cells * n_genes)
    if not is_sparse and matrix.chunks and matrix.chunks[0] * n_genes <= 8 * VALUES:
        size = max(size // matrix.chunks[0], 1) * matrix.chunks[0]  # whole chunks are read, even for a part
    in_hdf5 = isinstance(matrix, h5py.HLObject)
    stored = Stored(os.path.abspath(matrix.file.filename), matrix.name) if in_hdf5 else Stored(matrix)
    meta = sparse.csr_matrix((0, 0), dtype=np.float32) if is_sparse else np.empty((0, 0), dtype=np.float32)
    sizes = tuple(min(size, n_cells - start) for start in range(0, n_cells, size))
    return da.map_blocks(stored.rows, chunks=(sizes, (n_genes,)), dtype=meta.dtype, meta=meta)


def _block_size(n_cells: int, n_stored: int) -> int:
    """Return how many cells make a block."""
    return int(np.clip(VALUES * n_cells // max(n_stored, 1), 1, CELLS))


def _require_sound_pointers(matrix: Any, n_cells: int) -> None:
    """Raise ValueError for damaged row pointers of a sparse matrix in a file; it would not show in any single block."""
    pointers, n_stored = matrix["indptr"][:], matrix["indices"].shape[0]
    if len(pointers) != n_cells + 1:
        raise ValueError(f"index pointer size {len(pointers)} should be {n_cells + 1}")
    if pointers[0] != 0:
        raise ValueError("index pointer should start with 0")
    if n_stored != matrix["data"].shape[0]:
        raise ValueError("indices and data should have the same size")
    if pointers[-1] > n_stored:
        raise ValueError("Last value of index pointer should be less than the size of index and data arrays")
    if (pointers[1:] < pointers[:-1]).any():
        raise ValueError("indptr must be a non-decreasing sequence")


class Blocks:
    """One matrix in float32 CSR blocks of cells, without explicit zeros, each read when it is needed.

    Parameters
    ----------
    values
        [N, G], cells x genes: an array or sparse matrix in HDF5 or zarr, a dask array, or a matrix in memory.
    slot
        Where the values come from, as named in messages.
    genes
        [G] booleans, the columns that are read; None for all.

    Attributes
    ----------
    array
        [N, G] dask array, with the genes that are read.
    bounds
        For every block, its first cell and the one after its last.
    slot
        As given.

    Raises
    ------
    UserError
        When the values cannot be read, and when they are stored by genes (CSC).
    """

    def __init__(self, values: Any, slot: str, genes: np.ndarray | None = None) -> None:
        self.slot = slot
        with self._sentences():
            array = self._lazy(values)
        n_genes = array.shape[1] if genes is None else int(genes.sum())
        self.array = da.map_blocks(
            _as_block, array, slot, None if genes is None or genes.all() else genes,
            chunks=(array.chunks[0], (n_genes,)), dtype=np.float32, meta=sparse.csr_matrix((0, 0), dtype=np.float32),
        )  # fmt: skip
        ends = np.cumsum(array.chunks[0]).tolist()
        self.bounds = list(zip([0, *ends], ends))

    @property
    def shape(self) -> tuple[int, int]:
        """(N, G), with the genes that are read."""
        return self.array.shape

    def _lazy(self, values: Any) -> da.Array:
        """Return the values, of whatever form, as a dask array of blocks of cells."""
        if isinstance(values, CSCDataset) or getattr(getattr(values, "_meta", None), "format", "") == "csc":
            raise UserError(
                f"The matrix in {self.slot} is stored by genes (CSC), which cannot be read in blocks of cells; save it "
                "by cells, adata.X = adata.X.tocsr(), where there is enough memory, or name another with --layer."
            )
        if isinstance(values, da.Array):
            return values if values.numblocks[1] == 1 else values.rechunk({1: -1})
        if _is_stored(values):
            return _open(values.group if isinstance(values, CSRDataset) else values)
        values = values.tocsr() if sparse.issparse(values) else np.asarray(values)
        rows = _block_size(values.shape[0], values.nnz if sparse.issparse(values) else values.size)
        meta = values[:0] if sparse.issparse(values) else None
        return da.from_array(values, chunks=(rows, values.shape[1]), name=False, asarray=False, meta=meta)

    def each(
        self, function: Callable[..., Any], *arguments: Any, own: Sequence[Any] = (), desc: str = ""
    ) -> Iterator[Any]:
        """Yield what a function gives for every block, in their order; several blocks are worked on at the same time.

        Parameters
        ----------
        function
            function(block, own argument of the block, *arguments).
        arguments
            The same for all blocks.
        own
            One argument for each block.
        desc
            What the progress bar says.

        Raises
        ------
        UserError
            When the values are damaged, cut off or not numbers.
        """
        blocks = self.array.to_delayed().ravel()
        call = dask.delayed(function, pure=False)
        tasks = [call(block, mine, *arguments) for block, mine in zip(blocks, own)]
        with progress(total=len(tasks), desc=desc, unit="block") as bar:
            together = AT_ONCE * scheduler.size()
            for start in range(0, len(tasks), together):
                with self._sentences():
                    found = dask.compute(*tasks[start : start + together])
                yield from found
                bar.update(len(found))

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what goes wrong while values are read into the UserErrors that values in memory would raise."""
        try:
            yield
        except UserError:
            raise
        except ValueError as error:
            raise UserError(
                f"The sparse matrix in {self.slot} is damaged ({one_line(error)}); save or download it again."
            ) from error
        except Exception as error:  # h5py and zarr raise many types, and a cluster its own
            cause = "the file may be cut off, so download or save it again"
            if scheduler.on_cluster():
                cause = "the workers of the dask cluster need this version of scrcl, and the file under the same path"
            raise UserError(f"The values in {self.slot} cannot be read ({one_line(error)}); {cause}.") from error


def _as_block(values: Any, slot: str, genes: np.ndarray | None) -> sparse.csr_matrix:
    """Return one block of values of any type as float32 CSR, with some of its genes."""
    try:
        matrix = contents.as_matrix(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"The values in {slot} are not numbers ({one_line(error)}).") from error
    return matrix if genes is None else matrix[:, genes]


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
    starts = [start for start, _ in blocks.bounds]
    looks = blocks.each(_look, n_cells, mito, own=starts, desc=f"values in {blocks.slot}")
    for (start, stop), (own, own_sums, n_genes_of[start:stop], n_seen) in zip(blocks.bounds, looks):
        evidence.join(own)
        n_cells_of += n_seen
        for how, found in own_sums.items():
            sums[how][start:stop] = found
    kind = evidence.kind()
    totals, mito_totals = sums[kind.base if kind.name == "log1p of counts" else None].T
    return Overview(kind, n_genes_of > 0, totals, n_genes_of, mito_totals, n_cells_of)


def _look(
    matrix: sparse.csr_matrix, start: int, n_cells: int, mito: np.ndarray
) -> tuple[Evidence, dict[float | None, np.ndarray], np.ndarray, np.ndarray]:
    """Return what one block shows: evidence of its kind, its cells' sums, how many values cells and genes have."""
    evidence = Evidence(n_cells)
    evidence.add(matrix, start)
    sums = {}
    counts = matrix.copy()
    for how in evidence.still_possible():
        counts.data = matrix.data if how is None else counts_of(matrix.data, how)
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        sums[how] = np.column_stack([totals, counts @ mito])
    return evidence, sums, np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])


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
