"""Read tables of numbers with cells in rows or in columns: csv, tab-separated and other text, packed or not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse

from scrcl.messages import UserError, log, one_line
from scrcl.readers.orientation import cells_in_rows
from scrcl.readers.packed import DAMAGE, opened
from scrcl.readers.text_layout import ABOUT, Layout, is_number, layout_of

AT_ONCE = 2**23  # values of the table that are read together


def locate(path: Path) -> Path | None:
    """Return a text file whose first lines are those of a table of numbers."""
    return path if path.is_file() and layout_of(path) is not None else None


def files(path: Path) -> list[Path]:
    """Return the files that decide what is read."""
    return [path]


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read a table of numbers, and find out whether its rows are cells or genes.

    Parameters
    ----------
    path
        The table.
    name, max_memory
        Not used: there are no images, and the values are read into memory.

    Returns
    -------
    Cells x genes, float32 CSR. Columns of text, and columns of numbers that are known to be about cells or genes (such
    as x and y, or the length of a gene), are in obs where rows are cells, and in var where rows are genes.

    Raises
    ------
    UserError
        When it is no matrix of numbers, or is damaged.
    """
    layout = layout_of(path)
    try:
        if layout is None:
            raise ValueError("its first lines are not those of a table of numbers")
        table = _read(path, layout)
    except (*DAMAGE, ValueError, LookupError, MemoryError) as error:  # pandas raises its own kinds of ValueError
        raise UserError(
            f"{path} is no matrix of numbers that can be read ({one_line(error)}); a matrix has one line per gene or "
            "cell, and the same number of fields in each."
        ) from error
    in_rows, why = cells_in_rows(table.matrix, table.rows, table.columns, layout.corner)
    matrix = table.matrix if in_rows else table.matrix.T.tocsr()
    obs, var = table.about.set_index(table.rows), pd.DataFrame(index=table.columns)
    if not in_rows:
        obs, var = var, obs
    log.info(
        "%s has cells in %s and genes in %s: %s.", path, *(("rows", "columns") if in_rows else ("columns", "rows")), why
    )
    adata = ad.AnnData(matrix, obs=obs, var=var)
    adata.var_names_make_unique()
    return adata


class Table(NamedTuple):
    """A table as it stands in the file.

    Attributes
    ----------
    matrix
        The columns of numbers.
    rows, columns
        The names.
    about
        All other columns.
    """

    matrix: sparse.csr_matrix
    rows: pd.Index
    columns: pd.Index
    about: pd.DataFrame


def _read(path: Path, layout: Layout) -> Table:
    """Read the table; columns that turn out to hold text further down are read again as text."""
    try:
        return _read_as(path, layout)
    except ValueError as error:
        late = _late_text(path, layout)
        if not late or 2 * (len(late) + len(layout.texts)) > layout.width:
            raise
        try:
            return _read_as(path, layout._replace(texts=layout.texts | late))
        except ValueError:
            raise error from None


def _read_as(path: Path, layout: Layout) -> Table:
    """Read the table a few rows at a time, so that only its non-zero values are ever held."""
    names = layout.names()
    numbers = [i for i in range(layout.width) if i not in layout.texts]
    kinds = {i: np.float32 if i in set(numbers) else str for i in range(layout.width)}
    blocks, about = [], []
    for chunk in _chunks(path, layout, kinds):
        blocks.append(sparse.csr_matrix(chunk[numbers].to_numpy(dtype=np.float32)))
        about.append(chunk[sorted(layout.texts)])
    if not blocks:
        raise ValueError("it has no rows")
    matrix = sparse.vstack(blocks, format="csr")
    _require_whole_lines(matrix)
    others = pd.concat(about, ignore_index=True)
    rows = pd.RangeIndex(len(others)).astype(str)
    for i in others:
        if ABOUT.fullmatch(names[i]):
            others[i] = _numbers(others[i])
    if layout.named_by is not None:
        rows = pd.Index(others.pop(layout.named_by).fillna("NA").astype(str).to_numpy())
    others.columns = make_index_unique(pd.Index([names[i] for i in others.columns], dtype=object))
    return Table(matrix, rows, pd.Index([names[i] for i in numbers]), others)


def _require_whole_lines(matrix: sparse.csr_matrix) -> None:
    """Raise ValueError when a single row ends in gaps, which is what pandas makes of a line that is too short."""
    gaps = np.isnan(matrix.data)
    short = np.unique(np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[gaps])
    if len(short) == 1 and np.isnan(matrix[short[0], -1]):
        raise ValueError(f"row {short[0] + 1} of {matrix.shape[0]} has fewer fields than the others")


def _numbers(values: pd.Series) -> pd.Series:
    """Return texts as numbers where all of them are."""
    try:
        return pd.to_numeric(values)
    except ValueError:
        return values


def _chunks(path: Path, layout: Layout, kinds: dict | None) -> Iterator[pd.DataFrame]:
    """Return the rows of the table, a few at a time, with numbered columns."""
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding=layout.encoding, errors="replace", newline="")
        skipped = 0
        while skipped < layout.skip and (line := text.readline()):
            skipped += bool(line.strip())
        yield from pd.read_csv(
            text,
            sep=layout.separator,
            header=None,
            names=range(layout.width + layout.trailing),
            dtype=kinds,
            decimal=layout.decimal,
            engine="c",
            low_memory=False,
            chunksize=max(AT_ONCE // layout.width, 1),
        )


def _late_text(path: Path, layout: Layout) -> frozenset[int]:
    """Return the columns that hold text where the first lines have numbers or nothing."""
    found: set[int] = set()
    for chunk in _chunks(path, layout, None):
        texts = [i for i in chunk if not pd.api.types.is_numeric_dtype(chunk[i].dtype) and i not in layout.texts]
        found |= {i for i in texts if not chunk[i].dropna().map(str).map(is_number).all()}
    return frozenset(found)
