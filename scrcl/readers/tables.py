"""Read tables with one row per cell or spot, and join them by barcode."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from scrcl.messages import UserError, one_line


def read_table(path: Path, what: str) -> pd.DataFrame:
    """Read a csv or tab-separated table.

    Row names, which R writes without a header, become a column.

    Parameters
    ----------
    path
        The table. A name with .csv means commas (or, if that gives one column, semicolons); any other name means tabs.
    what
        What the table is, as named in errors.

    Raises
    ------
    UserError
        When the table cannot be read or has no rows.
    """
    separator = "," if ".csv" in map(str.lower, path.suffixes) else "\t"
    try:
        table = pd.read_csv(path, sep=separator, dtype={0: str})
        if table.shape[1] == 1 and ";" in table.columns[0]:  # Excel writes csv so in some languages
            table = pd.read_csv(path, sep=";", dtype={0: str})
    except Exception as error:  # pandas raises many types for missing and damaged files
        raise UserError(f"The {what} {path} cannot be read as a table ({one_line(error)}).") from error
    if isinstance(table.index, pd.MultiIndex):
        raise UserError(f"The rows of {path} have more fields than its header; put labels in quotes.")
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(names="barcode" if "barcode" not in table else "row name")
    if table.empty:
        raise UserError(f"The {what} {path} has no rows.")
    return table


def barcode_column(table: pd.DataFrame, barcodes: pd.Index) -> str | None:
    """Return the column that names most cells, or None.

    It must name half of all cells. A column with hardly any repeats need only name a tenth of the cells that it could.
    So a column of small numbers does not count as barcodes because some cells happen to be called 0, 1 and 2.

    Parameters
    ----------
    table
        Any table with column names.
    barcodes
        The names of the cells.
    """

    def named(name: str) -> int:
        values = table[name].dropna().map(_as_name)
        found = int(barcodes.isin(values).sum())
        enough = 2 * found >= len(barcodes) or (
            2 * values.nunique() > len(values) and 10 * found >= min(len(barcodes), len(values))
        )
        return found if enough else 0

    counts = {name: named(name) for name in table}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def by_barcode(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    """Return the table indexed by its column of barcodes.

    Parameters
    ----------
    table, column
        The table, and the name of its column of barcodes.
    path
        Where the table is from, as named in errors.

    Raises
    ------
    UserError
        When a barcode has several rows with different contents.
    """
    table = table[table[column].notna()].drop_duplicates().set_index(column)
    table.index = table.index.map(_as_name)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise UserError(f"{path} lists the barcode {twice[0]!r} more than once; keep only the rows of this data set.")
    return table


def _as_name(value: object) -> str:
    """Return a value as a cell's name, whole numbers without a decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
