"""Recognising values and labels, reading files, and every kind of bad input."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from scipy import sparse

import data
import hdf5
import preprocess
from utils import UserError


def lognorm(counts: np.ndarray) -> np.ndarray:
    return np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)


COUNTS = simulate(20, 12).X.toarray()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (COUNTS, "counts"),
        (COUNTS * 1.7 + 30, "non-negative"),
        (lognorm(COUNTS), "log-normalised"),
        (np.log1p(COUNTS), "log1p of counts"),
        (COUNTS - COUNTS.mean(0), "scaled"),
    ],
)
def test_value_kind(values, kind):
    assert data.value_kind(sparse.csr_matrix(values, dtype=np.float32)) == kind


def test_large_fractions_are_not_taken_for_logarithms_of_counts():
    values = np.random.default_rng(0).uniform(11, 24, (50, 20))
    assert data.value_kind(sparse.csr_matrix(values, dtype=np.float32)) == "log-normalised"
    mixed = np.vstack([np.log1p(COUNTS), lognorm(COUNTS)])
    assert data.value_kind(sparse.csr_matrix(mixed, dtype=np.float32)) == "log-normalised"


@pytest.mark.parametrize(
    "make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, lambda x: x.astype(np.int64), np.asfortranarray]
)
def test_counts_are_found_in_any_storage(make):
    found = data.find_expression(ad.AnnData(make(COUNTS)))
    assert found.kind == "counts" and found.source == "X"
    assert np.array_equal(found.cells.X.toarray(), COUNTS)


def test_counts_are_preferred_over_normalised_values_in_x():
    adata = ad.AnnData(lognorm(COUNTS), layers={"counts": COUNTS})
    assert data.find_expression(adata).source == "layers['counts']"


def test_raw_is_used_with_its_own_genes_when_x_is_scaled():
    adata = ad.AnnData(lognorm(COUNTS))
    adata.raw = adata
    adata = adata[:, :5].copy()
    adata.X = adata.X - adata.X.mean(0)
    found = data.find_expression(adata)
    assert (found.kind, found.source, found.cells.n_vars) == ("log-normalised", ".raw", COUNTS.shape[1])


def test_log1p_of_counts_is_turned_back():
    found = data.find_expression(ad.AnnData(np.log1p(COUNTS)))
    assert found.kind == "counts" and np.array_equal(found.cells.X.toarray(), COUNTS)


def test_a_named_layer_is_used():
    adata = ad.AnnData(COUNTS, layers={"spliced": COUNTS + 1})
    assert np.array_equal(data.find_expression(adata, "spliced").cells.X.toarray(), COUNTS + 1)


def test_slots_and_layers_of_the_same_name():
    adata = ad.AnnData(lognorm(COUNTS), layers={"raw": COUNTS})
    assert data.find_expression(adata, "raw").source == "layers['raw']"
    adata.raw = adata.copy()
    assert data.find_expression(adata, "raw").source == ".raw"


@pytest.mark.parametrize("x", [np.full_like(COUNTS, np.nan), np.zeros_like(COUNTS)])
def test_an_unusable_x_does_not_hide_good_counts(x):
    assert data.find_expression(ad.AnnData(x, layers={"counts": COUNTS})).source == "layers['counts']"


def test_columns_that_h5ad_cannot_hold_are_made_storable(tmp_path):
    adata = ad.AnnData(COUNTS)
    adata.obs["text"] = pd.array(["a"] * adata.n_obs, dtype="string")
    adata.var["_index"] = adata.var_names
    data.find_expression(adata).cells.write_h5ad(tmp_path / "x.h5ad")


def test_input_is_not_changed():
    adata = ad.AnnData(np.log1p(COUNTS))
    before = adata.X.copy()
    data.find_expression(adata).cells.X.data[:] = 0
    assert np.array_equal(adata.X, before)


def with_value(value: float) -> ad.AnnData:
    values = COUNTS.astype(np.float64)
    values[2, 3] = value
    return ad.AnnData(values)


def with_names(cells: list[str] | None = None, genes: list[str] | None = None) -> ad.AnnData:
    adata = ad.AnnData(COUNTS[:3, :3])
    if cells:
        adata.obs_names = cells
    if genes:
        adata.var_names = genes
    return adata


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ad.AnnData(np.zeros((0, 5))), "0 cells and 5 genes"),
        (lambda: ad.AnnData(np.zeros((5, 0))), "5 cells and 0 genes"),
        (lambda: with_value(np.nan), "NaN or infinite values in X"),
        (lambda: with_value(np.inf), "NaN or infinite values in X"),
        (lambda: with_value(1e300), "NaN or infinite values in X"),
        (lambda: with_value(-1), "negative"),
        (lambda: with_names(cells=["a", "b", "a"]), "barcode 'a'"),
        (lambda: with_names(genes=["x", "x", "y"]), "gene name 'x'"),
    ],
)
def test_bad_values_and_names(make, says):
    with pytest.raises(UserError, match=says):
        data.find_expression(make())


def test_a_layer_that_is_not_there_names_those_that_are():
    with pytest.raises(UserError, match="the layer spliced"):
        data.find_expression(ad.AnnData(COUNTS, layers={"spliced": COUNTS}), "unspliced")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["B", "T", None], ["B", "T", None]),
        (["B", "", "nan"], ["B", None, None]),
        ([1, 2, 10], ["1", "2", "10"]),
        ([1.0, np.nan, 2.0], ["1", None, "2"]),
        ([0.5, np.nan, 2.0], ["0.5", None, "2.0"]),
        (pd.Categorical(["B", None, "T"], categories=["T", "B", "unused"]), ["B", None, "T"]),
        ([True, False, True], ["True", "False", "True"]),
    ],
)
def test_labels_of_every_type(column, expected):
    labels = data.find_labels(pd.DataFrame({"celltype": column}, index=list("abc")))
    assert [None if pd.isna(x) else x for x in labels] == expected


def test_label_columns():
    obs = pd.DataFrame({"mine": ["a", "b"], "cell_type": ["x", "y"]})
    assert data.find_labels(obs).name == "cell_type"
    assert data.find_labels(obs, "mine").name == "mine"
    assert data.find_labels(obs, "none") is None
    assert data.find_labels(obs[["mine"]]) is None
    assert data.find_labels(pd.DataFrame({"celltype": [None, None]})) is None
    assert data.find_labels(pd.DataFrame({"cell_type1": [None, None], "celltype": ["a", "b"]})).name == "celltype"
    with pytest.raises(UserError, match="'typo'.*mine, cell_type"):
        data.find_labels(obs, "typo")


def test_missing_files_say_what_there_is(tmp_path):
    simulate(5, 4).write_h5ad(tmp_path / "here.h5ad")
    assert data.find_h5ad("here", tmp_path) == tmp_path / "here.h5ad"
    assert data.find_h5ad(str(tmp_path / "here.h5ad"), tmp_path) == tmp_path / "here.h5ad"
    with pytest.raises(UserError, match="there are here"):
        data.find_h5ad("gone", tmp_path)
    with pytest.raises(UserError, match="fetch.py Zeisel` fetches it"):
        data.find_h5ad("Zeisel", tmp_path)
    with pytest.raises(UserError, match="no data set"):
        data.find_h5ad("x" * 300, tmp_path)


def test_damaged_files(tmp_path):
    good, bad = tmp_path / "good.h5ad", tmp_path / "bad.h5ad"
    simulate().write_h5ad(good)
    content = good.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cut off"):
        data.read(bad)
    bad.write_text("no HDF5")
    with pytest.raises(UserError, match="not an h5ad file"):
        data.read(bad)
    import h5py

    with h5py.File(bad, "w") as file:
        file["something"] = [1]
    with pytest.raises(UserError, match="h5ad"):
        data.find_expression(data.read(bad))


def test_names_of_results():
    assert data.dataset_name("/a/b/Zeisel.h5ad") == "Zeisel"
    assert data.dataset_name("Zeisel") == "Zeisel"
    assert data.dataset_name("with.dot.h5ad") == "with.dot"


def test_cells_that_do_not_differ():
    adata = ad.AnnData(np.tile(np.arange(1.0, 31), (20, 1)))
    with pytest.raises(UserError, match="do not differ: 0 genes vary"):
        preprocess.preprocess(data.find_expression(adata), "10000", 10, "seurat", 10)


def test_all_genes_where_none_stands_out():
    """Every cell has one count of one gene: scanpy has no dispersion to compare, and fails."""
    adata = ad.AnnData(sparse.csr_matrix(np.eye(20, 40, dtype=np.float32)))
    cells = preprocess.preprocess(data.find_expression(adata), "10000", 10, "seurat", 10)
    assert cells.shape == (20, 20) and cells.var["highly_variable"].all()


def test_how_much_of_the_first_pc_is_depth():
    """Of six cells: the logarithm of their sums itself, the same with its sign changed and moved, and what has nothing to do with it."""
    totals = np.exp([1.0, 2, 3, 3, 2, 1])
    cells = ad.AnnData(np.ones((6, 1)), obs={"scrcl_total": totals}, layers={"counts": np.ones((6, 1))})
    cells.obs_names = [f"cell {i}" for i in range(6)]
    for first, expected in ((np.log(totals), 1), (7 - 3 * np.log(totals), 1), (np.array([1, 1, 1, -1, -1, -1]), 0)):
        cells.obsm["X_pca"] = np.column_stack([first, np.log(totals)])
        assert preprocess.depth_in_first_pc(cells) == pytest.approx(expected)
    cells.obs["scrcl_total"] = 5.0
    assert preprocess.depth_in_first_pc(cells) == 0
    del cells.layers["counts"]  # of TPM there are no counts to tell
    assert preprocess.depth_in_first_pc(cells) == 0


def test_counts_can_be_normalised_to_their_median():
    """Sums of 2, 4 and 8, and of a cell without a count, which does not take part: the median is 4."""
    counts = np.array([[1, 1, 0], [1, 0, 3], [0, 0, 0], [4, 4, 0]])
    cells = preprocess.preprocess(data.find_expression(ad.AnnData(counts)), "median", 3, "seurat", 1)
    expected = np.log1p([[2, 2, 0], [1, 0, 3], [2, 2, 0]])
    assert np.allclose(cells.X.toarray(), expected) and np.array_equal(
        cells.layers["counts"].toarray(), counts[[0, 1, 3]]
    )


@pytest.mark.parametrize(("min_cells", "least"), [(1, 1), (4, 4), (10, 6)])
def test_rare_genes_are_not_highly_variable(min_cells, least):
    """60 cells: a tenth of them are 6. Genes seen in a few cells, at high values, vary most for their mean."""
    rng = np.random.default_rng(0)
    seen = np.repeat([1, 3, 5, 8, 30], 40)
    values = np.zeros((60, len(seen)))
    for gene, n in enumerate(seen):
        values[rng.choice(60, n, replace=False), gene] = rng.integers(20, 40, n) if n < 8 else rng.integers(1, 3, n)
    cells = preprocess.preprocess(data.find_expression(ad.AnnData(values)), "10000", 50, "seurat", min_cells)
    assert seen[cells.var["highly_variable"]].min() >= least and cells.n_vars == len(seen)
    assert cells.var["highly_variable"].sum() == 50 and (
        min_cells > 1 or np.median(seen[cells.var["highly_variable"]]) <= 3
    )


def test_a_curve_through_a_handful_of_genes():
    adata = simulate(40, 5)
    with pytest.raises(UserError, match="fits a curve through the genes, of which only [0-9] vary"):
        preprocess.preprocess(data.find_expression(adata), "10000", 3, "seurat_v3", 10)


@pytest.mark.parametrize("values", [np.full((20, 5), 1 + 1j), np.full((20, 5), "many"), np.full((20, 5), object())])
def test_values_that_are_no_numbers(values):
    adata = simulate(20, 5)
    adata.layers["odd"] = values
    with pytest.raises(UserError, match="are not numbers"):
        data.find_expression(adata, "odd")


def test_damage_that_only_a_child_survives(tmp_path, monkeypatch, caplog):
    """Stands for HDF5: a child that crashes, never ends, or cannot be started."""
    path = tmp_path / "in.h5ad"
    simulate(20, 5).write_h5ad(path)
    assert hdf5.damage(path) is None
    script = tmp_path / "child.py"
    monkeypatch.setattr(hdf5, "__file__", str(script))
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(UserError, match="is damaged: reading it crashes the HDF5 library, code -11"):
        data.read(path)
    monkeypatch.setattr(hdf5, "PATIENCE", 1)
    script.write_text("while True: pass")
    assert hdf5.damage(path) == "reading it never comes to an end"
    script.write_text("import no_such_module")
    assert hdf5.damage(path) is None and "could not be found out" in caplog.text
