"""From values to highly variable genes, what the encoders see, and PCs."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from conftest import simulate
from scipy import sparse

from scrcl.contents.values import find_expression
from scrcl.messages import UserError
from scrcl.prepare import genes
from scrcl.prepare.features import Features
from scrcl.prepare.genes import preprocess


def test_cells_that_do_not_differ():
    adata = ad.AnnData(np.tile(np.arange(1.0, 31), (20, 1)))
    with pytest.raises(UserError, match="do not differ: 0 genes vary"):
        preprocess(find_expression(adata), "10000", 10, "seurat", 10)


def test_all_genes_where_none_stands_out():
    """Every cell has one count of one gene: scanpy has no dispersion to compare, and fails."""
    adata = ad.AnnData(sparse.csr_matrix(np.eye(20, 40, dtype=np.float32)))
    cells = preprocess(find_expression(adata), "10000", 10, "seurat", 10)
    assert cells.shape == (20, 20) and cells.var["highly_variable"].all()


def test_how_much_of_the_first_pc_is_depth():
    """Of six cells: the logarithm of their sums, the same with its sign changed and moved, and what is unlike it."""
    totals = np.exp([1.0, 2, 3, 3, 2, 1])
    cells = ad.AnnData(np.ones((6, 1)), obs={"scrcl_total": totals}, layers={"counts": np.ones((6, 1))})
    cells.obs_names = [f"cell {i}" for i in range(6)]
    for first, expected in ((np.log(totals), 1), (7 - 3 * np.log(totals), 1), (np.array([1, 1, 1, -1, -1, -1]), 0)):
        cells.obsm["X_pca"] = np.column_stack([first, np.log(totals)])
        assert genes.depth_in_first_pc(cells) == pytest.approx(expected)
    cells.obs["scrcl_total"] = 5.0
    assert genes.depth_in_first_pc(cells) == 0
    del cells.layers["counts"]  # of TPM there are no counts to tell
    assert genes.depth_in_first_pc(cells) == 0


def test_counts_can_be_normalised_to_their_median():
    """Sums of 2, 4 and 8, and of a cell without a count, which does not take part: the median is 4."""
    counts = np.array([[1, 1, 0], [1, 0, 3], [0, 0, 0], [4, 4, 0]])
    cells = preprocess(find_expression(ad.AnnData(counts)), "median", 3, "seurat", 1)
    expected = np.log1p([[2, 2, 0], [1, 0, 3], [2, 2, 0]])
    assert np.allclose(cells.X.toarray(), expected) and np.array_equal(
        cells.layers["counts"].toarray(), counts[[0, 1, 3]]
    )


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
def test_normalising_anew_gives_what_normalising_at_once_does(flavor):
    how = {"n_top_genes": 30, "hvg_flavor": flavor, "min_cells": 5}
    found, asked = (preprocess(find_expression(simulate(90, 80)), target, **how) for target in ("10000", "median"))
    genes.normalised_anew(found, "median", **how, among=genes.ANY_GENE)
    assert np.array_equal(found.X.toarray(), asked.X.toarray()) and dict(found.uns) == dict(asked.uns)
    assert found.var.equals(asked.var) and np.array_equal(
        found.layers["counts"].toarray(), asked.layers["counts"].toarray()
    )


@pytest.mark.parametrize(("min_cells", "least"), [(1, 1), (4, 4), (10, 6)])
def test_rare_genes_are_not_highly_variable(min_cells, least):
    """60 cells: a tenth of them are 6. Genes seen in a few cells, at high values, vary most for their mean."""
    rng = np.random.default_rng(0)
    seen = np.repeat([1, 3, 5, 8, 30], 40)
    values = np.zeros((60, len(seen)))
    for gene, n in enumerate(seen):
        values[rng.choice(60, n, replace=False), gene] = rng.integers(20, 40, n) if n < 8 else rng.integers(1, 3, n)
    cells = preprocess(find_expression(ad.AnnData(values)), "10000", 50, "seurat", min_cells)
    assert seen[cells.var["highly_variable"]].min() >= least and cells.n_vars == len(seen)
    assert cells.var["highly_variable"].sum() == 50 and (
        min_cells > 1 or np.median(seen[cells.var["highly_variable"]]) <= 3
    )


def test_a_curve_through_a_handful_of_genes():
    adata = simulate(40, 5)
    with pytest.raises(UserError, match="fits a curve through the genes, of which only [0-9] vary"):
        preprocess(find_expression(adata), "10000", 3, "seurat_v3", 10)


# Sparse and dense


def dense(features: Features) -> np.ndarray:
    return features.values.toarray() - features.offset


@pytest.mark.parametrize("choice", ["scaled", "uncentred", "lognorm", "counts"])
def test_sparse_values_are_those_of_the_dense_form(choice):
    adata = simulate(200, 80)
    adata.X[:2, 5] = 5000  # is clipped
    cells = preprocess(find_expression(adata), "10000", 60, "seurat", 10)
    found = genes.sparse_encoder_values(cells, choice)
    assert np.allclose(dense(found), genes.encoder_values(cells, choice), atol=1e-4)
    assert found.values.nnz <= cells[:, cells.var["highly_variable"]].X.nnz


def test_a_gene_far_above_its_spread_is_clipped_below_too():
    x = np.full((200, 3), 8, dtype=np.float32)
    x[:, 0] += np.arange(200) % 3 / 100
    x[0, 0], x[:, 1], x[:, 2] = 0, np.arange(200) % 7, np.arange(200) % 5
    cells = ad.AnnData(sparse.csr_matrix(x), var={"highly_variable": [True] * 3})
    expected = genes.encoder_values(cells, "scaled")
    assert expected.min() == -genes.MAX_SCALED
    assert np.allclose(dense(genes.sparse_encoder_values(cells, "scaled")), expected, atol=1e-3)
