"""Readers of spatial data: Visium folders of every make, coordinates, sections, and annotation joined by barcode."""

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

import spatial
from simulate import layered_tissue
from utils import UserError


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=60, n_genes=20)


@pytest.fixture
def folder(tissue, tmp_path):
    return write_visium(tissue, tmp_path / "sample")


def read(folder, annotation: str = "auto") -> ad.AnnData:
    return spatial.read(spatial.find(str(folder)), "sample", annotation)


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
    assert spatial.find(str(tmp_path / "hd")).name == "square_008um"
    assert_same(read(tmp_path / "hd"), tissue)
    assert spatial.find(str(inner.parent / "square_016um")).name == "square_016um"
    assert spatial.dataset_name(str(inner)) == "hd"


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
        (lambda f: shutil.rmtree(f / "spatial"), "not a Visium folder: looked for spatial/"),
        (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), "neither filtered_feature_bc_matrix.h5 nor"),
        (lambda f: (f / "filtered_feature_bc_matrix.h5").write_text("?"), "cannot be read as a 10x matrix"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").unlink(), "no coordinates"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text("a,b\n1,2\n"), "not a table of positions"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text(""), "not a table of positions"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text("x,1,0,0,5,5\n"), "None of the 60 barcodes"),
        (lambda f: (f / "spatial" / "tissue_positions.csv").write_text("x,1,0,0,5,5\n" * 2), "more than once"),
        (lambda f: (f / "metadata.csv").write_text(""), "cannot be read as a table"),
        (lambda f: (f / "metadata.csv").write_text("barcode,label\nspot-1,a,b,c\n"), "more fields than its first line"),
        (
            lambda f: (f / "metadata.csv").write_text("spot-00001,L1\nspot-00002,L2\n"),
            "not with the names of its columns",
        ),
        (lambda f: two_samples(f), "matrices of several samples"),
        (lambda f: nothing_in_tissue(f), "No spot of the matrix"),
    ],
)
def test_folders_that_cannot_be_used(folder, damage, says):
    damage(folder)
    with pytest.raises(UserError, match=says):
        read(folder)


def test_names_of_data_sets(folder, tmp_path, tissue):
    place = tmp_path / "stdata"
    shutil.copytree(folder, place / "DLPFC" / "151673")
    (place / "Mouse_Embryo_E9.5").mkdir()
    tissue.write_h5ad(place / "Mouse_Embryo_E9.5" / "E9.5_E1S1.MOSTA.h5ad")
    assert spatial.find("151673", place) == place / "DLPFC" / "151673"
    assert spatial.find("Mouse_Embryo_E9.5", place).name == "E9.5_E1S1.MOSTA.h5ad"
    assert spatial.find("demo", place) is None
    with pytest.raises(UserError, match="fetch.py 151507` fetches it.*holds 151673, Mouse_Embryo_E9.5"):
        spatial.find("151507", place)
    with pytest.raises(UserError, match="Put one of these in place"):
        spatial.find("", place)


# Annotation


def labelled(tissue: ad.AnnData) -> pd.DataFrame:
    """Layers by barcode, in another order than the spots, for some of them, and for one that is not there."""
    table = pd.DataFrame({"barcode": tissue.obs_names, "layer_guess": [f"L{i % 3}" for i in range(tissue.n_obs)]})
    extra = pd.DataFrame({"barcode": ["elsewhere"], "layer_guess": ["L9"]})
    return pd.concat([table[:5:-1], extra], ignore_index=True)


@pytest.mark.parametrize("form", ["tsv", "csv", "row names", "barcode last"])
def test_annotation_is_joined_by_barcode(folder, tissue, form):
    table = labelled(tissue)
    if form == "row names":  # as R writes them: one name less in the header than columns
        table.set_index("barcode").to_csv(folder / "metadata.tsv", sep="\t", index_label=False)
    elif form == "barcode last":
        table[["layer_guess", "barcode"]].to_csv(folder / "metadata.tsv", sep="\t", index=False)
    else:
        table.to_csv(folder / f"metadata.{form}", sep="\t" if form == "tsv" else ",", index=False)
    found = read(folder).obs["layer_guess"]
    assert found.isna().sum() == 6 and found.iloc[:6].isna().all()
    assert list(found.iloc[6:]) == [f"L{i % 3}" for i in range(6, tissue.n_obs)]


