"""SpatialData stores, as spatialdata itself writes them; without it, a sentence that says how to install it."""

from __future__ import annotations

import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scrcl.messages import UserError
from scrcl.readers import sdata_zarr, source
from scrcl.readers.find import find


@pytest.fixture
def spatialdata():
    return pytest.importorskip("spatialdata")


def table_of(spatialdata, regions, instances, spatial=None) -> ad.AnnData:
    obs = pd.DataFrame(
        {"region": pd.Categorical(regions), "cell": instances}, index=[f"c{i}" for i in range(len(regions))]
    )
    counts = np.arange(2 * len(obs)).reshape(-1, 2)
    adata = ad.AnnData(sparse.csc_matrix(counts), obs=obs, var=pd.DataFrame(index=["A", "B"]))
    if spatial is not None:
        adata.obsm["spatial"] = spatial
    names = list(dict.fromkeys(regions))
    return spatialdata.models.TableModel.parse(adata, region=names, region_key="region", instance_key="cell")


def circles(spatialdata, places, index, scale: float = 1):
    transform = spatialdata.transformations.Scale([scale, scale], axes=("x", "y"))
    return spatialdata.models.ShapesModel.parse(
        np.array(places, dtype=float), geometry=0, radius=1, index=index, transformations={"global": transform}
    )


def write(spatialdata, path, tables, **elements):
    spatialdata.SpatialData(tables=tables, **elements).write(path)
    return path


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_the_table_with_its_own_positions(spatialdata, tmp_path, task):
    places = np.array([[1, 2], [3, 4], [5, 6]])
    tables = {"table": table_of(spatialdata, ["a"] * 3, [1, 2, 3], places)}
    shapes = {"a": circles(spatialdata, [[9, 9]] * 3, [1, 2, 3])}
    path = write(spatialdata, tmp_path / "store", tables, shapes=shapes)
    found = source(str(path), task)
    adata = found.read()
    assert find(str(path), task) == (path, sdata_zarr)
    assert adata.X.toarray().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert adata.X.format == "csr" and adata.X.dtype == np.float32
    assert adata.obsm["spatial"].tolist() == places.tolist() and "library_id" not in adata.obs
    assert found.files and all("tables" in file.parts for file in found.files)


def test_centres_of_what_the_table_annotates(spatialdata, tmp_path):
    """Circles in another order and in units of half a pixel, and a cell that has none."""
    tables = {"table": table_of(spatialdata, ["a"] * 3, [7, 5, 6])}
    shapes = {
        "a": circles(spatialdata, [[10, 20], [30, 40]], [5, 7], 0.5),
        "other": circles(spatialdata, [[0, 0]], [1]),
    }
    adata = source(str(write(spatialdata, tmp_path / "s.zarr", tables, shapes=shapes)), "ST").read()
    assert np.array_equal(adata.obsm["spatial"], [[15, 20], [5, 10], [np.nan, np.nan]], equal_nan=True)


def test_several_regions_and_labels(spatialdata, tmp_path, caplog):
    """Label 1 covers the pixels (0, 0) and (1, 0), label 2 the last column; the centre of pixel (0, 0) is 0.5, 0.5."""
    image = np.array([[1, 1, 2], [0, 0, 2]])
    tables = {"table": table_of(spatialdata, ["a", "b", "a", "b"], [1, 4, 2, 3])}
    labels = {"a": spatialdata.models.Labels2DModel.parse(image, dims=("y", "x"))}
    shapes = {"b": circles(spatialdata, [[30, 3], [40, 4]], [3, 4])}
    adata = source(str(write(spatialdata, tmp_path / "s.zarr", tables, shapes=shapes, labels=labels)), "ST").read()
    assert adata.obsm["spatial"].tolist() == [[1, 0.5], [40, 4], [2.5, 1], [30, 3]]
    assert list(adata.obs["library_id"]) == ["a", "b", "a", "b"] and adata.obs["library_id"].dtype == "category"


def test_one_of_several_tables(spatialdata, tmp_path, caplog):
    caplog.set_level("INFO")
    places = np.ones((2, 2))
    one, two = (table_of(spatialdata, ["a"] * 2, [1, 2], n * places) for n in (1, 2))
    shapes = {"a": circles(spatialdata, places, [1, 2])}
    path = write(spatialdata, tmp_path / "one.zarr", {"square_016um": one, "square_008um": two}, shapes=shapes)
    assert source(str(path), "ST").read().obsm["spatial"][0, 0] == 2
    assert "one.zarr has the tables square_008um, square_016um: square_008um is read." in caplog.text
    path = write(spatialdata, tmp_path / "two.zarr", {"table": one, "another": two}, shapes=shapes)
    assert source(str(path), "ST").read().obsm["spatial"][0, 0] == 1


def test_elements_that_are_not_as_the_table_says(spatialdata, tmp_path):
    tables = {"table": table_of(spatialdata, ["a"] * 2, [1, 2])}
    shapes = {"a": circles(spatialdata, [[1, 1], [2, 2]], [1, 1])}  # two of the same name
    path = write(spatialdata, tmp_path / "s.zarr", tables, shapes=shapes)
    with pytest.raises(UserError, match="The positions of the cells in .* cannot be told"):
        source(str(path), "ST").read()


def test_without_spatialdata_or_with_a_damaged_store(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    assert sdata_zarr.locate(tmp_path) is None
    (tmp_path / "zarr.json").write_text("{")
    assert sdata_zarr.locate(tmp_path) == tmp_path
    pytest.importorskip("spatialdata")
    with pytest.raises(UserError, match="cannot be read as a SpatialData store"):
        source(str(tmp_path), "ST").read()
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(
        UserError, match=r'SpatialData store, which spatialdata reads: `pip install "scrcl\[spatial\]"`'
    ):
        source(str(tmp_path), "ST").read()
