"""h5mu files, as the documentation of MuData describes them."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem
from conftest import simulate

from scrcl.messages import UserError
from scrcl.readers import h5mu, source
from scrcl.readers.find import find


def write(path, *names: str, order=True):
    """Modalities of the same 30 cells; the first has 20 genes, the next 19, and so on; obs is of one cell more."""
    parts = {name: simulate(30, 20 - i) for i, name in enumerate(names)}
    obs = pd.DataFrame({"all:donor": "d1"}, index=["cell-x", *(f"cell-{i}" for i in range(30))])
    obs["donor"], obs["cell_type1"] = [f"d{i}" for i in range(31)], "of all"
    for name in names:
        obs[f"{name}:kind"] = f"kind of {name}"
    with h5py.File(path, "w") as file:
        file.create_group("mod")
        for name, adata in parts.items():
            write_elem(file["mod"], name, adata)
        if order:
            file["mod"].attrs["mod-order"] = list(names)
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.concat([adata.var for adata in parts.values()]) if parts else pd.DataFrame())
    return path


def read(path) -> ad.AnnData:
    assert find(str(path), "SC") == (path, h5mu)
    return source(str(path), "SC").read()


def test_rna_and_what_is_known_of_its_cells(tmp_path, caplog):
    caplog.set_level("INFO")
    adata = read(write(tmp_path / "in.h5mu", "prot", "rna"))
    assert np.array_equal(adata.X.toarray(), simulate(30, 19).X.toarray())
    assert list(adata.obs["donor"]) == [f"d{i}" for i in range(1, 31)]  # the first of 31 is another cell
    assert set(adata.obs["kind"]) == {"kind of rna"} and set(adata.obs["prot:kind"]) == {"kind of prot"}
    assert set(adata.obs["cell_type1"]) == {"type 0", "type 1", "type 2"}
    assert "The modality rna is read, of prot, rna." in caplog.text


@pytest.mark.parametrize(
    ("names", "order", "taken"),
    [(("atac", "GEX"), True, 19), (("prot", "atac"), True, 20), (("prot", "atac"), False, 19)],
)
def test_which_modality(names, order, taken, tmp_path):
    assert read(write(tmp_path / "in.h5mu", *names, order=order)).n_vars == taken


def test_it_is_told_by_its_content(tmp_path):
    assert read(write(tmp_path / "in.h5ad", "rna")).n_vars == 20


def test_damaged_files(tmp_path):
    with pytest.raises(UserError, match="cannot be read as h5mu .it holds no modality"):
        read(write(tmp_path / "none.h5mu"))
    path = write(tmp_path / "in.h5mu", "rna")
    with h5py.File(path, "r+") as file:
        file["mod/rna/X/indices"][3] = 2_000_000_000
    with pytest.raises(UserError, match="is damaged"):
        read(path)
    with h5py.File(path, "r+") as file:
        del file["mod/rna"]
        file["mod/rna"] = 1
    with pytest.raises(UserError, match="cannot be read as h5mu .mod/rna is no AnnData"):
        read(path)