def test_annotation_by_path_beside_outs_and_none_at_all(folder, tissue, tmp_path):
    table = tmp_path / "mine.csv.gz"
    labelled(tissue).to_csv(table, index=False)
    assert "layer_guess" in read(folder, str(table)).obs
    shutil.copytree(folder, tmp_path / "run" / "outs")
    labelled(tissue).to_csv(tmp_path / "run" / "metadata.tsv", sep="\t", index=False)
    assert "layer_guess" in read(tmp_path / "run").obs and "layer_guess" in read(tmp_path / "run" / "outs").obs
    assert "layer_guess" not in read(tmp_path / "run", "none").obs


def test_annotation_without_barcodes_goes_by_row_and_says_so(folder, tissue, caplog):
    pd.DataFrame({"layer_guess": ["a", "b"] * 30}).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    assert list(read(folder).obs["layer_guess"]) == ["a", "b"] * 30
    assert "no barcodes" in caplog.text


def test_annotation_of_another_sample_is_refused(folder, tissue):
    table = labelled(tissue).assign(barcode=[f"other-{i}" for i in range(55)])
    table.to_csv(folder / "metadata.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="None of the 55 rows.*60 spots.*'other-0' there, 'spot-00000' here"):
        read(folder)
    table.drop(columns="barcode").to_csv(folder / "metadata.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="None of the 55 rows"):
        read(folder)


def test_annotation_of_several_slides_is_refused(folder, tissue):
    """Slides share their barcodes, so which row is meant would be a guess; the same row twice is none."""
    table = labelled(tissue)
    table.to_csv(folder / "metadata.tsv", sep="\t", index=False)
    once = read(folder).obs["layer_guess"]
    pd.concat([table, table]).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    assert read(folder).obs["layer_guess"].equals(once)
    pd.concat([table, table.assign(layer_guess="L7")]).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="more than once; keep the rows of these data"):
        read(folder)


def test_numbers_are_not_taken_for_barcodes_by_chance(tissue, tmp_path):
    """Names 0, 1, ... are AnnData's own; a column of small numbers has some of them in common."""
    tissue.obs_names = [str(i) for i in range(tissue.n_obs)]
    labels = [f"L{i % 3}" for i in range(tissue.n_obs)]
    pd.DataFrame({"annotation": labels, "size": np.arange(tissue.n_obs) % 9}).to_csv(tmp_path / "t.csv", index=False)
    spatial.join_annotation(tissue, tmp_path / "t.csv")
    assert list(tissue.obs["annotation"]) == labels
    numbered = pd.DataFrame({"cell": range(59, -1, -1), "region": labels})
    numbered.to_csv(tmp_path / "t.csv", index=False)
    spatial.join_annotation(tissue, tmp_path / "t.csv")
    assert list(tissue.obs["region"]) == labels[::-1]


def test_row_numbers_are_no_barcodes(folder, tissue, caplog):
    pd.DataFrame({"layer_guess": ["a", "b"] * 30}).to_csv(folder / "metadata.tsv", sep="\t")
    assert list(read(folder).obs["layer_guess"]) == ["a", "b"] * 30 and "no barcodes" in caplog.text


def test_annotation_keeps_what_obs_has_of_spots_that_it_does_not_name(tissue, tmp_path):
    tissue.obs[["x", "y"]] = tissue.obsm.pop("spatial")
    part = tissue.obs[["x", "y"]][:20].assign(annotation="L1", discard=True)
    part.to_csv(tmp_path / "t.csv", index_label="cell")
    before = spatial.coordinates(tissue)
    spatial.join_annotation(tissue, tmp_path / "t.csv")
    assert np.array_equal(spatial.coordinates(tissue), before)
    assert tissue.obs["annotation"].notna().sum() == 20
    tissue.write_h5ad(tmp_path / "can_be_written.h5ad")


# Coordinates and sections


@pytest.mark.parametrize("names", spatial.COORDINATE_COLUMNS)
def test_coordinates_from_columns(tissue, names):
    obs = pd.DataFrame(tissue.obsm["spatial"], index=tissue.obs_names, columns=names)
    assert np.array_equal(spatial.coordinates(ad.AnnData(tissue.X, obs=obs)), tissue.obsm["spatial"])


def test_columns_and_rows_of_visiums_grid_are_as_far_apart_as_its_spots(tissue):
    """Seven spots, one in the middle of six: all six are as far from it as spots are from each other."""
    grid = pd.DataFrame({"array_row": [1, 1, 1, 0, 0, 2, 2], "array_col": [3, 1, 5, 2, 4, 2, 4]}, dtype=int)
    places = spatial.coordinates(ad.AnnData(obs=grid.set_axis(list("abcdefg"))))
    assert np.allclose(np.linalg.norm(places[1:] - places[0], axis=1), 1)
    square = pd.DataFrame({"array_row": [0, 0, 1], "array_col": [0, 1, 0]}, index=list("abc"))  # Visium HD
    assert np.array_equal(spatial.coordinates(ad.AnnData(obs=square)), square[["array_col", "array_row"]])


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (None, "no coordinates"),
        (np.zeros((60, 1)), "two or three columns"),
        (np.full((60, 2), "here", dtype=object), "not numbers"),
        (np.full((60, 2), np.nan), "Only 0 of 60 spots have a position"),
    ],
)
def test_coordinates_that_cannot_be_used(tissue, points, says):
    bare = ad.AnnData(tissue.X, obsm={} if points is None else {"spatial": points})
    with pytest.raises(UserError, match=says):
        spatial.placed(bare)


