"""Xenium folders, written as 10x documents them: cell_feature_matrix and the table of cells."""

from __future__ import annotations

import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scrcl.messages import UserError
from scrcl.readers import source, xenium
from scrcl.readers.find import find

COUNTS = np.array([[3, 0, 1, 0], [0, 2, 0, 40], [1, 1, 0, 20]])
CELLS = ["aaaaaaab-1", "aaaaaaac-1", "aaaaaaad-1"]
NAMES = ["ABCC11", "ACTA2", "NegControlProbe_00042", "CD4"]
TYPES = ["Gene Expression", "Gene Expression", "Negative Control Probe", "Protein Expression"]


def write(folder, cells=CELLS, prefix: str = "") -> pd.DataFrame:
    """One run; the table of cells has them in another order, and one more. Returns that table."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = sparse.csr_matrix(COUNTS)
    with h5py.File(folder / f"{prefix}cell_feature_matrix.h5", "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(matrix, name)
        file["matrix/shape"] = [4, 3]
        file["matrix/barcodes"] = np.array(cells, dtype="S")
        for name, values in (("id", NAMES), ("name", NAMES), ("feature_type", TYPES), ("genome", ["Unknown"] * 4)):
            file[f"matrix/features/{name}"] = np.array(values, dtype="S")
    table = pd.DataFrame(
        {
            "cell_id": [cells[2], "aaaaaaaf-1", cells[0], cells[1]],
            "x_centroid": [30.5, 40.0, 10.5, 20.5],
            "y_centroid": [3.25, 4.0, 1.25, 2.25],
            "transcript_counts": [2, 0, 3, 2],
            "cell_area": [60.0, 70.0, 40.0, 50.0],
        }
    )
    table.to_parquet(folder / f"{prefix}cells.parquet", index=False)
    (folder / f"{prefix}cells.csv.gz").write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    return table


def assert_read(adata, cells=CELLS) -> None:
    assert list(adata.obs_names) == list(cells) and list(adata.var_names) == NAMES
    assert adata.X.toarray().tolist() == COUNTS.tolist() and adata.X.dtype == np.float32 and adata.X.format == "csr"
    assert adata.obsm["spatial"].tolist() == [[10.5, 1.25], [20.5, 2.25], [30.5, 3.25]]
    assert list(adata.var["feature_types"]) == TYPES
    assert list(adata.obs["cell_area"]) == [40, 50, 60] and "x_centroid" in adata.obs


@pytest.mark.parametrize("task", ["SC", "ST"])
@pytest.mark.parametrize("place", ["", "outs"])
@pytest.mark.parametrize("prefix", ["", "GSM7780153_Post_R1_"])
def test_the_table_in_parquet(tmp_path, task, place, prefix):
    write(tmp_path / "run" / place, prefix=prefix)
    found = source(str(tmp_path / "run"), task)
    assert_read(found.read())
    names = [f"{prefix}cell_feature_matrix.h5", f"{prefix}cells.parquet"]
    assert [path.name for path in found.files] == names and found.name == "run"


def test_the_table_in_csv_with_cells_that_are_numbers(tmp_path):
    """As Xenium Onboard Analysis 1.0 counted them."""
    write(tmp_path, cells=["1", "2", "3"])
    (tmp_path / "cells.parquet").unlink()
    assert_read(source(str(tmp_path), "ST").read(), ["1", "2", "3"])


def test_the_matrix_as_a_folder_and_cells_in_bytes(tmp_path):
    table = write(tmp_path)
    (tmp_path / "cell_feature_matrix.h5").unlink()
    table["cell_id"] = table["cell_id"].str.encode("utf-8")  # as early parquet files have them
    table.to_parquet(tmp_path / "cells.parquet", index=False)
    folder = tmp_path / "cell_feature_matrix"
    folder.mkdir()
    lines = [f"{gene + 1} {cell + 1} {COUNTS[cell, gene]}" for cell, gene in zip(*COUNTS.nonzero())]
    text = "\n".join(["%%MatrixMarket matrix coordinate integer general", f"4 3 {len(lines)}", *lines])
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(CELLS).encode()))
    features = "\n".join(f"{name}\t{name}\t{kind}" for name, kind in zip(NAMES, TYPES))
    (folder / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
    assert_read(source(str(tmp_path), "ST").read())


def test_protein_stains_are_divided_by_their_factor(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "cell_feature_matrix.h5", "r+") as file:
        file.attrs["protein_scaling_factor"] = 8
    adata = source(str(tmp_path), "ST").read()
    assert adata.X.toarray().tolist() == [[3, 0, 1, 0], [0, 2, 0, 5], [1, 1, 0, 2.5]]


def test_several_runs(tmp_path):
    for name in ("late", "early"):
        write(tmp_path / name)
    adata = source(str(tmp_path), "SC").read()
    assert list(adata.obs["library_id"]) == ["early"] * 3 + ["late"] * 3 and adata.obs_names.is_unique
    assert adata.obsm["spatial"].tolist() == [[10.5, 1.25], [20.5, 2.25], [30.5, 3.25]] * 2


def test_what_is_no_run_or_a_bad_one(tmp_path):
    table = write(tmp_path)
    table.assign(cell_id=list("abcd")).to_parquet(tmp_path / "cells.parquet", index=False)
    with pytest.raises(UserError, match="None of the 3 cells of the matrix is among the 4 in .*cells.parquet"):
        source(str(tmp_path), "ST").read()
    table.rename(columns={"x_centroid": "x"}).to_parquet(tmp_path / "cells.parquet", index=False)
    with pytest.raises(UserError, match="cells.parquet has no column x_centroid"):
        source(str(tmp_path), "ST").read()
    pd.concat([table, table]).to_parquet(tmp_path / "cells.parquet", index=False)
    with pytest.raises(UserError, match="has the cell 'aaaaaaad-1' more than once"):
        source(str(tmp_path), "ST").read()
    (tmp_path / "cells.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read as a table of cells"):
        source(str(tmp_path), "ST").read()
    (tmp_path / "cells.parquet").unlink()
    (tmp_path / "cells.csv.gz").unlink()
    assert xenium.locate(tmp_path) is None and xenium.locate(tmp_path / "cell_feature_matrix.h5") is None


def test_it_is_told_from_visium(tmp_path):
    write(tmp_path)
    assert find(str(tmp_path), "ST") == (tmp_path, xenium)
