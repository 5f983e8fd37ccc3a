"""Recognising expression values in an AnnData, and every kind of bad ones."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from scipy import sparse

from scrcl.contents import values as contents
from scrcl.messages import UserError


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
    assert contents.value_kind(sparse.csr_matrix(values, dtype=np.float32)) == kind


def test_large_fractions_are_not_taken_for_logarithms_of_counts():
    values = np.random.default_rng(0).uniform(11, 24, (50, 20))
    assert contents.value_kind(sparse.csr_matrix(values, dtype=np.float32)) == "log-normalised"
    mixed = np.vstack([np.log1p(COUNTS), lognorm(COUNTS)])
    assert contents.value_kind(sparse.csr_matrix(mixed, dtype=np.float32)) == "log-normalised"


@pytest.mark.parametrize(
    "make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, lambda x: x.astype(np.int64), np.asfortranarray]
)
def test_counts_are_found_in_any_storage(make):
    found = contents.find_expression(ad.AnnData(make(COUNTS)))
    assert found.kind == "counts" and found.slot == "X"
    assert np.array_equal(found.cells.X.toarray(), COUNTS)


def test_counts_are_preferred_over_normalised_values_in_x():
    adata = ad.AnnData(lognorm(COUNTS), layers={"counts": COUNTS})
    assert contents.find_expression(adata).slot == "layers['counts']"


def test_raw_is_used_with_its_own_genes_when_x_is_scaled():
    adata = ad.AnnData(lognorm(COUNTS))
    adata.raw = adata
    adata = adata[:, :5].copy()
    adata.X = adata.X - adata.X.mean(0)
    found = contents.find_expression(adata)
    assert (found.kind, found.slot, found.cells.n_vars) == ("log-normalised", ".raw", COUNTS.shape[1])


def test_log1p_of_counts_is_turned_back():
    found = contents.find_expression(ad.AnnData(np.log1p(COUNTS)))
    assert found.kind == "counts" and np.array_equal(found.cells.X.toarray(), COUNTS)


def test_a_named_layer_is_used():
    adata = ad.AnnData(COUNTS, layers={"spliced": COUNTS + 1})
    assert np.array_equal(contents.find_expression(adata, "spliced").cells.X.toarray(), COUNTS + 1)


def test_slots_and_layers_of_the_same_name():
    adata = ad.AnnData(lognorm(COUNTS), layers={"raw": COUNTS})
    assert contents.find_expression(adata, "raw").slot == "layers['raw']"
    adata.raw = adata.copy()
    assert contents.find_expression(adata, "raw").slot == ".raw"


@pytest.mark.parametrize("x", [np.full_like(COUNTS, np.nan), np.zeros_like(COUNTS)])
def test_an_unusable_x_does_not_hide_good_counts(x):
    assert contents.find_expression(ad.AnnData(x, layers={"counts": COUNTS})).slot == "layers['counts']"


def test_columns_that_h5ad_cannot_hold_are_made_storable(tmp_path):
    adata = ad.AnnData(COUNTS)
    adata.obs["text"] = pd.array(["a"] * adata.n_obs, dtype="string")
    adata.var["_index"] = adata.var_names
    contents.find_expression(adata).cells.write_h5ad(tmp_path / "x.h5ad")


def test_input_is_not_changed():
    adata = ad.AnnData(np.log1p(COUNTS))
    before = adata.X.copy()
    contents.find_expression(adata).cells.X.data[:] = 0
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
        contents.find_expression(make())


def test_a_layer_that_is_not_there_names_those_that_are():
    with pytest.raises(UserError, match="the layer spliced"):
        contents.find_expression(ad.AnnData(COUNTS, layers={"spliced": COUNTS}), "unspliced")


@pytest.mark.parametrize("values", [np.full((20, 5), 1 + 1j), np.full((20, 5), "many"), np.full((20, 5), object())])
def test_values_that_are_no_numbers(values):
    adata = simulate(20, 5)
    adata.layers["odd"] = values
    with pytest.raises(UserError, match="are not numbers"):
        contents.find_expression(adata, "odd")
