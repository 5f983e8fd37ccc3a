"""Data larger than memory: an h5ad file whose values stay on disk, and are worked through in blocks of cells."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import scanpy as sc
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import read_elem, sparse_dataset
from scipy import sparse
from tqdm.auto import tqdm

import data
import hdf5
from data import COUNT_LAYERS, PREFERENCE, TOTAL, Expression, ValueKind
from preprocess import mark_among, mark_highly_variable, normalised_sum, require_effect, seen_often
from utils import UserError, limited_threads, log, one_line

IN_MEMORY_UP_TO = 2.0  # GiB of values, of which a run in memory holds up to five times as much
LEAST_SHARE = 20  # no file is compressed by more
CELLS = 10_000  # in a block, at most
VALUES = 4_000_000  # stored in a block, about; some 250 MB while they are worked on


def read(path: Path | None, max_memory: float = 0.0) -> ad.AnnData:
    """data.read, or open_h5ad where the values would fill more than 2 GiB, or a tenth of max_memory (GiB, 0 for no limit)."""
    limit = min(IN_MEMORY_UP_TO, max_memory / 10 or IN_MEMORY_UP_TO) * 2**30
    if path is None or path.stat().st_size < limit / LEAST_SHARE or values_size(path) <= limit:
        return data.read(path)
    log.info(
        "%s is large: its values stay on the disk, and the result will hold the highly variable genes alone.", path
    )
    return open_h5ad(path)


def values_size(path: Path) -> int:
    """Bytes of the expression values of an h5ad file in memory: X, .raw and the layers that usually hold counts.

    A sparse matrix counts with 8 bytes per stored value and 4 per cell (float32 CSR with int32 indices), a dense one
    with 4 per value. Read from what the file says about itself; 0 for what is no h5ad file, or damaged.
    """
    if not h5py.is_hdf5(path) or hdf5.damage(path):
        return 0
    try:
        with h5py.File(path) as file:
            names = ["X", "raw/X", "raw.X", *(f"layers/{name}" for name in COUNT_LAYERS)]
            return sum(_size(file[name]) for name in names if name in file)
    except Exception:  # whatever is odd about it, data.read will meet it and say it
        return 0


def _size(item: h5py.Group | h5py.Dataset) -> int:
    if isinstance(item, h5py.Dataset):
        return 4 * prod(item.shape or (0,))
    if {"data", "indptr"} <= item.keys():
        return 8 * len(item["data"]) + 4 * len(item["indptr"])
    return 0


def open_h5ad(path: Path) -> ad.AnnData:
    """AnnData of an h5ad file: obs, var and obsm in memory, X, the layers and .raw.X left on disk; nothing else.

    The file stays open as long as the AnnData is there. Raises UserError as data.read does.
    """
    if not h5py.is_hdf5(path):
        return data.read(path)  # says what is wrong
    data.require_sound(path)
    try:
        adata = _opened(path)
    except Exception as error:  # h5py and anndata raise many types for damaged files
        raise UserError(
            f"{path} cannot be read as h5ad ({one_line(error)}); it may be cut off, so download or save it again."
        ) from error
    data.require_sound_indices(adata)
    return adata


def _opened(path: Path) -> ad.AnnData:
    with ExitStack() as on_error:
        file = on_error.enter_context(h5py.File(path))
        if isinstance(file["obs"], h5py.Dataset) or "raw.X" in file:  # from before anndata 0.7
            return ad.read_h5ad(path, backed="r")  # which reads the layers
        raw = file.get("raw")
        with_raw = isinstance(raw, h5py.Group)
        adata = ad.AnnData(
            X=_lazy(file["X"]) if "X" in file else None,
            obs=read_elem(file["obs"]),
            var=read_elem(file["var"]),
            obsm=read_elem(file["obsm"]) if "obsm" in file else None,
            layers={name: _lazy(item) for name, item in file["layers"].items()} if "layers" in file else None,
            raw={"X": _lazy(raw["X"]), "var": read_elem(raw["var"])} if with_raw else None,
        )
        on_error.pop_all()
        return adata


def _lazy(item: h5py.Group | h5py.Dataset) -> Any:
    """A matrix as something that can be sliced on disk; anything else as read."""
    if isinstance(item, h5py.Dataset) and item.ndim == 2:
        return item
    kind = item.attrs.get("encoding-type", item.attrs.get("h5sparse_format"))
    if isinstance(item, h5py.Group) and kind in ("csr_matrix", "csc_matrix", "csr", "csc"):
        return sparse_dataset(item)
    return read_elem(item)


def is_backed(adata: ad.AnnData) -> bool:
    """Whether any values are on disk: what open_h5ad gives, and anndata's own backed mode."""
    if adata.isbacked or adata.is_view:  # to look at a view would read it
        return adata.isbacked
    values = [adata.X, None if adata.raw is None else adata.raw.X, *adata.layers.values()]
    return any(isinstance(part, h5py.Dataset | CSRDataset | CSCDataset) for part in values)


