"""loom files, as the documentation of the format describes them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy import sparse

from scrcl.messages import UserError
from scrcl.readers import loom, source
from scrcl.readers.find import find

VALUES = np.array([[5, 0, 1], [0, 7, 2]])  # two cells, three genes


def write(path, rows=None, columns=None, layers=()):
    rows = {"Gene": [b"A", b"B", b"A"], "Accession": [b"E1", b"E2", b"E3"]} if rows is None else rows
    columns = {"CellID": [b"c1", b"c2"], "age": [3.5, 4]} if columns is None else columns
    with h5py.File(path, "w") as file:
        file["matrix"] = VALUES.T
        for name, factor in layers:
            file[f"layers/{name}"] = factor * VALUES.T
        for name in ("attrs", "layers", "row_graphs", "col_graphs"):
            file.require_group(name)
        for group, attributes in (("row_attrs", rows), ("col_attrs", columns)):
            file.create_group(group)
            for name, values in attributes.items():
                file[group][name] = values
    return path


def read(path):
    assert find(str(path), "SC") == (path, loom)
    return source(str(path), "SC").read()


def test_matrix_layers_and_attributes(tmp_path):
    columns = {"CellID": ["c1", "c2"], "age": [3.5, 4], "X_umap": [[1.0, 2], [3, 4]], "Clusters": ["a", "b"]}
    adata = read(write(tmp_path / "in.loom", columns=columns, layers=[("spliced", 2)]))
    assert adata.X.toarray().tolist() == VALUES.tolist() and adata.X.dtype == np.float32
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.layers["spliced"].toarray().tolist() == (2 * VALUES).tolist()
    assert list(adata.obs_names) == ["c1", "c2"] and list(adata.var_names) == ["A", "B", "A-1"]
    assert list(adata.obs["age"]) == [3.5, 4] and list(adata.obs["Clusters"]) == ["a", "b"]
    assert list(adata.var["Accession"]) == ["E1", "E2", "E3"] and adata.obsm["X_umap"].tolist() == [[1, 2], [3, 4]]


def test_a_block_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(loom, "AT_ONCE", 3)
    assert read(write(tmp_path / "in.loom")).X.toarray().tolist() == VALUES.tolist()


def test_names_under_other_names(tmp_path, caplog):
    rows, columns = {"gene_names": [b"A", b"B", b"C"]}, {"obs_names": [b"c1", b"c2"]}
    adata = read(write(tmp_path / "usual.loom", rows, columns))
    assert list(adata.obs_names) == ["c1", "c2"] and list(adata.var_names) == ["A", "B", "C"] and not caplog.text
    rows, columns = {"chromosome": [b"1", b"1", b"2"]}, {"well": [b"w1", b"w2"], "age": [1, 2]}
    adata = read(write(tmp_path / "odd.loom", rows, columns))
    assert list(adata.obs_names) == ["w1", "w2"] and list(adata.var_names) == ["0", "1", "2"]
    assert "they are named by well" in caplog.text and "numbered; their attributes are chromosome" in caplog.text


def test_attributes_that_do_not_fit_are_left_out(tmp_path, caplog):
    caplog.set_level("INFO")
    adata = read(write(tmp_path / "in.loom", columns={"CellID": ["c1", "c2"], "long": [1, 2, 3]}))
    assert list(adata.obs) == [] and "The attribute long is left out" in caplog.text


def test_a_damaged_file(tmp_path):
    path = write(tmp_path / "in.loom", layers=[("spliced", 1)])
    with h5py.File(path, "r+") as file:
        del file["layers/spliced"]
        file["layers/spliced"] = np.ones((2, 2))
    with pytest.raises(UserError, match="in.loom cannot be read as loom"):
        read(path)
