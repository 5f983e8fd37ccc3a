"""Make the files of a data set from what was published: `make` in registry.yaml names one of `CONVERSIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

from scrcl.messages import UserError, one_line
from scrcl.published.registry import DataSet

GENES_AT_ONCE = 1000  # dense, Baron's table is four times as large as the set is in memory


def make(data_set: DataSet, inputs: Mapping[str, Path], target: Path) -> None:
    """Make a data set's own file.

    Parameters
    ----------
    data_set
        Which one, with its conversion and the options of that.
    inputs
        What was downloaded, by its name there.
    target
        The file to make.

    Raises
    ------
    UserError
        Where it cannot be made of these.
    """
    try:
        CONVERSIONS[data_set.make](inputs, target, **data_set.options)
    except (UserError, OSError):
        raise
    except Exception as error:  # pandas, scipy and h5py raise many types for damaged files
        raise UserError(
            f"{data_set.name} cannot be made from what was downloaded ({one_line(error)}); remove the folder of "
            "downloads and try again."
        ) from error


def _baron(inputs: Mapping[str, Path], target: Path) -> None:
    """Counts of donor 1 of Baron 2016 as h5ad, cells x genes.

    Baron_H1_Data.csv is genes x cells with their names; Baron_H1_Gene_Ann.csv and Baron_H1_Labels.csv name them too.
    """
    genes = _second_column(inputs["Baron_H1_Gene_Ann.csv"])
    types = _second_column(inputs["Baron_H1_Labels.csv"])
    table = inputs["Baron_H1_Data.csv"]
    blocks: list[sparse.csr_matrix] = []
    rows: list[str] = []
    for block in pd.read_csv(table, index_col=0, chunksize=GENES_AT_ONCE, keep_default_na=False):
        blocks.append(sparse.csr_matrix(block.to_numpy(dtype=np.float32)))
        rows += map(str, block.index)
    counts = sparse.vstack(blocks).T.tocsr()
    if rows != genes or counts.shape[0] != len(types):
        raise UserError(
            f"The tables of Baron 2016 do not fit together: {counts.shape[0]} cells and {len(types)} labels, "
            f"{len(rows)} genes and {len(genes)} names of genes."
        )
    _write(counts, pd.Index(block.columns, dtype=object), pd.Index(genes), {"cell_type1": types}, target)


def _second_column(path: Path) -> list[str]:
    """Of a table that R wrote: its first column are row numbers."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).iloc[:, 1].tolist()


def _zeisel(inputs: Mapping[str, Path], target: Path, blocks: Mapping[str, Mapping[str, Any]]) -> None:
    """Counts of Zeisel 2015 as h5ad, cells x genes, which have no names.

    zeisel_data.mat is genes x cells as ln(1 + count); zeisel_names.mat has each cell's class and subclass. blocks are
    the cell types in the order of the cells, each with its number of 'cells' and the 'classes' they may have.
    """
    values = scipy.io.loadmat(inputs["zeisel_data.mat"])["zeisel_data"].T
    names = [[str(name[0]) for name in row] for row in scipy.io.loadmat(inputs["zeisel_names.mat"])["zeisel_names"]]
    classes, subclasses = map(list, zip(*names))
    types = [kind for kind, block in blocks.items() for _ in range(block["cells"])]
    if not len(types) == len(classes) == len(values):
        raise UserError(f"There are {len(values)} cells with {len(classes)} classes where {len(types)} were expected.")
    for cell, (kind, found) in enumerate(zip(types, classes)):
        if found not in blocks[kind]["classes"]:
            raise UserError(
                f"Cell {cell} is of the class {found!r}, which does not fit the type {kind!r} of its place."
            )
    counts = np.rint(np.expm1(values))
    if not np.allclose(np.log1p(counts), values, atol=1e-6):
        raise UserError(f"The values in {inputs['zeisel_data.mat'].name} are not logarithms of counts.")
    cells, genes = (pd.Index([f"{what}_{i}" for i in range(n)]) for what, n in zip(("cell", "gene"), counts.shape))
    labels = {"cell_type1": types, "level1class": classes, "level2class": subclasses}
    _write(sparse.csr_matrix(counts, dtype=np.float32), cells, genes, labels, target)


def _layers(inputs: Mapping[str, Path], target: Path, sample: str) -> None:
    """The known layers of a slice, in the order of its matrix, as columns barcode and layer_guess; empty where unknown.

    barcode_level_layer_map.tsv has lines of barcode, sample and layer.
    """
    path = inputs["barcode_level_layer_map.tsv"]
    table = pd.read_csv(path, sep="\t", header=None, names=["barcode", "sample", "layer"], dtype=str)
    known = table[table["sample"] == sample].drop_duplicates("barcode").set_index("barcode")["layer"]
    with h5py.File(inputs[f"{sample}_filtered_feature_bc_matrix.h5"]) as file:
        barcodes = file["matrix/barcodes"].asstr()[:]
    found = known.reindex(barcodes)
    if found.isna().all():
        raise UserError(f"No spot of the slice {sample} has a layer in {path}; remove that file and try again.")
    found.rename("layer_guess").to_csv(target, sep="\t", index_label="barcode")


CONVERSIONS: dict[str, Callable[..., None]] = {"baron": _baron, "zeisel": _zeisel, "layers": _layers}


def _write(
    counts: sparse.csr_matrix, cells: pd.Index, genes: pd.Index, labels: Mapping[str, Any], target: Path
) -> None:
    """Write an h5ad file; labels holds a text per cell under each of their names."""
    obs = pd.DataFrame({name: np.asarray(values, dtype=object) for name, values in labels.items()}, index=cells)
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(target, compression="gzip")
