"""h5ad files: read or opened in place, how large they are, and every kind of damage."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
from conftest import simulate
from scipy import sparse

from scrcl.contents.blocks import is_lazy
from scrcl.contents.values import find_expression
from scrcl.messages import UserError
from scrcl.readers import h5ad

COUNTS = simulate(60, 300).X.toarray()
LOGNORM = np.log1p(COUNTS / COUNTS.sum(1, keepdims=True) * 1e4)


def test_damaged_files(tmp_path):
    good, bad = tmp_path / "good.h5ad", tmp_path / "bad.h5ad"
    simulate().write_h5ad(good)
    content = good.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cut off"):
        h5ad.read(bad)
    bad.write_text("no HDF5")
    with pytest.raises(UserError, match="not an h5ad file"):
        h5ad.read(bad)
    with h5py.File(bad, "w") as file:
        file["something"] = [1]
    with pytest.raises(UserError, match="h5ad"):
        find_expression(h5ad.read(bad))


def test_values_stay_on_disk(tmp_path):
    adata = ad.AnnData(sparse.csr_matrix(LOGNORM), layers={"counts": COUNTS}, uns={"of": "no use"})
    adata.raw = adata.copy()
    adata.write_h5ad(tmp_path / "in.h5ad")
    opened = h5ad.open_in_place(tmp_path / "in.h5ad")
    assert isinstance(opened.layers["counts"], h5py.Dataset)
    assert not any(isinstance(values, np.ndarray) or sparse.issparse(values) for values in (opened.X, opened.raw.X))
    assert np.array_equal(opened[3:5].X.toarray(), adata.X[3:5].toarray())
    assert not opened.uns and not is_lazy(adata) and not is_lazy(adata[:5])


def test_files_that_are_no_h5ad(tmp_path):
    path = tmp_path / "bad.h5ad"
    simulate().write_h5ad(path)
    path.write_bytes(path.read_bytes()[:20_000])
    for says in ("is cut off", "is not an h5ad file", "is no AnnData: it holds X, where obs and var are needed"):
        with pytest.raises(UserError, match=says) as got:
            h5ad.open_in_place(path)
        with pytest.raises(UserError) as expected:
            h5ad.read(path)
        assert says != "is not an h5ad file" or str(got.value) == str(expected.value)
        assert h5ad.values_size(path) == 0
        if says == "is cut off":
            path.write_text("no HDF5")
        else:
            with h5py.File(path, "w") as file:
                file["X"] = "odd"
    assert h5ad.values_size(tmp_path / "missing.h5ad") == 0


def test_size_of_values(tmp_path):
    matrix = sparse.csr_matrix(COUNTS)
    adata = ad.AnnData(COUNTS, layers={"counts": matrix, "other": matrix})
    adata.raw = ad.AnnData(matrix.tocsc(), var=adata.var)
    adata.write_h5ad(tmp_path / "in.h5ad")
    expected = 4 * COUNTS.size + 2 * 8 * matrix.nnz + 4 * (61 + 301)
    assert h5ad.values_size(tmp_path / "in.h5ad") == expected
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["layers/counts/data"], file["X"], file["raw"]
        file["layers/counts/data"], file["X"], file["raw"] = 1, h5py.SoftLink("/nowhere"), "odd"
    assert h5ad.values_size(tmp_path / "in.h5ad") == 0


def test_large_values_stay_on_disk_where_they_may(tmp_path, monkeypatch, caplog):
    """By a tenth of the memory that training may take, or 2 GiB; where nothing is said, all is read."""
    caplog.set_level("INFO")
    path = tmp_path / "in.h5ad"
    ad.AnnData(sparse.csr_matrix(COUNTS)).write_h5ad(path)
    size = h5ad.values_size(path) / 2**30
    assert not is_lazy(h5ad.read(path)) and not is_lazy(h5ad.read(path, max_memory=0))
    assert not is_lazy(h5ad.read(path, max_memory=11 * size)) and not caplog.text
    assert is_lazy(h5ad.read(path, max_memory=9 * size)) and "its values stay on the disk" in caplog.text
    monkeypatch.setattr(h5ad, "IN_MEMORY_UP_TO", 0.9 * size)
    assert is_lazy(h5ad.read(path, max_memory=0)) and not is_lazy(h5ad.read(path))


def test_a_file_or_the_only_one_in_a_folder(tmp_path):
    path = tmp_path / "one.h5ad"
    path.touch()
    assert h5ad.locate(path) == h5ad.locate(tmp_path) == path and h5ad.files(path) == [path]
    (tmp_path / "two.h5ad").touch()
    assert h5ad.locate(tmp_path) is None and h5ad.locate(tmp_path / "three.h5ad") is None


def test_it_is_told_by_its_content(tmp_path):
    """An AnnData has obs and var at its top; what is called h5ad and cannot be opened is for `read` to report."""
    simulate().write_h5ad(tmp_path / "in.h5")
    assert h5ad.locate(tmp_path / "in.h5") == tmp_path / "in.h5"
    for name, content in (("notes.txt", "no HDF5"), ("empty.h5ad", ""), ("notes.h5ad", "no HDF5")):
        (tmp_path / name).write_text(content)
        assert (h5ad.locate(tmp_path / name) is not None) == name.endswith("h5ad")
    for i, names in enumerate((["matrix"], ["mod", "obs", "var"], ["matrix", "row_attrs", "col_attrs"])):
        with h5py.File(tmp_path / f"{i}.h5ad", "w") as file:
            for name in names:
                file.create_group(name)
        assert h5ad.locate(tmp_path / f"{i}.h5ad") is None
    (tmp_path / "cut.h5").write_bytes((tmp_path / "in.h5").read_bytes()[:20_000])
    assert h5ad.locate(tmp_path / "cut.h5") == tmp_path / "cut.h5"
