"""Find the names of genes as people read them: symbols in place of ids."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd

from scrcl.keys import GENE_SYMBOLS
from scrcl.messages import UserError, log

_ID = re.compile(r"(ENS[A-Z]*G\d+|FBgn\d+|WBGene\d+|AT[1-5MC]G\d+|\d+)(\.\d+)?", re.IGNORECASE)
_NUMBERED = re.compile(r"(g|gene|feature|var|v|x)?[ ._-]*\d+", re.IGNORECASE)


def gene_names(var: pd.DataFrame, gene_key: str = "auto") -> pd.Index:
    """Return the names of the genes as people read them, made unique.

    A message says so when genes have ids or numbers for names.

    Parameters
    ----------
    var
        The table of the genes.
    gene_key
        A column of var, 'none' for var's own names, or 'auto'. When var's own names are ids or numbers, 'auto' is the
        first usual column of gene symbols, if there is one; otherwise it is var's own names.

    Raises
    ------
    UserError
        When gene_key names a column that is not in var.
    """
    if gene_key not in ("auto", "none", *var.columns):
        raise UserError(
            f"There is no var column {gene_key!r}; the columns are {', '.join(map(str, var.columns)) or 'none'}."
        )
    names = var.index.astype(str)
    key = symbol_column(var) if gene_key == "auto" else None if gene_key == "none" else gene_key
    if key is not None:
        symbols = var[key].astype(object)
        known = symbols.notna() & ~symbols.astype(str).str.strip().isin(["", "nan", "NA", "None"])
        log.info("Gene names: var[%r]; %d genes without one keep their id.", key, (~known).sum())
        names = pd.Index(symbols.astype(str).where(known, names))
    elif gene_key == "auto" and are_ids(names):
        _say_that_names_are_ids(names, var)
    return ad.utils.make_index_unique(pd.Index(names, name=None))


def are_ids(names: pd.Index) -> bool:
    """Return whether most of the genes have an id or a number for a name."""
    return _share(names, _ID) > 0.5 or _share(names, _NUMBERED) > 0.9


def symbol_column(var: pd.DataFrame) -> str | None:
    """Return the first usual column of gene symbols where the genes' own names are ids or numbers, else None."""
    if not are_ids(var.index.astype(str)):
        return None
    return next(iter(symbol_columns(var)), None)


def symbol_columns(var: pd.DataFrame) -> list[str]:
    """Return the columns that hold gene symbols by their name, in any case and with any separator."""
    by_plain_name = {_plain(name): name for name in reversed(list(var)) if not _holds_ids(var[name])}
    return [by_plain_name[name] for name in GENE_SYMBOLS if name in by_plain_name]


def _plain(name: object) -> str:
    """Return a column's name without case, separators and a plural's s: Gene.Symbols is genesymbol."""
    return re.sub(r"[^a-z]", "", str(name).lower()).removesuffix("s")


def _holds_ids(column: pd.Series) -> bool:
    """Return whether a column holds numbers, ids or nothing, so that its values are no symbols."""
    if pd.api.types.is_numeric_dtype(column) or column.isna().all():
        return True
    return _share(column.dropna().astype(str), _ID) > 0.5


def _say_that_names_are_ids(names: pd.Index, var: pd.DataFrame) -> None:
    """Log that no column of symbols was found, and which columns might hold them."""
    text = [str(key) for key in var if not _holds_ids(var[key]) and var[key].nunique() > len(var) / 2]
    advice = (
        f"the symbols may be in {', '.join(text)}: gene_key (--gene-key) names a column"
        if text
        else "var has no symbols"
    )
    log.warning("The genes have ids or numbers such as %s instead of names; %s.", names[0], advice)


def are_mitochondrial(var: pd.DataFrame) -> np.ndarray:
    """Return which genes are mitochondrial, by symbols that begin with MT- in any case, as [G] booleans."""
    key = symbol_column(var)
    names = var.index if key is None else var[key]
    return np.array([str(name).upper().startswith(("MT-", "MT:")) for name in names], dtype=bool)


def _share(names: pd.Index | pd.Series, pattern: re.Pattern[str]) -> float:
    """Return the share of the names that match a pattern as a whole."""
    return float(np.mean([pattern.fullmatch(str(name)) is not None for name in names])) if len(names) else 0.0