class Blocks:
    """The values of one source as float32 CSR blocks of cells, without explicit zeros.

    bounds: for every block, its first cell and the one after its last.
    Raises UserError for values that cannot be read, are no numbers, or are stored by genes.
    """

    def __init__(self, values: Any, source: str) -> None:
        if isinstance(values, CSCDataset):
            raise UserError(
                f"The matrix in {source} is stored by genes (CSC), which cannot be read in blocks of cells; "
                "save it by cells, adata.X = adata.X.tocsr(), where there is enough memory, or name another with --layer."
            )
        self.source = source
        self._values = values.tocsr() if sparse.issparse(values) else values
        self.shape: tuple[int, int] = values.shape
        n_cells, n_genes = values.shape
        stored = n_cells * n_genes
        if isinstance(values, CSRDataset):
            self._reading(self._open)
            stored = int(self._pointers[-1])
        elif sparse.issparse(values):
            stored = values.nnz
        size = int(np.clip(VALUES * n_cells // max(stored, 1), 1, CELLS))
        if isinstance(values, h5py.Dataset) and values.chunks and values.chunks[0] * n_genes <= 8 * VALUES:
            size = max(size // values.chunks[0], 1) * values.chunks[0]  # a part of a chunk costs as much as all of it
        self.bounds = [(start, min(start + size, n_cells)) for start in range(0, n_cells, size)]

    def _reading(self, read: Callable[..., Any], *arguments: int) -> Any:
        """What read gives, or a UserError in the words of data.read and data.require_sound_indices."""
        try:
            return read(*arguments)
        except ValueError as error:
            raise UserError(
                f"The sparse matrix in {self.source} is damaged ({one_line(error)}); save or download it again."
            ) from error
        except (OSError, RuntimeError, LookupError, TypeError) as error:
            raise UserError(
                f"The values in {self.source} cannot be read ({one_line(error)}); "
                "the file may be cut off, so download or save it again."
            ) from error

    def _open(self) -> None:
        """Find the parts of a sparse matrix, and check where its rows begin: no block alone would tell."""
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
        if not isinstance(self._values, CSRDataset):
            return self._values[start:stop]
        pointers = self._pointers[start : stop + 1]
        part = slice(int(pointers[0]), int(pointers[-1]))
        block = sparse.csr_matrix(
            (self._data[part], self._indices[part], pointers - pointers[0]), shape=(stop - start, self.shape[1])
        )
        block.check_format(full_check=True)  # scipy crashes on indices that point outside
        return block

    def read(self, block: int) -> sparse.csr_matrix:
        """The cells of one block, all genes."""
        values = self._reading(self._slice, *self.bounds[block])
        try:
            return data.as_matrix(
                values, copy=not isinstance(self._values, CSRDataset)
            )  # what was read is nobody else's
        except (TypeError, ValueError) as error:
            raise UserError(f"The values in {self.source} are not numbers ({one_line(error)}).") from error


class Overview(NamedTuple):
    """What one look at all values tells: their kind as data.value_kind names it, of each cell whether it has any value and
    the sum of them (of the counts, where a block holds their logarithms), and of each gene how many cells have a value."""

    kind: ValueKind
    filled: np.ndarray
    totals: np.ndarray
    n_cells: np.ndarray


def overview(blocks: Blocks) -> Overview:
    """Go through all blocks once."""
    kinds: set[ValueKind] = set()
    largest = 0.0
    filled = np.zeros(blocks.shape[0], dtype=bool)
    totals = np.zeros(blocks.shape[0])
    n_cells = np.zeros(blocks.shape[1], dtype=np.int64)
    for i, (start, stop) in enumerate(
        tqdm(blocks.bounds, desc=f"values in {blocks.source}", unit="block", disable=None)
    ):
        matrix = blocks.read(i)
        kind = data.value_kind(matrix)
        kinds.add(kind)
        largest = max(largest, matrix.data.max(initial=0))
        filled[start:stop] = np.diff(matrix.indptr) > 0
        n_cells += np.bincount(matrix.indices, minlength=blocks.shape[1])
        if kind == "log1p of counts":
            matrix.data = data.counts_of(matrix.data)
        totals[start:stop] = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return Overview(kind_of_all(kinds, largest), filled, totals, n_cells)


def kind_of_all(kinds: set[ValueKind], largest: float) -> ValueKind:
    """What data.value_kind says of a matrix, from what it says of its blocks and from the largest value.

    Exact, as log1p of a count is never itself a whole number to the precision that value_kind asks for: a block of
    counts beside one of their logarithms is a matrix of neither.
    """
    kinds = kinds - {"empty"}
    if "not finite" in kinds:
        return "not finite"
    if "scaled" in kinds:
        return "scaled"
    if len(kinds) < 2 and "non-negative" not in kinds:
        return next(iter(kinds), "empty")
    return "non-negative" if largest > 25 else "log-normalised"


class Found(NamedTuple):
    """The values to work on: as data.Expression, but in blocks. undo: whether they are log1p of counts."""

    blocks: Blocks
    var: pd.DataFrame
    seen: Overview
    undo: bool

    @property
    def kind(self) -> ValueKind:
        return "counts" if self.undo else self.seen.kind

    @property
    def source(self) -> str:
        return self.blocks.source + ", turned back from log1p" * self.undo


def find_values(adata: ad.AnnData, layer: str) -> Found:
    """What data.find_expression finds, with its errors, for values on disk."""
    data.require_content(adata)
    best: Found | None = None
    for source in data.sources_of(adata, layer):
        values, var = data.values_at(adata, source)
        blocks = Blocks(values, source)
        seen = overview(blocks)
        if best is None or PREFERENCE[seen.kind] < PREFERENCE[best.seen.kind]:
            best = Found(blocks, var, seen, seen.kind == "log1p of counts")
        if PREFERENCE[seen.kind] == 0:
            break
    assert best is not None  # there is at least one source
    data.refuse_unusable(best.seen.kind, best.source)
    data.require_names(best.var.index, "gene name", "var_names_make_unique")
    log.info("Values: %s, in %s.", best.kind, best.source)
    return best


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
            matrix.data = data.counts_of(matrix.data)
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
    """What data.find_expression and preprocess.preprocess give together, of the highly variable genes only.

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
    chosen = cells.var["highly_variable"].to_numpy()
    cells = cells[:, chosen].copy()
    _gather(cells, chosen, values)
    values.require_differences()
    return cells, Expression(cells, found.kind, found.source).in_words()


def _without_values(adata: ad.AnnData, found: Found) -> ad.AnnData:
    """The cells and genes that have values, without these."""
    filled, genes = found.seen.filled, found.seen.n_cells > 0
    cells = ad.AnnData(obs=data.storable(adata.obs), var=data.storable(found.var), obsm=data.foreign(adata))
    cells = cells[filled, genes].copy()
    if not filled.all():
        log.info("%d of %d cells have no counts at all: left out, without a label.", (~filled).sum(), len(filled))
    if cells.n_obs < 3 or cells.n_vars < 2:
        raise UserError(
            f"Only {cells.n_obs} cells and {cells.n_vars} genes have a value above 0; at least 3 cells and 2 genes are needed."
        )
    if found.kind != "log-normalised":
        cells.obs[TOTAL] = found.seen.totals[filled]
        cells.uns["log1p"] = {"base": None}  # as scanpy notes it
    return cells


def _choose_genes(cells: ad.AnnData, values: Normalised, genes: np.ndarray, n_top_genes: int, flavor: str) -> None:
    """Write var['highly_variable'] of cells that have these genes, a mask, and no values: scanpy's choice, of a dask array whose blocks are read when they are added up.

    In float64: scipy adds up a block in the precision of its values, where scanpy takes float64 for those in memory.
    """
    blocks = list(values.sizes)
    with (
        tqdm(total=len(blocks), desc="highly variable genes", unit="block", disable=None) as progress,
        dask.config.set(scheduler="synchronous"),  # one block after the other
    ):

        def read(block_id: tuple[int, int]) -> sparse.csr_matrix:
            matrix = values.read(blocks[block_id[0]])[0][:, genes].astype(np.float64)
            progress.update()
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
    for block, rows in tqdm(values.sizes.items(), desc="gathering genes", unit="block", disable=None):
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
        cells.layers["counts"] = sparse.csr_matrix((counts, indices.copy(), indptr.copy()), shape=cells.shape)
