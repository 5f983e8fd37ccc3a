"""Find tables of known domains, read them, and join them to the spots by barcode."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pandas as pd

from scrcl.keys import LABELS_OF_SPOTS
from scrcl.messages import UserError, log
from scrcl.readers import tables
from scrcl.settings import SPACE_RANGER

FILES = ("metadata.tsv", "metadata.csv")


def annotate(adata: ad.AnnData, path: Path, annotation: str) -> None:
    """Join the annotation that belongs to a Visium folder or h5ad file, if there is one.

    Parameters
    ----------
    adata
        Spots x genes; the columns of the annotation are written to its obs.
    path
        The Visium folder or h5ad file.
    annotation
        As for `scrcl.readers.read`.

    Raises
    ------
    UserError
        As `join_annotation` does.
    """
    table = annotation_table(path, annotation)
    if table is None:
        return
    join_annotation(adata, table)
    if not set(LABELS_OF_SPOTS) & set(adata.obs):
        usual, there = ", ".join(LABELS_OF_SPOTS), ", ".join(map(str, adata.obs))
        log.info("No known domains: none of %s in obs (%s); name a column by --label-key.", usual, there)


def annotation_table(path: Path, annotation: str) -> Path | None:
    """Return the table of known domains that belongs to a Visium folder or h5ad file, or None.

    Parameters
    ----------
    path
        The Visium folder or h5ad file.
    annotation
        As for `scrcl.readers.read`. For 'auto', the table is looked for in the folder, and in the folder around Space
        Ranger's own folders.
    """
    if annotation not in ("auto", "none"):
        return Path(annotation)
    if annotation == "none" or path.is_file():
        return None
    outside = [folder.parent for folder in (path, *path.parents) if folder.name in SPACE_RANGER]
    tables = [folder / name for folder in (path, *outside) for name in FILES]
    return next((table for table in tables if table.is_file()), None)


def join_annotation(adata: ad.AnnData, path: Path) -> None:
    """Write the columns of a table to obs, joined by barcode; spots missing from the table keep what they have.

    The barcodes are the column, or the row names, that match most of the spots' names. A table that has no such column
    but has one row per spot is taken row by row, with a warning.

    Parameters
    ----------
    adata
        Spots x genes; the columns of the table are written to its obs.
    path
        The table.

    Raises
    ------
    UserError
        When the table cannot be read, names a spot twice, or has the barcodes of other spots.
    """
    table = tables.read_table(path, "annotation")
    if set(table) & set(adata.obs_names):
        raise UserError(f"The annotation {path} has no header; add a first line with the names of its columns.")
    by_barcode = tables.joined(table, adata.obs_names, path)
    if by_barcode is None:
        _require_row_order(table, adata, path)
        by_barcode = table.set_axis(adata.obs_names)
    for name, values in by_barcode.reindex(adata.obs_names).items():
        if name in adata.obs:
            values = values.astype(object).where(values.notna(), adata.obs[name].astype(object)).infer_objects()
        adata.obs[name] = _storable(values)


def _storable(values: pd.Series) -> pd.Series:
    """Return truth values with gaps in pandas' own type for them, since h5ad cannot hold them as an object column."""
    mixed = values.dtype == object and values.notna().any() and values.dropna().map(type).eq(bool).all()
    return values.astype("boolean") if mixed else values


def _require_row_order(table: pd.DataFrame, adata: ad.AnnData, path: Path) -> None:
    """Raise UserError unless the table has no barcodes and one row per spot."""
    barcodes = [name for name in table if _like_barcodes(table[name])]
    if barcodes or len(table) != adata.n_obs:
        example = f" ({table[barcodes[0]].iloc[0]!r} there, {adata.obs_names[0]!r} here)" if barcodes else ""
        raise UserError(
            f"Too few of the {len(table)} rows of {path} have the barcode of one of the {adata.n_obs} spots"
            f"{example}; its first column must hold the spots' barcodes."
        )
    log.warning("%s has no barcodes: its rows are taken to be in the order of the matrix.", path)


def _like_barcodes(column: pd.Series) -> bool:
    """Return whether a column is text that differs in every row, and not the row numbers that to_csv writes."""
    counter = column.astype(str).equals(pd.Series(range(len(column)), index=column.index).astype(str))
    return not pd.api.types.is_numeric_dtype(column) and column.is_unique and not counter
