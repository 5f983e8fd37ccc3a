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


def scaled_with(**layers: np.ndarray) -> ad.AnnData:
    return ad.AnnData(COUNTS - COUNTS.mean(0), layers=layers)


def test_any_layer_before_a_refusal_and_counts_before_logarithms():
    assert contents.find_expression(scaled_with(lognorm=lognorm(COUNTS))).slot == "layers['lognorm']"
    both = scaled_with(logcounts=lognorm(COUNTS), mine=COUNTS)
    assert (found := contents.find_expression(both)).slot == "layers['mine']" and found.kind == "counts"
    without_x = ad.AnnData(obs=both.obs, var=both.var, layers={"scale.data": both.X, "data": lognorm(COUNTS)})
    assert contents.find_expression(without_x).slot == "layers['data']"


def test_layers_of_other_names_do_not_go_before_a_usable_x():
    adata = ad.AnnData(lognorm(COUNTS), layers={"spliced": COUNTS})
    assert contents.find_expression(adata).slot == "X"
    adata.layers["Raw.Counts"] = COUNTS
    assert contents.find_expression(adata).slot == "layers['Raw.Counts']"


def test_a_refusal_lists_what_was_looked_at():
    with pytest.raises(UserError, match=r"looked at: X, layers\['also'\]\), so save the file with raw counts"):
        contents.find_expression(scaled_with(also=-lognorm(COUNTS)))


@pytest.mark.parametrize("base", [2, 10])
def test_other_logarithms_are_brought_to_the_natural_base(base):
    adata = ad.AnnData(lognorm(COUNTS) / np.log(base))
    found = contents.find_expression(adata)
    assert found.slot == f"X, brought from log{base} to natural logarithms"
    assert np.allclose(found.cells.X.toarray(), lognorm(COUNTS), rtol=1e-6)
    turned_back = contents.find_expression(ad.AnnData(np.log1p(COUNTS) / np.log(base)))
    assert np.array_equal(turned_back.cells.X.toarray(), COUNTS)


def test_the_base_that_scanpy_noted_counts_where_values_do_not_tell():
    smooth = np.random.default_rng(0).uniform(1, 9, (30, 20))
    adata = ad.AnnData(smooth, uns={"log1p": {"base": 2}})
    assert np.allclose(contents.find_expression(adata).cells.X.toarray(), smooth * np.log(2), rtol=1e-6)
    adata.uns["log1p"]["base"] = None
    assert np.allclose(contents.find_expression(adata).cells.X.toarray(), smooth, rtol=1e-6)


def test_what_a_user_says_that_values_are():
    adata = ad.AnnData(lognorm(COUNTS), layers={"counts": COUNTS})
    assert contents.find_expression(adata, values="counts").in_words() == "fractional amounts, in X"
    assert contents.find_expression(adata, "counts", "lognorm").kind == "log-normalised"
    assert contents.find_expression(adata, "counts", "counts").kind == "counts"
    assert np.allclose(
        contents.find_expression(adata, values="log2").cells.X.toarray(), lognorm(COUNTS) * np.log(2), rtol=1e-6
    )


def test_half_precision_as_some_zarr_stores_have_it():
    half = sparse.csr_matrix(COUNTS)
    half.data = half.data.astype(np.float16)
    for values in (half, COUNTS.astype(np.float16)):
        adata = ad.AnnData(COUNTS, layers={"half": values})
        assert np.array_equal(contents.find_expression(adata, "half").cells.X.toarray(), COUNTS)


def with_ids(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=names)


def test_raw_takes_symbols_and_feature_types_from_var_by_id():
    ids, symbols = [f"ENSG{i}" for i in range(12)], [f"SYM{i}" for i in range(12)]
    adata = ad.AnnData(COUNTS, var=with_ids(ids))
    adata.raw = adata
    adata = adata[:, ::-2].copy()
    adata.X = adata.X - adata.X.mean(0)
    adata.var["feature_name"] = symbols[::-2]
    adata.var["feature_types"] = ["Antibody Capture"] + ["Gene Expression"] * 5
    found = contents.find_expression(adata)
    assert found.slot == ".raw" and found.cells.n_vars == 11 and "ENSG11" not in found.cells.var_names
    assert found.cells.var["feature_name"].dropna().to_dict() == {f"ENSG{i}": f"SYM{i}" for i in range(1, 11, 2)}


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
