"""Cells left out by their counts, genes and mitochondrial share; unfiltered droplets are warned of."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulate

from scrcl.contents.values import find_expression
from scrcl.messages import UserError
from scrcl.prepare.filters import Filter, warn_of_droplets
from scrcl.prepare.genes import log_normalised
from scrcl.prepare.on_disk import preprocess
from scrcl.readers.h5ad import open_in_place

# Cells:           plenty, few counts, few genes, mitochondrial, empty
TOTALS = np.array([1000.0, 90, 1000, 1000, 0])
GENES = np.array([200, 80, 3, 200, 0])
MITO = np.array([50.0, 0, 0, 300, 0])


def test_every_limit_by_itself(caplog):
    caplog.set_level("INFO")
    assert list(Filter().keep("counts", TOTALS, GENES, MITO)) == [True, True, True, True, False]
    assert list(Filter(min_counts=91).keep("counts", TOTALS, GENES, MITO)) == [True, False, True, True, False]
    assert list(Filter(min_genes=4).keep("counts", TOTALS, GENES, MITO)) == [True, True, False, True, False]
    assert list(Filter(max_mito=20).keep("counts", TOTALS, GENES, MITO)) == [True, True, True, False, False]
    for said in ("have no counts at all", "fewer than 91 counts", "fewer than 4 genes", "more than 20 % mitochondrial"):
        assert f"1 of 5 cells have {said.removeprefix('have ')}" in caplog.text


def test_limits_without_an_effect_are_refused():
    with pytest.raises(UserError, match="--min-counts needs counts"):
        Filter(min_counts=5).keep("log-normalised", TOTALS, GENES, MITO)
    with pytest.raises(UserError, match="no gene's name begins with MT-"):
        Filter(max_mito=5).keep("counts", TOTALS, GENES, np.zeros(5))


def droplets(n_empty: int, n_cells: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.poisson(20, n_empty), rng.lognormal(8.5, 0.4, n_cells)])


def test_unfiltered_droplets_are_warned_of_with_numbers(caplog):
    warn_of_droplets(droplets(50_000, 1000))
    (record,) = caplog.records
    assert "50000 of 51000 barcodes hold under 1" in record.message.replace("50,000", "50000")
    assert "--min-counts 1000 leaves them out" in record.message


@pytest.mark.parametrize(
    "totals",
    [droplets(100, 1000), np.random.default_rng(0).lognormal(5, 0.8, 5000), np.full(500, 1e6), np.array([1.0, 1e6])],
)
def test_no_warning_of_cells_that_differ_as_cells_do(totals, caplog):
    warn_of_droplets(totals)
    assert not caplog.records


def with_empty_droplets() -> ad.AnnData:
    """120 cells, and 60 barcodes with one count each; five genes are mitochondrial."""
    cells = simulate()
    empty = np.zeros((60, cells.n_vars), dtype=np.float32)
    empty[np.arange(60), np.arange(60) % cells.n_vars] = 1
    obs = pd.DataFrame(index=[*cells.obs_names, *(f"empty-{i}" for i in range(60))])
    var = pd.DataFrame(index=[f"MT-{i}" if i >= 75 else name for i, name in enumerate(cells.var_names)])
    return ad.AnnData(np.concatenate([cells.X.toarray(), empty]), obs=obs, var=var)


@pytest.mark.parametrize("keep", [Filter(min_counts=2), Filter(min_genes=2), Filter(5, 2, 30), Filter(max_mito=6)])
def test_the_same_cells_in_memory_and_on_disk(keep, tmp_path):
    adata = with_empty_droplets()
    adata.write_h5ad(tmp_path / "x.h5ad")
    in_memory = log_normalised(find_expression(adata), "10000", keep)
    on_disk, _ = preprocess(open_in_place(tmp_path / "x.h5ad"), "auto", "10000", 2000, "seurat", 1, keep)
    assert list(in_memory.obs_names) == list(on_disk.obs_names) and in_memory.n_obs < adata.n_obs
    assert np.allclose(in_memory.X.toarray(), on_disk.X.toarray(), rtol=1e-6)
    assert np.allclose(in_memory.obs["scrcl_total"], on_disk.obs["scrcl_total"])
