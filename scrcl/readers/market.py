"""Read the sparse matrix in a MatrixMarket file.

scipy's own reader, which anndata and scanpy use, crashes on some damaged files and takes Python with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.readers.packed import opened

AT_ONCE = 2**23  # lines that are read together
BANNER = b"%%MatrixMarket"


def read_market(path: Path) -> sparse.csr_matrix:
    """Read a matrix transposed, since what is written with cells in columns is needed with cells in rows.

    Parameters
    ----------
    path
        The file, packed or not.

    Returns
    -------
    float32 CSR with the columns of the file in rows; values of the same place are added up.

    Raises
    ------
    ValueError, OSError, EOFError, zlib.error, lzma.LZMAError
        When it is damaged, or of a kind that matrices of counts do not have.
    """
    with opened(path) as file:
        pattern, (n_rows, n_columns, n_values) = _head(file)
        kinds = {"row": np.int32, "column": np.int32} | ({} if pattern else {"value": np.float32})
        chunks = pd.read_csv(
            file,
            sep=r"\s+",
            header=None,
            names=list(kinds),
            dtype=kinds,
            na_filter=False,
            engine="c",
            chunksize=AT_ONCE,
            encoding="ascii",
        )
        parts = [_checked(chunk, n_rows, n_columns) for chunk in chunks] if n_values else []
    empty = [np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)]
    rows, columns, values = (np.concatenate(arrays) for arrays in zip(empty, *parts))
    if len(values) != n_values:
        raise ValueError(f"it has {len(values)} values, not {n_values} as it says at its start")
    return sparse.csr_matrix((values, (columns, rows)), shape=(n_columns, n_rows))


def _head(file: BinaryIO) -> tuple[bool, list[int]]:
    """Read the first lines: whether places have no values, and the numbers of rows, columns and values."""
    words = file.readline(1000).split()
    if len(words) != 5 or words[0] != BANNER:
        raise ValueError("it does not begin with the line that every MatrixMarket file begins with")
    _, _, layout, field, symmetry = (word.decode(errors="replace").lower() for word in words)
    if layout != "coordinate" or field not in ("integer", "real", "pattern") or symmetry != "general":
        raise ValueError(f"it is {layout} {field} {symmetry}, where matrices of counts are coordinate integer general")
    line = file.readline()
    while line.startswith(b"%") or (line and not line.strip()):
        line = file.readline()
    size = [int(word) for word in line.split()]
    if len(size) != 3 or min(size) < 0 or max(size[:2]) >= 2**31:
        raise ValueError("it does not say how many rows, columns and values it has")
    return field == "pattern", size


def _checked(chunk: pd.DataFrame, n_rows: int, n_columns: int) -> list[np.ndarray]:
    """Return rows and columns counted from 0, and values; raise ValueError for places outside the matrix."""
    rows, columns = chunk["row"].to_numpy() - 1, chunk["column"].to_numpy() - 1
    if len(chunk) and (min(rows.min(), columns.min()) < 0 or rows.max() >= n_rows or columns.max() >= n_columns):
        raise ValueError("it has values outside the matrix")
    values = chunk["value"].to_numpy() if "value" in chunk else np.ones(len(chunk), dtype=np.float32)
    return [rows, columns, values]
