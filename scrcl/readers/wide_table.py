"""Read tables of counts that have one row per cell and one column per gene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.messages import UserError, one_line

VALUES_AT_A_TIME = 20_000_000  # 80 MB; most values are 0, so the sparse matrix of all is far smaller than the table


def read_counts(path: Path, keys_of: Callable[[list[str]], list[str]]) -> ad.AnnData:
    """Read a csv table of counts, packed or not, block by block.

    Parameters
    ----------
    path
        The table.
    keys_of
        A function that returns which of all columns name the cell; the others are genes.

    Returns
    -------
    Cells x genes, float32 CSR, with the columns that name the cell in obs, as text.

    Raises
    ------
    UserError
        When it cannot be read, or a value is no number.
    """
    try:
        columns = list(pd.read_csv(path, nrows=0).columns)
        keys = keys_of(columns)
        types = {name: str if name in keys else np.float32 for name in columns}
        at_a_time = max(1, VALUES_AT_A_TIME // len(columns))
        names, counts = [], []
        for block in pd.read_csv(path, dtype=types, chunksize=at_a_time, index_col=False):
            names.append(block[keys])
            counts.append(sparse.csr_matrix(block.drop(columns=keys).to_numpy(dtype=np.float32)))
        obs = pd.concat(names, ignore_index=True)
        var = pd.DataFrame(index=[name for name in columns if name not in keys])
        adata = ad.AnnData(sparse.vstack(counts, format="csr"), obs=obs.set_axis(obs.index.astype(str)), var=var)
    except Exception as error:  # pandas, gzip and zlib raise many types for damaged tables
        raise UserError(f"{path} cannot be read as a table of counts ({one_line(error)}).") from error
    adata.var_names_make_unique()
    return adata


def read_cells(path: Path) -> pd.DataFrame:
    """Read a table with one row per cell, csv or parquet, packed or not; the first column is read as text.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    try:
        if ".parquet" not in path.suffixes:
            return pd.read_csv(path, dtype={0: str}, low_memory=False, index_col=False)
        table = pd.read_parquet(path).reset_index(drop=True)
        texts = [name for name in table if table[name].map(type).eq(bytes).any()]
        return table.assign(**{name: table[name].str.decode("utf-8") for name in texts})
    except Exception as error:  # pandas, pyarrow, gzip: many types for damaged tables
        raise UserError(f"{path} cannot be read as a table of cells ({one_line(error)}).") from error
