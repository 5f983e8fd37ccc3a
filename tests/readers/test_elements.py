"""AnnData read element by element: what cannot be read is left out with its cause, or refused with it."""

from __future__ import annotations

import shutil
import sys

import h5py
import numpy as np
import pytest
from conftest import simulate

from scrcl.contents.blocks import Blocks
from scrcl.disk import hdf5
from scrcl.messages import UserError
from scrcl.readers import h5ad

ZSTD = 32015


@pytest.fixture
def path(tmp_path):
    adata = simulate()
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["X_pca"] = np.ones((adata.n_obs, 2))
    adata.obs["donor"] = "d1"
    adata.uns["note"] = "here"
    adata.raw = adata.copy()
    adata.write_h5ad(tmp_path / "x.h5ad")
    return tmp_path / "x.h5ad"


def spoil(path, name: str, encoding: str = "of-the-future") -> None:
    """Give an element an encoding that no version of anndata knows."""
    with h5py.File(path, "r+") as file:
        file[name].attrs["encoding-type"] = encoding


def pack_as(path, name: str, number: int = ZSTD) -> None:
    """Write an array anew, so that it claims to be compressed by a filter that this h5py does not have."""
    with h5py.File(path, "r+") as file:
        values, attributes = file[name][()], dict(file[name].attrs)
        del file[name]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk(values.shape)
        how.set_filter(number, h5py.h5z.FLAG_OPTIONAL)  # optional: written without it, but needed to read
        kind = h5py.h5t.py_create(values.dtype, logical=True)
        data = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(values.shape), how)
        data.write_direct_chunk((0,) * values.ndim, values.tobytes(), 0)
        file[name].attrs.update(attributes)


@pytest.mark.parametrize("name", ["obsm/X_pca", "uns/note", "layers/counts", "obs/donor"])
def test_what_is_not_needed_is_left_out_with_its_cause(path, name, caplog):
    spoil(path, name)
    slot, key = name.split("/")
    adata = h5ad.read(path)
    assert key not in getattr(adata, slot) and adata.shape == (120, 80) and adata.raw.n_vars == 80
    assert list(adata.obs["cell_type1"][:2]) == ["type 0", "type 1"]
    (record,) = caplog.records
    assert record.message.startswith(f"x.h5ad: left out {slot}['{key}'], which is written in a way that this anndata")


def test_values_elsewhere_do_in_place_of_an_x_that_cannot_be_read(path, caplog):
    spoil(path, "X")
    assert np.array_equal(h5ad.read(path).layers["counts"].toarray(), simulate().X.toarray())
    assert "left out X, which" in caplog.text


def test_without_values_or_names_the_cause_is_said(path):
    for name in ("X", "layers/counts", "raw/X"):
        spoil(path, name)
    with pytest.raises(UserError, match="x.h5ad is written in a way that this anndata does not know"):
        h5ad.read(path)
    with h5py.File(path, "r+") as file:
        del file["obs/_index"]
    with pytest.raises(UserError, match="x.h5ad is damaged .*; download or save it again"):
        h5ad.read(path)


@pytest.fixture
def without_plugin(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    if h5py.h5z.filter_avail(ZSTD):
        pytest.skip("hdf5plugin is loaded already")


@pytest.mark.parametrize("read", [h5ad.read, h5ad.open_in_place])
def test_a_missing_filter_is_named_with_its_package(path, read, without_plugin, caplog):
    pack_as(path, "layers/counts/data")
    with h5py.File(path) as file:
        assert hdf5.missing_filters(file) == ["zstd"] and not hdf5.missing_filters(file["X"])
    assert "counts" not in read(path).layers
    said = "which is compressed with zstd, which needs a package: `pip install hdf5plugin`, and run again."
    assert f"left out layers['counts'], {said}" in caplog.text
    other = shutil.copy(path, path.with_name("y.h5ad"))
    for name in ("X/data", "raw/X/data"):
        pack_as(other, name)
    with pytest.raises(UserError, match="y.h5ad is compressed with zstd, which needs a package: `pip install hdf5pl"):
        read(other)


def test_the_package_is_named_that_an_element_needs():
    error = ImportError("cannot import name 'awkward' from 'anndata.compat'", name="anndata.compat")
    assert h5ad.in_words(error) == "needs a package: `pip install awkward`, and run again"
    assert "`pip install zfpy`" in h5ad.in_words(ModuleNotFoundError("No module named 'zfpy'", name="zfpy"))


@pytest.mark.parametrize("on_disk", [False, True])
def test_sparse_matrices_of_half_precision(path, on_disk):
    with h5py.File(path, "r+") as file:
        values, attributes = file["X/data"][()].astype(np.float16), dict(file["X/data"].attrs)
        del file["X/data"]
        file["X/data"] = values
        file["X/data"].attrs.update(attributes)
    adata = h5ad.open_in_place(path) if on_disk else h5ad.read(path)
    read = Blocks(adata.X, "X").array.compute() if on_disk else adata.X
    assert read.dtype == np.float32 and np.array_equal(read.toarray(), simulate().X.toarray())
