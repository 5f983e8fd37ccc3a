"""Several sections in one AnnData: told apart by a column for which there is a reason, or refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulate

from scrcl.contents.several import section_key
from scrcl.messages import UserError

SIDE = 8


def grid(shift: float = 0.0) -> np.ndarray:
    """Positions of a square of spots."""
    return np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * 100.0 + shift


def two(shift: float = 0.0, **columns: list[str]) -> ad.AnnData:
    """Two sections of 64 spots, the second shifted; each column has one value per section."""
    adata = simulate(2 * SIDE**2, 20)
    del adata.obs["cell_type1"]
    adata.obsm["spatial"] = np.concatenate([grid(), grid(shift)])
    for name, values in columns.items():
        adata.obs[name] = np.repeat(values, SIDE**2)
    return adata


@pytest.mark.parametrize("name", ["library_id", "sample", "Sample_ID", "batch", "slide", "Section", "orig.ident"])
def test_spots_at_the_same_place_are_told_apart_by_a_usual_column(name):
    assert section_key(two(**{name: ["a", "b"]}), "auto") == name
    assert section_key(two(**{name: ["a", "b"]}), "none") == "none"


def test_a_usual_column_that_does_not_tell_them_apart_is_passed_over(caplog):
    caplog.set_level("INFO")
    adata = two(slide=["one", "one"], batch=["a", "b"])
    adata.obs["sample"] = ["odd", "even"] * SIDE**2  # the two spots of a place are in the same sample
    assert section_key(adata, "auto") == "batch"
    assert "obs['batch'] tells 2 sections apart (spots of different sections lie at the same place)" in caplog.text


def test_without_a_usual_column_those_that_would_do_are_named():
    adata = two(animal=["m1", "m2"], tissue=["brain", "brain"])
    with pytest.raises(UserError, match=r"100% of the spots lie where another one lies.*--section-key \(animal\)"):
        section_key(adata, "auto")
    assert section_key(adata, "animal") == "animal" and section_key(adata, "none") == "none"
    with pytest.raises(UserError, match="add a column to obs that does"):
        section_key(two(), "auto")


def test_rows_and_columns_of_the_grid_give_away_what_pixels_do_not():
    adata = two(13.7, mouse=["m1", "m2"])
    assert section_key(adata, "auto") == "none"
    adata.obs["array_row"], adata.obs["array_col"] = (np.tile(grid(), (2, 1)) // 100).T
    with pytest.raises(UserError, match=r"--section-key \(mouse\)"):
        section_key(adata, "auto")


def test_sections_that_lie_among_each_other_without_a_common_place(caplog):
    caplog.set_level("INFO")
    assert section_key(two(50, sample=["a", "b"]), "auto") == "sample"
    assert "their spots lie among each other" in caplog.text
    assert section_key(two(10_000, sample=["a", "b"]), "auto") == "none"


def test_several_images_need_a_column_with_as_many_sections():
    images = {"s1": {"images": {}}, "s2": {"images": {}}}
    adata = two(10_000, batch=["s1", "s2"], animal=["x", "y"])
    adata.uns["spatial"] = images
    assert section_key(adata, "auto") == "batch"
    del adata.obs["batch"]
    with pytest.raises(UserError, match=r"holds the images of 2 sections \(s1, s2\).*animal"):
        section_key(adata, "auto")


def test_a_few_spots_at_the_same_place_are_an_accident():
    adata = two(10_000)
    adata.obsm["spatial"][:5] = adata.obsm["spatial"][5]
    assert section_key(adata, "auto") == "none"


def test_a_column_that_is_not_there_or_has_gaps():
    with pytest.raises(UserError, match="no obs column 'typo' to tell sections apart; the columns are stage"):
        section_key(two(stage=["a", "b"]), "typo")
    adata = two(library_id=["a", "b"])
    adata.obs["library_id"] = adata.obs["library_id"].where(np.arange(adata.n_obs) > 2)
    with pytest.raises(UserError, match="section of 3 spots is missing in obs..library_id"):
        section_key(adata, "auto")


def test_numbers_and_categories_as_sections():
    adata = two(slice_id=[1, 2])
    assert section_key(adata, "auto") == "slice_id"
    adata.obs["slice_id"] = pd.Categorical(adata.obs["slice_id"])
    assert section_key(adata, "auto") == "slice_id"
