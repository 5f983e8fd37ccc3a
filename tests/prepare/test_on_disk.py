"""Values left on disk: the same cells, genes and errors as in memory, block by block."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from scipy import sparse

from scrcl.contents import blocks
from scrcl.contents.values import find_expression
from scrcl.messages import UserError
from scrcl.prepare import genes
from scrcl.prepare.on_disk import preprocess
from scrcl.readers.h5ad import open_in_place, read

COUNTS = simulate(60, 300).X.toarray()
LOGNORM = np.log1p(COUNTS / COUNTS.sum(1, keepdims=True) * 1e4)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 17)


def in_memory(
    adata: ad.AnnData, layer: str = "auto", n_top_genes: int = 50, min_cells: int = 10, target_sum: str = "10000"
) -> tuple[ad.AnnData, str]:
    expression = find_expression(adata, layer)
    cells = genes.preprocess(expression, target_sum, n_top_genes, "seurat", min_cells)
    return cells[:, cells.var["highly_variable"]].copy(), expression.in_words()


def from_disk(
    adata: ad.AnnData,
    folder: Path,
    layer: str = "auto",
    n_top_genes: int = 50,
    min_cells: int = 10,
    target_sum: str = "10000",
) -> tuple[ad.AnnData, str]:
    adata.write_h5ad(folder / "in.h5ad")
    opened = open_in_place(folder / "in.h5ad")
    assert blocks.is_lazy(opened)
    return preprocess(opened, layer, target_sum, n_top_genes, "seurat", min_cells)


def assert_same(got: tuple[ad.AnnData, str], expected: tuple[ad.AnnData, str]) -> None:
    (cells, words), (reference, reference_words) = got, expected
    assert words == reference_words
    assert cells.X.dtype == np.float32 and cells.X.indices.dtype == cells.X.indptr.dtype == np.int32
    assert np.array_equal(cells.X.toarray(), reference.X.toarray())
    assert cells.layers.keys() == reference.layers.keys() and cells.obsm.keys() == reference.obsm.keys()
    for name in cells.layers:
        assert np.array_equal(cells.layers[name].toarray(), reference.layers[name].toarray())
    for name in cells.obsm:
        assert np.array_equal(cells.obsm[name], reference.obsm[name])
    pd.testing.assert_frame_equal(cells.obs, reference.obs)
    pd.testing.assert_frame_equal(
        cells.var, reference.var, rtol=1e-4, atol=1e-5
    )  # in memory, squares are rounded to float32
    assert dict(cells.uns) == dict(reference.uns)
    cells.X.check_format(full_check=True)


@pytest.mark.parametrize("n_top_genes", [50, 1000])
@pytest.mark.parametrize(
    "make",
    [
        sparse.csr_matrix,
        np.asarray,
        lambda x: x.astype(np.float64),
        lambda x: sparse.csr_matrix(x.astype(np.int64)),
        lambda x: x * 1.7 + 30,
        lambda x: sparse.csr_matrix(np.log1p(x)),
        lambda x: sparse.csr_matrix(LOGNORM),
    ],
)
def test_every_storage_and_kind(make, n_top_genes, tmp_path):
    adata = ad.AnnData(make(COUNTS))
    assert_same(from_disk(adata, tmp_path, n_top_genes=n_top_genes), in_memory(adata, n_top_genes=n_top_genes))


@pytest.mark.parametrize("target_sum", ["50", "median"])
@pytest.mark.parametrize("make", [lambda x: x, np.log1p, lambda x: x * 1.7 + 30])
def test_what_a_cell_sums_up_to(make, target_sum, tmp_path):
    """The median is that of the counts, also of a file of their logarithms; the last cell has none and no part."""
    values = make(COUNTS)
    values[-1] = 0
    adata = ad.AnnData(sparse.csr_matrix(values))
    got = from_disk(adata, tmp_path, n_top_genes=1000, target_sum=target_sum)
    expected = 50 if target_sum == "50" else np.median((COUNTS if make is np.log1p else values)[:-1].sum(axis=1))
    assert np.allclose(np.expm1(got[0].X.toarray().astype(float)).sum(axis=1), expected, rtol=1e-4)
    assert_same(got, in_memory(adata, n_top_genes=1000, target_sum=target_sum))


@pytest.mark.parametrize("run", [from_disk, lambda adata, folder, **how: in_memory(adata, **how)])
def test_a_sum_without_effect_is_refused(run, tmp_path):
    adata = ad.AnnData(sparse.csr_matrix(LOGNORM))
    for target_sum in ("median", "5000"):
        with pytest.raises(UserError, match="--target-sum has no effect on values that are log-normalised already"):
            run(adata, tmp_path, target_sum=target_sum)
    for target_sum in ("auto", "10000", "1e4"):
        assert run(adata, tmp_path, target_sum=target_sum)[0].n_obs == adata.n_obs


@pytest.mark.parametrize("n_top_genes", [50, 1000])
@pytest.mark.parametrize("min_cells", [1, 3, 10])
def test_genes_seen_in_few_cells(min_cells, n_top_genes, tmp_path):
    values = COUNTS.copy()
    values[2:, :120] = 0  # seen in two cells at most, and in one or two if at all
    adata = ad.AnnData(sparse.csr_matrix(values))
    got = from_disk(adata, tmp_path, n_top_genes=n_top_genes, min_cells=min_cells)
    assert_same(got, in_memory(adata, n_top_genes=n_top_genes, min_cells=min_cells))
    rare = adata.var_names[:120]
    assert got[0].var_names.isin(rare).any() == (min_cells == 1)


def test_cells_and_genes_without_a_value_and_what_stands_beside(tmp_path):
    values = COUNTS.copy()
    values[[0, *range(17, 34), 59]] = 0  # the second block holds no cell at all
    values[:, [0, 5, 299]] = 0
    adata = ad.AnnData(sparse.csr_matrix(values))
    adata.X.data[:3] = 0  # stored, but no values
    adata.obs["kind"] = pd.Categorical(["only in an empty cell"] + ["a", "b", "c"] * 19 + ["a", "b"])
    adata.obs["text"] = pd.array(["a"] * 60, dtype="string").astype(object)
    adata.var["name"] = pd.Categorical([f"n{i}" for i in range(300)])
    adata.obsm = {"spatial": np.arange(120.0).reshape(60, 2), "X_pca": np.zeros((60, 3))}
    got = from_disk(adata, tmp_path)
    assert got[0].n_obs == 41 and "spatial" in got[0].obsm
    assert_same(got, in_memory(read(tmp_path / "in.h5ad")))


def test_long_indices_duplicates_and_no_order(tmp_path):
    adata = ad.AnnData(sparse.csr_matrix(COUNTS))
    adata.write_h5ad(tmp_path / "long.h5ad")
    with h5py.File(tmp_path / "long.h5ad", "r+") as file:
        for name in ("indices", "indptr"):
            values = file["X"][name][()].astype(np.int64)
            del file["X"][name]
            file["X"][name] = values
        first = file["X/indices"][:5]
        file["X/indices"][:5] = first[::-1]
        file["X/indices"][6] = file["X/indices"][5]
    cells = preprocess(open_in_place(tmp_path / "long.h5ad"), "auto", "10000", 50, "seurat", 10)
    assert_same(cells, in_memory(read(tmp_path / "long.h5ad")))


@pytest.mark.parametrize("layer", ["auto", "raw", "other", "X"])
def test_layers_and_raw(layer, tmp_path):
    adata = ad.AnnData(LOGNORM, layers={"other": sparse.csr_matrix(COUNTS + 1)})
    adata.raw = ad.AnnData(
        sparse.csr_matrix(np.hstack([COUNTS, COUNTS[::-1] + 1])), var=pd.DataFrame(index=map(str, range(600)))
    )
    got = from_disk(adata, tmp_path, layer)
    assert_same(got, in_memory(adata, layer))
    assert layer != "auto" or got[1] == "counts, in .raw"


def test_a_file_that_the_user_opened_is_not_changed(tmp_path):
    adata = ad.AnnData(
        LOGNORM, layers={"counts": sparse.csc_matrix(COUNTS), "logs": sparse.csr_matrix(np.log1p(COUNTS))}
    )
    adata.write_h5ad(tmp_path / "in.h5ad")
    opened = ad.read_h5ad(tmp_path / "in.h5ad", backed="r")
    assert blocks.is_lazy(opened)
    for layer in ("auto", "logs"):
        assert_same(preprocess(opened, layer, "10000", 50, "seurat", 10), in_memory(adata, layer))
        assert_same(preprocess(opened[5:], layer, "10000", 50, "seurat", 10), in_memory(adata[5:].copy(), layer))
    assert np.array_equal(opened.layers["logs"].toarray(), adata.layers["logs"].toarray())


def test_one_block_of_a_matrix_in_memory_is_not_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 1000)
    adata = ad.AnnData(LOGNORM, layers={"logs": sparse.csr_matrix(np.log1p(COUNTS, dtype=np.float32))})
    adata.layers["logs"].data[:3] = 0
    before = adata.layers["logs"].copy()
    preprocess(adata, "logs", "10000", 50, "seurat", 10)
    assert np.array_equal(before.data, adata.layers["logs"].data)
    assert np.array_equal(before.indptr, adata.layers["logs"].indptr)


def test_blocks_of_few_values(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 1)
    adata = ad.AnnData(sparse.csr_matrix(COUNTS))
    assert_same(from_disk(adata, tmp_path), in_memory(adata))


@pytest.mark.parametrize("values", [COUNTS, sparse.csr_matrix(COUNTS)])
def test_compressed_values(values, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 2_000)
    ad.AnnData(values).write_h5ad(tmp_path / "in.h5ad", compression="gzip")
    opened = open_in_place(tmp_path / "in.h5ad")
    assert blocks.Blocks(opened.X, "X").bounds[0][1] % (opened.X.chunks[0] if values is COUNTS else 1) == 0
    assert_same(preprocess(opened, "auto", "10000", 50, "seurat", 10), in_memory(ad.AnnData(values)))


def test_files_from_before_anndata_07(tmp_path):
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = COUNTS
        for name, length in (("obs", 60), ("var", 300)):
            file[name] = np.array([(f"{name}{i}".encode(),) for i in range(length)], dtype=[("index", "S10")])
    with pytest.warns(ad.OldFormatWarning):
        opened, adata = open_in_place(path), read(path)
    assert blocks.is_lazy(opened)
    assert_same(preprocess(opened, "auto", "10000", 50, "seurat", 10), in_memory(adata))


def with_value(value: float) -> ad.AnnData:
    values = COUNTS.astype(np.float64)
    values[50, 3] = value
    return ad.AnnData(values)


def renamed(**names: list[str]) -> ad.AnnData:
    adata = ad.AnnData(COUNTS)
    for name, values in names.items():
        setattr(adata, name, values)
    return adata


def nearly_empty() -> ad.AnnData:
    values = np.zeros((20, 5))
    values[:2, :3] = 1
    return ad.AnnData(values)


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: ad.AnnData(np.zeros((0, 5))), "auto"),
        (lambda: ad.AnnData(np.zeros((5, 0))), "auto"),
        (lambda: ad.AnnData(np.zeros((5, 5))), "auto"),
        (lambda: with_value(np.nan), "auto"),
        (lambda: with_value(1e300), "auto"),
        (lambda: with_value(-1), "auto"),
        (lambda: renamed(obs_names=["a"] * 60), "auto"),
        (lambda: renamed(var_names=["x"] * 300), "auto"),
        (lambda: ad.AnnData(COUNTS), "none such"),
        (lambda: ad.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["b"])), "auto"),
        (lambda: ad.AnnData(COUNTS + 1j), "auto"),
        (nearly_empty, "auto"),
        (lambda: ad.AnnData(np.tile(np.arange(1.0, 31), (20, 1))), "auto"),
    ],
)
def test_the_same_sentence_about_bad_data(make, layer, tmp_path):
    make().write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(UserError) as expected:
        in_memory(read(tmp_path / "in.h5ad"), layer)
    with pytest.raises(UserError) as got:
        preprocess(open_in_place(tmp_path / "in.h5ad"), layer, "10000", 50, "seurat", 10)
    assert str(got.value) == str(expected.value)


def test_text_is_no_number(tmp_path):
    adata = ad.AnnData(COUNTS, layers={"odd": np.full(COUNTS.shape, "many")})
    with pytest.raises(UserError, match=r"The values in layers\['odd'\] are not numbers"):
        from_disk(adata, tmp_path, "odd")


def test_all_genes_where_none_stands_out(tmp_path):
    adata = ad.AnnData(sparse.csr_matrix(np.eye(20, 40, dtype=np.float32)))
    assert_same(from_disk(adata, tmp_path, n_top_genes=10), in_memory(adata, n_top_genes=10))


def test_what_cannot_be_done_in_blocks(tmp_path):
    with pytest.raises(UserError, match="add --hvg-flavor seurat"):
        preprocess(ad.AnnData(COUNTS), "auto", "10000", 50, "seurat_v3", 10)
    with pytest.raises(UserError, match=r"X is stored by genes .*adata\.X\.tocsr\(\)"):
        from_disk(ad.AnnData(sparse.csc_matrix(COUNTS)), tmp_path)
