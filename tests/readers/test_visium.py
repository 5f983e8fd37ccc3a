"""Visium folders of every make: found, read, and every kind of bad ones."""

from __future__ import annotations

import gzip
import json
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.io
from conftest import position_table, write_visium

from scrcl.messages import UserError
from scrcl.readers import source
from scrcl.readers.find import dataset_name, find
from scrcl.readers.simulated import layered_tissue


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=60, n_genes=20)


@pytest.fixture
def folder(tissue, tmp_path):
    return write_visium(tissue, tmp_path / "sample")


def read(folder) -> ad.AnnData:
    return source(str(folder), "ST").read()


def assert_same(adata: ad.AnnData, tissue: ad.AnnData) -> None:
    assert list(adata.obs_names) == list(tissue.obs_names)
    assert np.array_equal(adata.X.toarray(), tissue.X.toarray())
    assert np.array_equal(adata.obsm["spatial"], np.rint(tissue.obsm["spatial"]))
    assert list(adata.obs["array_col"]) == list(tissue.obs["array_col"])


def test_space_ranger_2_with_squidpys_keys(folder, tissue):
    adata = read(folder)
    assert_same(adata, tissue)
    library = adata.uns["spatial"]["sample"]
    assert {name: image.shape for name, image in library["images"].items()} == {
        "hires": (120, 120, 4),
        "lowres": (60, 60, 4),
    }
    assert library["scalefactors"]["tissue_lowres_scalef"] == 0.05
    assert set(adata.obs) == {"in_tissue", "array_row", "array_col"} and "gene_ids" in adata.var


@pytest.mark.parametrize("name", ["tissue_positions_list.csv", "tissue_positions_list.txt"])
def test_space_ranger_1_positions_without_header(folder, tissue, name):
    (folder / "spatial" / "tissue_positions.csv").unlink()
    position_table(tissue).to_csv(folder / "spatial" / name, index=False, header=False)
    assert_same(read(folder), tissue)


def test_a_list_with_a_header_is_told_by_its_first_cell(folder, tissue):
    (folder / "spatial" / "tissue_positions.csv").rename(folder / "spatial" / "tissue_positions_list.csv")
    assert_same(read(folder), tissue)


def test_visium_hd_bins_inside_outs(folder, tissue, tmp_path):
    for bins in ("square_016um", "square_008um"):
        inner = tmp_path / "hd" / "outs" / "binned_outputs" / bins
        shutil.copytree(folder, inner)
        (inner / "spatial" / "tissue_positions.csv").unlink()
        position_table(tissue).to_parquet(inner / "spatial" / "tissue_positions.parquet", index=False)
    assert find(str(tmp_path / "hd"), "ST").path.name == "square_008um"
    assert_same(read(tmp_path / "hd"), tissue)
    assert find(str(inner.parent / "square_016um"), "ST").path.name == "square_016um"
    assert dataset_name(str(inner)) == "hd"


def test_the_images_of_visium_hd_are_no_sample(folder, tissue, tmp_path):
    """Space Ranger 3 puts outs/spatial with images alone beside outs/binned_outputs."""
    shutil.copytree(folder, tmp_path / "hd" / "outs" / "binned_outputs" / "square_008um")
    (tmp_path / "hd" / "outs" / "spatial").mkdir()
    assert_same(read(tmp_path / "hd"), tissue)
    assert_same(read(tmp_path / "hd" / "outs"), tissue)


def test_matrix_as_a_folder(folder, tissue):
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    matrix = folder / "filtered_feature_bc_matrix"
    matrix.mkdir()
    with gzip.open(matrix / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, tissue.X.T.astype(int))
    (matrix / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(tissue.obs_names).encode()))
    features = "\n".join(f"ENSG{name}\t{name}\tGene Expression" for name in tissue.var_names)
    (matrix / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
    assert_same(read(folder), tissue)


def test_a_matrix_with_the_samples_name_before_it(folder, tissue):
    path = folder / "filtered_feature_bc_matrix.h5"
    path.rename(path.with_name("V1_Mouse_filtered_feature_bc_matrix.h5"))
    assert_same(read(folder), tissue)


@pytest.mark.parametrize("missing", [["hires"], ["lowres"], ["hires", "lowres"]])
def test_without_images_the_coordinates_are_read_all_the_same(folder, tissue, missing):
    for name in missing:
        (folder / "spatial" / f"tissue_{name}_image.png").unlink()
    adata = read(folder)
    assert_same(adata, tissue)
    assert set(adata.uns["spatial"]["sample"]["images"]) == {"hires", "lowres"} - set(missing)


def test_damaged_image_and_scale_factors_are_reported_and_left_out(folder, tissue, caplog):
    (folder / "spatial" / "tissue_hires_image.png").write_bytes(b"\x89PNG no more")
    (folder / "spatial" / "scalefactors_json.json").write_text("{")
    adata = read(folder)
    assert_same(adata, tissue)
    assert set(adata.uns["spatial"]["sample"]["images"]) == {"lowres"}
    assert "tissue_hires_image.png cannot be read" in caplog.text and "scalefactors_json.json cannot" in caplog.text


def test_spots_off_the_tissue_or_without_a_position_are_left_out(folder, tissue):
    path = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path)
    table.loc[table["barcode"] == "spot-00003", "in_tissue"] = 0
    table[table["barcode"] != "spot-00007"].to_csv(path, index=False)
    assert set(tissue.obs_names) - set(read(folder).obs_names) == {"spot-00003", "spot-00007"}


def two_samples(folder) -> None:
    path = folder / "filtered_feature_bc_matrix.h5"
    for name in "AB":
        shutil.copy(path, folder / f"{name}_filtered_feature_bc_matrix.h5")
    path.unlink()


def nothing_in_tissue(folder) -> None:
    path = folder / "spatial" / "tissue_positions.csv"
    pd.read_csv(path).assign(in_tissue=0).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), "neither filtered_feature_bc_matrix.h5 nor"),
        (lambda f: (f / "filtered_feature_bc_matrix.h5").write_text("?"), "cannot be read as a 10x matrix"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").unlink(), "no coordinates"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text("a,b\n1,2\n"), "not a table of positions"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text(""), "not a table of positions"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text("x,1,0,0,5,5\n"), "None of the 60 barcodes"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text("x,1,0,0,5,5\n" * 2), "more than once"),
        (lambda f: (f / "metadata.csv").write_text(""), "cannot be read as a table"),
        (lambda f: (f / "metadata.csv").write_text("barcode,label\nspot-1,a,b,c\n"), "more fields than its header"),
        (
            lambda f: (f / "metadata.csv").write_text("spot-00001,L1\nspot-00002,L2\n"),
            "has no header",
        ),
        (lambda f: two_samples(f), "matrices of several samples"),
        (lambda f: nothing_in_tissue(f), "No spot of the matrix"),
    ],
)
def test_folders_that_cannot_be_used(folder, damage, says):
    damage(folder)
    with pytest.raises(UserError, match=says):
        read(folder)


def test_scale_factors_are_optional(folder, tissue, caplog):
    caplog.set_level("INFO")
    (folder / "spatial" / "scalefactors_json.json").unlink()
    assert_same(read(folder), tissue)
    assert json.dumps(read(folder).uns["spatial"]["sample"]["scalefactors"]) == "{}"
