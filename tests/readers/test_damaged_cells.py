"""Damaged files of every format of cells: they are read, or one sentence says what is wrong."""

from __future__ import annotations

import gzip
import os
import random
import shutil

import h5py
import numpy as np
import pytest
from anndata.io import write_elem
from conftest import simulate, write_matrix
from odd import write_damaged

from scrcl.contents.values import find_expression
from scrcl.disk import hdf5
from scrcl.messages import UserError
from scrcl.readers import source

CASES = int(os.environ.get("SCRCL_CASES", 40)) // 2
KINDS = ["10x.h5", "in.loom", "in.h5mu", "in.zarr", "in.csv", "in.csv.gz", "texts", "packed"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sound file or folder of every kind."""
    folder, adata = tmp_path_factory.mktemp("whole"), simulate(60, 60)
    write_matrix(adata, folder / "10x.h5")
    with h5py.File(folder / "in.loom", "w") as file:
        file.create_dataset("matrix", data=adata.X.toarray().T, compression="gzip")
        file["row_attrs/Gene"], file["col_attrs/CellID"] = list(adata.var_names), list(adata.obs_names)
    with h5py.File(folder / "in.h5mu", "w") as file:
        write_elem(file.create_group("mod"), "rna", adata)
        for name, item in (("obs", adata.obs), ("var", adata.var)):
            write_elem(file, name, item)
    adata.write_zarr(folder / "in.zarr")
    adata.to_df().to_csv(folder / "in.csv")
    adata.to_df().T.to_csv(folder / "in.csv.gz")
    matrix = adata.X.tocoo()
    triples = "".join(f"{j + 1} {i + 1} {int(n)}\n" for i, j, n in zip(matrix.row, matrix.col, matrix.data))
    texts = {
        "matrix.mtx": f"%%MatrixMarket matrix coordinate integer general\n60 60 {matrix.nnz}\n{triples}",
        "barcodes.tsv": "\n".join(adata.obs_names),
        "features.tsv": "\n".join(f"ENSG{name}\t{name}\tGene Expression" for name in adata.var_names),
    }
    for place, ending, pack in (("texts", "", bytes), ("packed", ".gz", gzip.compress)):
        (folder / place).mkdir()
        for name, text in texts.items():
            (folder / place / f"{name}{ending}").write_bytes(pack(text.encode()))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_sound_files_are_the_same_in_every_format(kind, whole):
    assert np.array_equal(source(str(whole / kind), "SC").read().X.toarray(), simulate(60, 60).X.toarray())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_reported(kind, whole, monkeypatch, tmp_path):
    monkeypatch.setattr(hdf5, "SECONDS", 2)
    for seed in range(CASES):
        rng = random.Random(seed)
        good, bad = whole / kind, tmp_path / str(seed) / kind
        if good.is_dir():
            shutil.copytree(good, bad)
            part = rng.choice(sorted(path for path in good.rglob("*") if path.is_file())).relative_to(good)
            write_damaged(good / part, bad / part, rng)
        else:
            bad.parent.mkdir()
            write_damaged(good, bad, rng)
        try:
            find_expression(source(str(bad), "SC").read())
        except UserError as error:
            assert str(error) and "\n" not in str(error)
