"""AnnData in zarr: folders of version 2 and 3, zip files, and stores of something else."""

from __future__ import annotations

import json
import shutil

import anndata as ad
import numpy as np
import pytest
import zarr
from conftest import simulate

from scrcl.messages import UserError
from scrcl.readers import anndata_zarr, source
from scrcl.readers.find import find
from scrcl.runtime import sha256


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    path = tmp_path / "in.zarr"
    with ad.settings.override(zarr_write_format=request.param):
        simulate(30, 20).write_zarr(path)
    assert (path / ("zarr.json" if request.param == 3 else ".zattrs")).exists()
    return path


def read(path) -> ad.AnnData:
    assert find(str(path), "SC") == (path, anndata_zarr)
    return source(str(path), "SC").read()


def test_a_folder(store):
    adata = read(store)
    assert np.array_equal(adata.X.toarray(), simulate(30, 20).X.toarray())
    assert list(adata.obs["cell_type1"]) == list(simulate(30, 20).obs["cell_type1"])
    assert source(str(store), "SC").files == source(str(store), "ST").files == (store,) and len(sha256(store)) == 64
    assert source(str(store), "SC").name == "in"


def test_a_zip_file(store):
    packed = shutil.make_archive(str(store), "zip", store)
    assert np.array_equal(read(store.parent / "in.zarr.zip").X.toarray(), simulate(30, 20).X.toarray())
    assert packed.endswith("in.zarr.zip")


def test_an_old_store_that_does_not_say_what_it_is(store):
    for name in (".zattrs", "zarr.json"):
        if (store / name).exists():
            content = json.loads((store / name).read_text())
            attributes = content.get("attributes", content)
            del attributes["encoding-type"]
            (store / name).write_text(json.dumps(content))
    assert anndata_zarr.locate(store) == store
    (store / "images").mkdir()
    assert anndata_zarr.locate(store) is None


def test_stores_of_something_else(tmp_path):
    """SpatialData keeps its AnnData in tables/."""
    root = zarr.open_group(tmp_path / "spatial.zarr", mode="w")
    root.create_group("images")
    ad.io.write_elem(root.create_group("tables"), "table", simulate(5, 5))
    assert anndata_zarr.locate(tmp_path / "spatial.zarr") is None
    assert anndata_zarr.locate(tmp_path / "spatial.zarr" / "tables" / "table") is not None
    (tmp_path / "notes.zip").write_bytes(b"PK\x03\x04 no more")
    assert anndata_zarr.locate(tmp_path / "notes.zip") is None and anndata_zarr.locate(tmp_path) is None


def test_a_damaged_store(store):
    shutil.rmtree(store / "var")
    with pytest.raises(
        UserError, match="in.zarr cannot be read as AnnData in zarr .it has no var.; copy or save it again as a whole"
    ):
        read(store)
