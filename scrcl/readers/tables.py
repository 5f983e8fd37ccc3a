"""Tables with a row per cell or spot: read, and joined by barcode."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from scrcl.messages import UserError, one_line


def read_table(path: Path, what: str) -> pd.DataFrame:
    """A csv or tab-separated table; row names, which R writes without a header, become a column.

    what: names the table in errors. Raises UserError for one that cannot be read or has no rows.
    """
    separator = "," if ".csv" in map(str.lower, path.suffixes) else "\t"
    try:
        table = pd.read_csv(path, sep=separator, dtype={0: str})
        if table.shape[1] == 1 and ";" in table.columns[0]:  # how some languages' Excel writes csv
            table = pd.read_csv(path, sep=";", dtype={0: str})
    except Exception as error:  # pandas: many types; missing and damaged files alike
        raise UserError(f"The {what} {path} cannot be read as a table ({one_line(error)}).") from error
    if isinstance(table.index, pd.MultiIndex):
        raise UserError(f"The rows of {path} have more fields than its first line names; put quotes around labels.")
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(names="barcode" if "barcode" not in table else "row name")
    if table.empty:
        raise UserError(f"The {what} {path} has no rows.")
    return table


def barcode_column(table: pd.DataFrame, barcodes: pd.Index) -> str | None:
    """The column that names most cells, or None.

    It must name half of all cells, or hardly repeat itself and name a tenth of what it could: a column
    of small numbers is not the barcodes because some cells happen to be called 0, 1 and 2.
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
    """The table indexed by its column of barcodes. Raises UserError where one stands twice, with different contents."""
    table = table[table[column].notna()].drop_duplicates().set_index(column)
    table.index = table.index.map(_as_name)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise UserError(f"{path} has the barcode {twice[0]!r} more than once; keep the rows of these data alone.")
    return table


def _as_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
