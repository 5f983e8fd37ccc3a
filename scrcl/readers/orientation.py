"""Find out whether the rows of a matrix are cells or genes, by their names or else by their totals."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

BARCODE = re.compile(r"(.*[^A-Za-z])?[ACGTN]{8,}([^A-Za-z].*)?")
IDS = re.compile(r"(ENS[A-Z]*[GT]\d{6,}|FBgn\d+|WBGene\d+)(\.\d+)?([^A-Za-z0-9].*)?")
EVERYWHERE = re.compile(  # genes that nearly every data set of human or mouse has
    r"ACTB|ACTG1|GAPDH|B2M|MALAT1|EEF1A1|TMSB4X|TMSB10|UBC|UBB|FTL1?|FTH1|PPIA|HPRT1?|TUBA1B|VIM|RP[LS]\d+[AXYL]?|"
    r"MT-(ND|CO|ATP|CYB)\w*",
    re.IGNORECASE,
)
OF_GENES = re.compile(r"gene|symbol|feature|ensembl|probe|id_ref|transcript", re.IGNORECASE)
OF_CELLS = re.compile(r"cell|barcode|spot|\bbc\b", re.IGNORECASE)
ENOUGH = 0.5  # share of the names
LOOKED_AT = 20_000  # names


class Names(NamedTuple):
    """How many names look like those of cells and of genes: shares but for `everywhere`, which counts them."""

    barcodes: float
    ids: float
    everywhere: int
    example: str


def cells_in_rows(matrix: sparse.csr_matrix, rows: pd.Index, columns: pd.Index, corner: str = "") -> tuple[bool, str]:
    """Return whether the rows are cells, and by what that was told, for people to read.

    Parameters
    ----------
    matrix
        The values.
    rows, columns
        The names.
    corner
        The word above the names of the rows.
    """
    in_rows, in_columns = _look_at(rows), _look_at(columns)
    for what, cells_if_in_rows in (("ids", False), ("barcodes", True)):
        share_of_rows, share_of_columns = getattr(in_rows, what), getattr(in_columns, what)
        if max(share_of_rows, share_of_columns) >= ENOUGH and share_of_rows != share_of_columns:
            where, names = ("rows", rows) if share_of_rows > share_of_columns else ("columns", columns)
            kind = "ids of genes" if what == "ids" else "barcodes"
            return (where == "rows") == cells_if_in_rows, f"the {where} are named like {kind} ({_example(names, what)})"
    if abs(in_rows.everywhere - in_columns.everywhere) > min(in_rows.everywhere, in_columns.everywhere):
        of_rows = in_rows.everywhere > in_columns.everywhere
        return (
            not of_rows,
            f"{(in_rows if of_rows else in_columns).example} is among the {'rows' if of_rows else 'columns'}",
        )
    if bool(OF_GENES.search(corner)) != bool(OF_CELLS.search(corner)):
        return bool(OF_CELLS.search(corner)), f"the word above the names of the rows is {corner!r}"
    return _by_totals(matrix)


def _look_at(names: pd.Index) -> Names:
    """Return how many of the names look like those of cells and of genes."""
    some = [str(name) for name in names[:LOOKED_AT]]
    everywhere = [str(name) for name in names if EVERYWHERE.fullmatch(str(name))]
    n = max(len(some), 1)
    return Names(
        sum(BARCODE.fullmatch(name) is not None for name in some) / n,
        sum(IDS.fullmatch(name) is not None for name in some) / n,
        len(everywhere),
        next(iter(everywhere), ""),
    )


def _example(names: pd.Index, what: str) -> str:
    """Return the first name that looks like a barcode or an id."""
    pattern = BARCODE if what == "barcodes" else IDS
    return next(str(name) for name in names if pattern.fullmatch(str(name)))


def _by_totals(matrix: sparse.csr_matrix) -> tuple[bool, str]:
    """Tell cells from genes by their totals: those of genes spread over far more orders of magnitude."""
    size = abs(matrix)
    of_rows, of_columns = (float(np.std(np.log10(1 + np.asarray(size.sum(axis=axis)).ravel()))) for axis in (1, 0))
    why = f"the totals of the {{}} spread more widely (a standard deviation of {max(of_rows, of_columns):.2f} of their "
    why += f"logarithms, not {min(of_rows, of_columns):.2f}), and no names tell"
    return of_rows <= of_columns, why.format("rows" if of_rows > of_columns else "columns")
