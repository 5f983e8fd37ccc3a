"""Read tables of known marker genes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from scrcl.messages import UserError, log
from scrcl.readers import tables

COMMON = Path(__file__).parent / "common_types.csv"
FEWEST = 2  # markers of a common type
BUILTIN = "builtin"


def require_marker_table(asked: str) -> None:
    """Raise UserError where --marker-genes names neither the built-in table nor a file; '' is for none."""
    if asked not in ("", BUILTIN) and not os.path.isfile(asked):
        raise UserError(f"--marker-genes {asked} is not a file; {BUILTIN} means common types of human and mouse.")


def marker_genes(asked: str | Mapping[str, Sequence[str]], genes: pd.Index) -> dict[str, list[str]]:
    """Return the markers of known types that are in the data.

    Parameters
    ----------
    asked
        'builtin', the path of a table, the markers by type, or '' for none.
    genes
        The names of the genes in the data.

    Raises
    ------
    UserError
        When there is no such table, or nothing of it is in the data.
    """
    if isinstance(asked, Mapping):
        return _in_the_data(_by_type(asked), genes, "marker_genes")
    require_marker_table(asked)
    if not asked:
        return {}
    return common_marker_genes(genes) if asked == BUILTIN else read_marker_genes(Path(asked), genes)


def _by_type(asked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return markers by type as strings, after a check that each type has a list of genes."""
    known = {str(name): [own] if isinstance(own, str) else own for name, own in asked.items()}
    wrong = [name for name, own in known.items() if not isinstance(own, Iterable)]
    if wrong:
        example = {"B cell": ["MS4A1", "CD79A"]}
        raise UserError(f"marker_genes has no list of genes for {wrong[0]}; it takes genes by type, as {example}.")
    return {name: list(map(str, own)) for name, own in known.items()}


def read_marker_genes(path: Path, genes: pd.Index) -> dict[str, list[str]]:
    """Read the known markers of each type from a table with the columns type and gene.

    A gene that is not in the data in its own spelling is looked for regardless of case. A type without any of its genes
    in the data is left out, with a warning.

    Parameters
    ----------
    path
        The table.
    genes
        The names of the genes in the data.

    Returns
    -------
    The markers found in the data, by type.

    Raises
    ------
    UserError
        When the table lacks these columns, or none of its genes is in the data.
    """
    table = tables.read_table(path, "table of markers").rename(columns=lambda name: str(name).strip().lower())
    if [list(table).count(name) for name in ("type", "gene")] != [1, 1]:
        raise UserError(f"{path} has the columns {', '.join(table)}; a table of markers has columns type and gene.")
    table = table[["type", "gene"]].dropna().astype(str).apply(lambda column: column.str.strip())
    return _in_the_data({str(name): list(own) for name, own in table.groupby("type", sort=False)["gene"]}, genes, path)


def _in_the_data(known: dict[str, list[str]], genes: pd.Index, source: str | Path) -> dict[str, list[str]]:
    """Return the markers that are in the data, of the types that have any, and say how many; `source` names them."""
    found = _spelt_as(genes, known)
    n_found, n_known = sum(map(len, found.values())), sum(len(set(own)) for own in known.values())
    if not n_found:
        raise UserError(
            f"None of the {n_known} genes in {source} is in the data, "
            f"whose genes are named like {', '.join(genes[:3])}."
        )
    log.info("%s: %d of its %d markers are in the data.", Path(source).name, n_found, n_known)
    missing = [name for name, own in found.items() if not own]
    if missing:
        log.warning("None of the markers of %s is in the data, so no cluster can get that name.", ", ".join(missing))
    return {name: own for name, own in found.items() if own}


def common_marker_genes(genes: pd.Index) -> dict[str, list[str]]:
    """Return the markers of common types of human and mouse that are in the data; at least 2 of each type.

    Parameters
    ----------
    genes
        The names of the genes in the data.

    Raises
    ------
    UserError
        When none is in the data.
    """
    lines = COMMON.read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines if not line.startswith("#")][1:]
    found = _spelt_as(genes, {name: own.split() for name, own in rows})
    found = {name: own for name, own in found.items() if len(own) >= FEWEST}
    if not found:
        raise UserError(
            f"No marker of a common cell type is in the data, whose genes are named like {', '.join(genes[:3])}; "
            "put symbols into var['gene_symbols'], or let --marker-genes name markers of your own in this form."
        )
    if 2 * len(found) < len(rows):
        log.warning(
            "Markers of only %d of %d common cell types are in the data, so names can be far off.",
            len(found),
            len(rows),
        )
    else:
        log.info("Names: markers of %d of %d common cell types are in the data.", len(found), len(rows))
    return found


def _spelt_as(genes: pd.Index, known: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return known markers in the spelling of the data, without those that are not in the data."""
    spelling = {name.upper(): name for name in reversed(genes)} | {name: name for name in genes}
    return {
        name: list(dict.fromkeys(hit for gene in own if (hit := spelling.get(gene) or spelling.get(gene.upper()))))
        for name, own in known.items()
    }
