"""Bring tables of cells and genes to plain types, which every version of anndata and pandas can write."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd


def make_plain(adata: ad.AnnData) -> None:
    """Bring obs, var and .raw's var to plain types, in place.

    Parameters
    ----------
    adata
        As read from a file.
    """
    adata.obs = plain(adata.obs)
    adata.var = plain(adata.var)
    if adata.raw is not None:
        names = plain(adata.raw.var)
        if not _is_plain(adata.raw.var):
            adata.raw = ad.AnnData(adata.raw.X, var=names, obs=adata.obs[[]])


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a plain index and plain columns; the same one where it is so already.

    Names become Python's strings. So do texts of any type, dates and other objects; gaps stay. Numbers of pandas' own
    and of Arrow's types become numpy's, where they have no gaps that numpy cannot hold.

    Parameters
    ----------
    frame
        Any obs or var.
    """
    if _is_plain(frame):
        return frame
    columns = {name: _plain_column(frame[name]) for name in frame}
    index = pd.Index([str(name) for name in frame.index], dtype=object, name=frame.index.name)
    return pd.DataFrame({name: column.set_axis(index) for name, column in columns.items()}, index=index)


def _is_plain(frame: pd.DataFrame) -> bool:
    """Return whether nothing is to be done: names are Python's strings, and columns numpy's or categories of these."""
    index = frame.index
    return (
        index.dtype == object
        and frame.columns.is_unique
        and all(isinstance(name, str) for name in index)
        and all(_is_plain_column(frame[name]) for name in frame)
    )


def _is_plain_column(column: pd.Series) -> bool:
    """Return whether a column has a type that h5ad can hold."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = column.cat.categories
        return categories.dtype != object and isinstance(categories.dtype, np.dtype) or _all_text(categories)
    if column.dtype == object:
        return _all_text(column.dropna()) or _all_bool(column)
    return isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf"


def _all_text(values: pd.Series | pd.Index) -> bool:
    """Return whether all values are Python's strings, held as objects."""
    return values.dtype == object and all(type(value) is str for value in values)


def _all_bool(column: pd.Series) -> bool:
    """Return whether all values of an object column are truth values."""
    return len(column) > 0 and all(isinstance(value, bool | np.bool_) for value in column)


def _plain_column(column: pd.Series) -> pd.Series:
    """Return a column in a type that h5ad can hold."""
    if _is_plain_column(column):
        return column.astype(bool) if column.dtype == object and _all_bool(column) else column
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = pd.Index([str(name) for name in column.cat.categories], dtype=object)
        if not categories.is_unique:  # 1 and "1"
            return _text(column.astype(object))
        values = pd.Categorical.from_codes(column.cat.codes, categories, ordered=column.cat.ordered)
        return pd.Series(values, index=column.index)
    if pd.api.types.is_bool_dtype(column.dtype) and not column.isna().any():
        return column.astype(bool)
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        return column.astype(np.int64)
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    return _text(column)


def _text(column: pd.Series) -> pd.Series:
    """Return a column as Python's strings, None where a value is missing."""
    values = [None if missing else str(value) for value, missing in zip(column, column.isna())]
    return pd.Series(values, index=column.index, dtype=object)
