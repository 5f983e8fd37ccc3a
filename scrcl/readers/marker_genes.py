"""Read tables of known marker genes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from scrcl.messages import UserError, log
from scrcl.readers import tables


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
    spelling = {name.upper(): name for name in reversed(genes)} | {name: name for name in genes}
    found = {
        name: list(dict.fromkeys(hit for gene in own if (hit := spelling.get(gene) or spelling.get(gene.upper()))))
        for name, own in table.groupby("type", sort=False)["gene"]
    }
    n_found = sum(map(len, found.values()))
    if not n_found:
        raise UserError(
            f"None of the {len(table)} genes in {path} is in the data, "
            f"whose genes are named like {', '.join(genes[:3])}."
        )
    log.info("%s: %d of its %d markers are in the data.", path.name, n_found, len(table.drop_duplicates()))
    missing = [name for name, own in found.items() if not own]
    if missing:
        log.warning("None of the markers of %s is in the data, so no cluster can get that name.", ", ".join(missing))
    return {name: own for name, own in found.items() if own}
