"""Read one matrix as 10x Genomics writes it: an HDF5 file of Cell Ranger 2 or later, or a matrix with two lists."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scanpy as sc

from scrcl.disk import hdf5
from scrcl.messages import UserError, log, one_line
from scrcl.readers.h5ad import require_sound
from scrcl.readers.market import read_market
from scrcl.readers.packed import opened

TEXT = re.compile(r"(?P<stem>.+)\.(?P<ending>mtx|tsv|txt|csv)(\.gz)?")
LISTS = {"barcodes": "barcodes", "features": "features", "genes": "features"}  # the last word is that of Cell Ranger 2


class Texts(NamedTuple):
    """The three text files of one matrix."""

    matrix: Path
    barcodes: Path
    features: Path


def texts(folder: Path) -> dict[str, Texts]:
    """Return the matrices in a folder that have both lists, by what their names have beside the usual words.

    GEO has names like GSM1_A_matrix.mtx.gz, GSM1_A_barcodes.tsv.gz and GSM1_A_genes.tsv.gz: that is the matrix GSM1_A.
    The files of the only matrix may have any names.
    """
    found: dict[str, dict[str, Path]] = {"matrix": {}, "barcodes": {}, "features": {}}
    for path in entries(folder):
        part, key = _part(path.name)
        if part:
            found[part].setdefault(key, path)
    if all(len(paths) == 1 for paths in found.values()):
        return {next(iter(found["matrix"])): Texts(*(next(iter(paths.values())) for paths in found.values()))}
    shared = [key for key in found["matrix"] if key in found["barcodes"] and key in found["features"]]
    return {key: Texts(*(paths[key] for paths in found.values())) for key in shared}


def _part(name: str) -> tuple[str, str]:
    """Return which of the three files a name is of, or '', and what it has beside the usual words."""
    match = TEXT.fullmatch(name)
    if match is None:
        return "", ""
    is_matrix = match["ending"] == "mtx"
    for word, part in {"matrix": "matrix"}.items() if is_matrix else LISTS.items():
        before, found, after = match["stem"].rpartition(word)
        if found:
            return part, "_".join(filter(None, (before.strip("_-. "), after.strip("_-. "))))
    return ("matrix", match["stem"]) if is_matrix else ("", "")


def genomes(folder: Path) -> dict[str, Texts]:
    """Return the matrices in the folders that Cell Ranger 2 made for each genome, by genome."""
    inner = {path.name: texts(path) for path in entries(folder) if path.is_dir()}
    return {name: next(iter(found.values())) for name, found in inner.items() if len(found) == 1}


def groups(path: Path) -> list[str]:
    """Return the groups of an HDF5 file that hold a matrix: 'matrix', or the genomes in a file of Cell Ranger 2."""
    names = hdf5.names(path)
    if not names:  # a damaged file may crash whoever opens it
        return []
    try:
        with h5py.File(path) as file:
            return [name for name in sorted(names) if _is_matrix(file.get(name))]
    except Exception:  # h5py raises many types for damaged files
        return []


def _is_matrix(item: object) -> bool:
    """Return whether an item of an HDF5 file is a matrix with barcodes."""
    return isinstance(item, h5py.Group) and {"barcodes", "indptr"} <= item.keys()


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted and without hidden files; nothing for a folder that may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def read_matrix(source: Path | Texts) -> ad.AnnData:
    """Read one matrix of counts with all its features, and unique gene names.

    Parameters
    ----------
    source
        An HDF5 file, a folder with the three text files or with one folder per genome, or the three files themselves.

    Returns
    -------
    Cells x features, float32 CSR. Gene symbols are var_names; var has gene_ids, feature_types where they are known, and
    genome where there are several.

    Raises
    ------
    UserError
        When the matrix is damaged, or its files do not fit together.
    """
    path = source.matrix if isinstance(source, Texts) else source
    try:
        if isinstance(source, Texts):
            adata = _read_texts(source)
        else:
            adata = _read_folder(source) if source.is_dir() else _read_h5(source)
        if adata.X.dtype != np.float32:
            adata.X = adata.X.astype(np.float32)
    except UserError:
        raise
    except Exception as error:  # scanpy, h5py, scipy and gzip raise many types for damaged files
        raise UserError(
            f"{path} cannot be read as a 10x matrix ({one_line(error)}); download or copy it again."
        ) from error
    adata.var_names_make_unique()
    return adata


def _read_h5(path: Path) -> ad.AnnData:
    """Read an HDF5 file; the genomes in a file of Cell Ranger 2 are joined."""
    if h5py.is_hdf5(path):
        require_sound(path)
    _require_sound_indices(path)
    with warnings.catch_warnings():  # gene symbols repeat in every annotation; they are made unique below
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        names = groups(path)
        if len(names) < 2 or "matrix" in names:
            return sc.read_10x_h5(path, genome=None if "matrix" in names else next(iter(names), None), gex_only=False)
        return _join_genomes({name: sc.read_10x_h5(path, genome=name) for name in names})


def _require_sound_indices(path: Path) -> None:
    """Raise ValueError for a matrix with indices outside it, which scipy does not check and crashes on."""
    with h5py.File(path) as file:
        for group in (item for item in file.values() if isinstance(item, h5py.Group) and "indptr" in item):
            starts, genes = group["indptr"][:].astype(np.int64), group["indices"][:]
            n_genes, n_spots = map(int, group["shape"][:])
            fits = len(starts) == n_spots + 1 and starts[0] == 0 and starts[-1] == len(genes) == len(group["data"])
            if (
                not fits
                or (np.diff(starts) < 0).any()
                or (genes.size and not 0 <= genes.min() <= genes.max() < n_genes)
            ):
                raise ValueError("its indices point outside the matrix")


def _read_folder(folder: Path) -> ad.AnnData:
    """Read the only matrix in a folder, or those of its genomes."""
    found = texts(folder)
    if len(found) == 1:
        return _read_texts(next(iter(found.values())))
    parts = genomes(folder)
    if found or not parts:
        raise ValueError("it has no matrix.mtx with barcodes.tsv and features.tsv or genes.tsv, packed or not")
    read = {name: _read_texts(part) for name, part in parts.items()}
    return _join_genomes(read) if len(read) > 1 else next(iter(read.values()))


def _read_texts(source: Texts) -> ad.AnnData:
    """Read the three text files of a matrix, which has cells in columns as a rule."""
    matrix = read_market(source.matrix)  # cells in rows, where the file has them in columns
    cells, genes = _list(source.barcodes), _list(source.features)
    if not (_fits(cells, matrix.shape[0]) and _fits(genes, matrix.shape[1])):
        if not (_fits(cells, matrix.shape[1]) and _fits(genes, matrix.shape[0])):
            shape = " x ".join(map(str, matrix.shape[::-1]))
            raise ValueError(f"it is {shape}, but there are {len(genes)} features and {len(cells)} barcodes")
        log.info("%s has cells in rows and genes in columns.", source.matrix)
        matrix = matrix.T.tocsr()
    cells, genes = cells.iloc[len(cells) - matrix.shape[0] :], genes.iloc[len(genes) - matrix.shape[1] :]
    symbols = genes[min(1, genes.shape[1] - 1)]
    var = pd.DataFrame({"gene_ids": genes[0].to_numpy()}, index=symbols.where(symbols != "", genes[0]).to_numpy())
    if genes.shape[1] > 2:
        var["feature_types"] = genes[2].to_numpy()
    with warnings.catch_warnings():  # as for HDF5 files
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        return ad.AnnData(matrix, obs=pd.DataFrame(index=cells[0].to_numpy()), var=var)


def _list(path: Path) -> pd.DataFrame:
    """Read a list of barcodes or features as text: a gene may be called NA."""
    separator = "," if ".csv" in path.suffixes else "\t"
    try:
        with opened(path) as file:
            return pd.read_csv(file, sep=separator, header=None, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path.name} is empty") from None


def _fits(table: pd.DataFrame, n: int) -> bool:
    """Return whether a list has n lines, or a header and n lines."""
    return len(table) - n in (0, 1)


def _join_genomes(parts: dict[str, ad.AnnData]) -> ad.AnnData:
    """Put the genes of several genomes side by side; those that share names get their genome's name, as 10x does it."""
    names = [name for part in parts.values() for name in part.var_names.unique()]
    clash = len(set(names)) < len(names)
    for genome, part in parts.items():
        part.var["genome"] = genome
        if clash:
            part.var["gene_ids"] = [f"{genome}_{name}" for name in part.var["gene_ids"]]
            part.var_names = [f"{genome}_{name}" for name in part.var_names]
        part.var_names_make_unique()
    joined = ad.concat(parts.values(), axis="var", join="outer", merge="first")
    joined.X = joined.X.tocsr()
    log.info("The genes of %d genomes stand side by side: %s.", len(parts), ", ".join(parts))
    return joined