def test_places_on_the_slide_go_before_those_in_a_field_of_view(tissue):
    """As readers of CosMx leave them; in some the two are the other way round."""
    slide, within = tissue.obsm["spatial"], tissue.obsm["spatial"] % 500
    for first, second in ((within, slide), (slide, within)):
        tissue.obsm["spatial"], tissue.obsm["spatial_fov"] = first, second
        assert np.array_equal(spatial.coordinates(tissue), slide)


def test_missing_places_in_pandas_own_integers(tissue):
    places = pd.DataFrame({"x": range(60), "y": range(60)}, index=tissue.obs_names).astype("Int64")
    places.iloc[3, 0] = pd.NA
    assert np.isnan(spatial.coordinates(ad.AnnData(tissue.X, obs=places))).sum() == 1


def test_repeated_spots_are_refused_before_anything_else(tissue):
    tissue.obs_names = ["twice", "twice", *tissue.obs_names[2:]]
    tissue.obsm["spatial"][1] = np.nan
    with pytest.raises(UserError, match="spot barcode 'twice' stands more than once"):
        spatial.placed(tissue)


def test_sections(tissue):
    assert spatial.sections(tissue.obs, "auto") is None
    tissue.obs["library_id"] = ["a"] * 30 + ["b"] * 30
    assert spatial.sections(tissue.obs, "auto").nunique() == 2 and spatial.sections(tissue.obs, "none") is None
    tissue.obs["batch"] = "all"
    assert spatial.sections(tissue.obs, "batch") is None
    with pytest.raises(UserError, match="no obs column 'typo'"):
        spatial.sections(tissue.obs, "typo")
    tissue.obs["batch"] = [None] + ["a"] * 59
    with pytest.raises(UserError, match="1 spots is missing"):
        spatial.sections(tissue.obs, "batch")


def test_scale_factors_are_optional(folder, tissue, caplog):
    caplog.set_level("INFO")
    (folder / "spatial" / "scalefactors_json.json").unlink()
    assert_same(read(folder), tissue)
    assert json.dumps(read(folder).uns["spatial"]["sample"]["scalefactors"]) == "{}"
