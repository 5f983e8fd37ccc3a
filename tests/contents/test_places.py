"""Where spots are: positions in obsm or obs, and the sections that they belong to."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl.contents.places import coordinates, placed, section_members, sections
from scrcl.keys import POSITION_COLUMNS
from scrcl.messages import UserError
from scrcl.readers.simulated import layered_tissue


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=60, n_genes=20)


@pytest.mark.parametrize("names", POSITION_COLUMNS)
def test_coordinates_from_columns(tissue, names):
    obs = pd.DataFrame(tissue.obsm["spatial"], index=tissue.obs_names, columns=names)
    assert np.array_equal(coordinates(ad.AnnData(tissue.X, obs=obs)), tissue.obsm["spatial"])


def test_columns_and_rows_of_visiums_grid_are_as_far_apart_as_its_spots(tissue):
    """Seven spots, one in the middle of six: all six are as far from it as spots are from each other."""
    grid = pd.DataFrame({"array_row": [1, 1, 1, 0, 0, 2, 2], "array_col": [3, 1, 5, 2, 4, 2, 4]}, dtype=int)
    places = coordinates(ad.AnnData(obs=grid.set_axis(list("abcdefg"))))
    assert np.allclose(np.linalg.norm(places[1:] - places[0], axis=1), 1)
    square = pd.DataFrame({"array_row": [0, 0, 1], "array_col": [0, 1, 0]}, index=list("abc"))  # Visium HD
    assert np.array_equal(coordinates(ad.AnnData(obs=square)), square[["array_col", "array_row"]])


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
        placed(bare)


def test_places_on_the_slide_go_before_those_in_a_field_of_view(tissue):
    """As readers of CosMx leave them; in some the two are the other way round."""
    slide, within = tissue.obsm["spatial"], tissue.obsm["spatial"] % 500
    for first, second in ((within, slide), (slide, within)):
        tissue.obsm["spatial"], tissue.obsm["spatial_fov"] = first, second
        assert np.array_equal(coordinates(tissue), slide)


def test_missing_places_in_pandas_own_integers(tissue):
    places = pd.DataFrame({"x": range(60), "y": range(60)}, index=tissue.obs_names).astype("Int64")
    places.iloc[3, 0] = pd.NA
    assert np.isnan(coordinates(ad.AnnData(tissue.X, obs=places))).sum() == 1


def test_spots_off_the_tissue_are_left_out_of_any_file(tissue, caplog):
    caplog.set_level("INFO")
    for outside, inside in ((0, 1), ("0", "1"), (False, True), (0.0, 1.0)):
        tissue.obs["in_tissue"] = [outside] * 7 + [inside] * 53
        assert list(placed(tissue).obs_names) == list(tissue.obs_names[7:])
    assert "7 of 60 spots are outside the tissue: left out, without a label." in caplog.text
    tissue.obs["in_tissue"] = pd.Categorical([0] * 60)
    with pytest.raises(UserError, match="Only 0 of 60 spots have a position on the tissue"):
        placed(tissue)


@pytest.mark.parametrize("third", [np.zeros(60), np.full(60, np.nan), np.arange(60.0), np.arange(60.0)[::-1] * 3])
def test_a_third_column_that_is_no_coordinate(tissue, third, caplog):
    caplog.set_level("INFO")
    flat = tissue.obsm["spatial"].copy()
    tissue.obsm["spatial"] = np.column_stack([flat, third])
    assert np.array_equal(coordinates(tissue), flat)
    assert "The third column of spatial is no coordinate: left out." in caplog.text


def test_a_third_coordinate_is_kept_and_said(tissue, caplog):
    caplog.set_level("INFO")
    tissue.obsm["spatial"] = np.column_stack([tissue.obsm["spatial"], np.arange(60) % 3])
    assert coordinates(tissue).shape == (60, 3) and "have three coordinates, from spatial" in caplog.text


def test_a_table_of_positions_with_other_columns(tissue, caplog):
    caplog.set_level("INFO")
    x, y = tissue.obsm["spatial"].T
    table = pd.DataFrame({"fov": "a", "area": 3.0, "Y": y, "X": x}, index=tissue.obs_names)
    tissue.obsm["spatial"] = table
    assert np.array_equal(coordinates(tissue), np.column_stack([x, y]))
    assert "The columns fov, area of the positions are no coordinates: left out." in caplog.text
    tissue.obsm["spatial"] = table.drop(columns="area").rename(columns={"X": "right", "Y": "up"})
    assert np.array_equal(coordinates(tissue), np.column_stack([y, x]))
    tissue.obsm["spatial"] = table[["fov"]].assign(also="b")
    with pytest.raises(UserError, match="The coordinates are not numbers .*; correct adata.obsm..spatial"):
        coordinates(tissue)


def test_positions_in_half_precision(tissue):
    tissue.obsm["spatial"] = np.rint(tissue.obsm["spatial"]).clip(max=2000).astype(np.float16)
    assert coordinates(tissue).dtype == np.float64


def test_repeated_spots_are_refused_before_anything_else(tissue):
    tissue.obs_names = ["twice", "twice", *tissue.obs_names[2:]]
    tissue.obsm["spatial"][1] = np.nan
    with pytest.raises(UserError, match="spot barcode 'twice' occurs more than once"):
        placed(tissue)


def test_sections(tissue):
    assert sections(tissue.obs, "auto") is None
    tissue.obs["library_id"] = ["a"] * 30 + ["b"] * 30
    assert sections(tissue.obs, "auto").nunique() == 2 and sections(tissue.obs, "none") is None
    tissue.obs["batch"] = "all"
    assert sections(tissue.obs, "batch") is None
    with pytest.raises(UserError, match="no obs column 'typo'"):
        sections(tissue.obs, "typo")
    tissue.obs["batch"] = [None] + ["a"] * 59
    with pytest.raises(UserError, match="1 spots is missing"):
        sections(tissue.obs, "batch")


def test_spots_of_every_section():
    found = section_members(np.array(["b", "a", "b"]), 3)
    assert [list(member) for member in found] == [[1], [0, 2]]
    assert [list(member) for member in section_members(None, 3)] == [[0, 1, 2]]
