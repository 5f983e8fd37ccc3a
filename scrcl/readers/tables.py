"""Read tables with one row per cell or spot, and join them by barcode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from scrcl.messages import UserError, log, one_line
from scrcl.readers import packed, text

# Ways in which programs change barcodes, each with its words
CHANGES: dict[str, Callable[[str], str]] = {
    "with dots, dashes and underscores taken for the same": lambda name: _dashed(name),
    "without a number at their end": lambda name: re.sub(r"(-\d+)+$", "", _dashed(name)),
}


def read_table(path: Path, what: str) -> pd.DataFrame:
    """Read a table of text, whatever separates its fields and whatever its encoding and packing.

    Row names, which R writes without a header, become a column.

    Parameters
    ----------
    path
        The table. Where its lines do not tell, a name with .csv means commas, and any other name tabs.
    what
        What the table is, as named in errors.

    Raises
    ------
    UserError
        When the table cannot be read or has no rows.
    """
    likely = "," if ".csv" in map(str.lower, path.suffixes) else "\t"
    try:
        with packed.opened(path) as file:
            raw = file.read()
        content = raw.decode(text.encoding(raw))
        separator = text.separator(content[: text.LOOKED_AT].splitlines()[:50], likely)
        table = pd.read_csv(io.StringIO(content), sep=separator, dtype={0: str})
    except Exception as error:  # pandas and the unpackers raise many types for missing and damaged files
        raise UserError(f"The {what} {path} cannot be read as a table ({one_line(error)}).") from error
    if isinstance(table.index, pd.MultiIndex):
        raise UserError(f"The rows of {path} have more fields than its header; put labels in quotes.")
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(names="barcode" if "barcode" not in table else "row name")
    if table.empty:
        raise UserError(f"The {what} {path} has no rows.")
    return table


def joined(table: pd.DataFrame, barcodes: pd.Index, path: Path) -> pd.DataFrame | None:
    """Return the table indexed by the cells' own barcodes, or None when it has no column of them.

    Where no column has the barcodes as they are, changes that programs make to them are tried: R turns dashes into
    dots, and some programs add or drop -1. A change counts only if it leaves all barcodes different. A message says so.

    Parameters
    ----------
    table
        As `read_table` returns it.
    barcodes
        The names of the cells.
    path
        Where the table is from, as named in messages.

    Raises
    ------
    UserError
        When a barcode has several rows with different contents.
    """
    column = barcode_column(table, barcodes)
    if column is not None:
        found = by_barcode(table, column, path)
        _say_how_many(found, barcodes, path)
        return found
    for words, change in CHANGES.items():
        own = {change(name): name for name in map(str, barcodes)}
        column = barcode_column(_changed(table, change), pd.Index(list(own))) if len(own) == len(barcodes) else None
        if column is not None:
            example = table[column].dropna().iloc[0]
            names = _changed(table[[column]], change)[column]
            found = by_barcode(table.assign(**{str(column): names.map(own).fillna(names)}), column, path)
            _say_how_many(found, barcodes, path)
            log.info("%s: barcodes are compared %s (%r there, %r here).", path.name, words, example, barcodes[0])
            return found
    return None


def _changed(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with every value as a name, changed."""
    return table.map(lambda value: change(_as_name(value)), na_action="ignore")


def _say_how_many(table: pd.DataFrame, barcodes: pd.Index, path: Path) -> None:
    """Log how many of the barcodes of a table are those of cells."""
    met = int(table.index.isin(barcodes).sum())
    log.info("%s: %d of its %d barcodes are among the %d here.", path.name, met, len(table), len(barcodes))


def _dashed(name: str) -> str:
    """Return a barcode with dashes for dots and underscores, and without the X that R puts before a digit."""
    return re.sub(r"^X(?=\d)", "", re.sub(r"[._]", "-", name.strip()))


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
