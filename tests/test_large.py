"""What differs where data are large: reading from disk, one seed, a UMAP of some cells, memory that is limited."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import torch
from conftest import FAST, run, simulate

import backed
import config
import figures
import pipeline
import preprocess
import results
import runSC
import simulate as simulation
import tissue_figures
import utils
from config import SCConfig
from utils import UserError


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "cells.h5ad"
    simulation.write_cells(path, 300, 100, 3, mean_counts=200)
    return path


def test_simulated_cells_are_the_same_every_time_and_of_the_types_they_say(large, tmp_path):
    adata = ad.read_h5ad(large)
    simulation.write_cells(tmp_path / "again.h5ad", 300, 100, 3, mean_counts=200)
    again = ad.read_h5ad(tmp_path / "again.h5ad")
    assert (adata.X != again.X).nnz == 0 and adata.obs.equals(again.obs)
    assert adata.shape == (300, 100) and 150 < adata.X.sum(axis=1).mean() < 250
    sizes = adata.obs["cell_type"].value_counts()
    assert list(sizes.index) == ["type 1", "type 2", "type 3"] and sizes.iloc[0] > 1.5 * sizes.iloc[1]


def test_simulated_counts_scatter_more_than_poisson():
    counts = np.vstack([block.toarray() for block, _ in simulation.cell_blocks(12_000, 40, 1, 400)])
    assert len(counts) == 12_000 and (counts.var(axis=0) > 1.5 * counts.mean(axis=0)).mean() > 0.5


def test_a_file_left_on_disk_gives_the_run_of_one_in_memory(large, tmp_path, monkeypatch, capsys, caplog):
    found = []
    for limit in (backed.IN_MEMORY_UP_TO, 1e-9):
        monkeypatch.setattr(backed, "IN_MEMORY_UP_TO", limit)
        flags = ["--dataset", large, *FAST, "--no-figures", "--output", tmp_path / f"{limit}"]
        with caplog.at_level(logging.INFO):
            assert run(runSC, monkeypatch, capsys, *flags)[0] == 0
        found.append(ad.read_h5ad(tmp_path / f"{limit}" / "result.h5ad"))
    in_memory, on_disk = found
    assert "its values stay on the disk" in caplog.text
    assert list(on_disk.obs["scrcl"]) == list(in_memory.obs["scrcl"])
    assert on_disk.n_vars == 60 and in_memory.n_vars == 100
    genes = on_disk.var_names
    assert np.allclose(on_disk.X.toarray(), in_memory[:, genes].X.toarray(), atol=1e-6)
    assert np.array_equal(on_disk.layers["counts"].toarray(), in_memory[:, genes].layers["counts"].toarray())


def test_a_backed_anndata_can_be_passed_from_a_notebook(large, fast):
    adata = ad.read_h5ad(large, backed="r")
    result = pipeline.find_cell_types(adata, **fast)
    assert adata.obs["scrcl"].notna().all() and adata.obsm["X_scrcl"].shape[0] == 300
    assert result.cells.n_vars == 60


def test_little_memory_leaves_more_files_on_disk(large, monkeypatch):
    monkeypatch.setattr(backed, "LEAST_SHARE", 1e9)
    assert not backed.is_backed(backed.read(large))
    assert backed.is_backed(backed.read(large, max_memory=1e-4))


def test_one_seed_beyond_a_number_of_cells_unless_more_are_asked_for(monkeypatch, caplog):
    assert SCConfig().with_seeds(50_000).seeds == [5, 15, 25, 35, 45]
    with caplog.at_level(logging.INFO):
        assert SCConfig().with_seeds(50_001).seeds == [5]
    assert "--seeds 5" in caplog.text
    assert SCConfig(seeds=3).with_seeds(10**6).seeds == [5, 15, 25]
    monkeypatch.setattr(config, "ONE_SEED_BEYOND", 100)
    result = pipeline.find_cell_types(simulate(), epochs=2, hidden=8, n_top_genes=60, n_pcs=10)
    assert result.config.seeds == [5] and result.seeds == ["seed_5"]


def test_umap_of_some_cells_and_its_figure(monkeypatch, fast):
    monkeypatch.setattr(pipeline, "UMAP_ON", 50)
    result = pipeline.find_cell_types(simulate(), **fast)
    pipeline.add_umap(result.cells)
    placed = np.isfinite(result.cells.obsm["X_umap"]).all(axis=1)
    assert placed.sum() == 50
    figure = figures.umap_figure(result.cells, result.prepared.known)
    assert all(len(axes.collections[0].get_offsets()) == 50 for axes in figure.axes[:3])


def test_one_seed_draws_and_prints_no_confidence(fast):
    for seeds, drawn in (([5], 0), ([5, 15], 1)):
        result = pipeline.find_cell_types(simulate(), **fast | {"seeds": seeds})
        pipeline.add_umap(result.cells)
        titles = [axes.get_title() for axes in figures.umap_figure(result.cells, result.prepared.known).axes]
        assert titles.count("confidence") == drawn and results.summary(result).count("Confidence:") == drawn


def test_figures_of_more_spots_than_the_umap_lays_out(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "UMAP_ON", 100)
    settings = {"epochs": 3, "seeds": [5], "hidden": 8, "n_top_genes": 60, "n_clusters": 4}
    result = pipeline.find_domains(simulation.layered_tissue(250, 100), **settings)
    pipeline.add_umap(result.cells)
    assert result.cells.obsp["connectivities"].shape == (250, 250)
    tissue_figures.draw(result, tmp_path)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("paga.png", "paga_compare.png", "umap.png"))


@pytest.mark.parametrize("flags", [["--max-memory", -1], ["--max-memory", "x"], ["--tf32", "--device", "cpu"]])
def test_flags_that_cannot_be_met_end_in_one_sentence(monkeypatch, capsys, flags):
    code, _, error = run(runSC, monkeypatch, capsys, *FAST, "--no-figures", *flags)
    assert code == 2 and error.splitlines()[-1].startswith("Error: ") and "Traceback" not in error


def test_too_little_memory_is_said_before_training(monkeypatch, capsys):
    code, _, error = run(runSC, monkeypatch, capsys, *FAST, "--no-figures", "--max-memory", 0.01)
    assert code == 2 and "--max-memory 0.01 is too little" in error


def test_tf32_holds_while_it_is_asked_for_and_no_longer():
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    with utils.matrix_products(torch.device("cuda"), tf32=True):
        assert products.fp32_precision == "tf32"
    assert products.fp32_precision == before
    with pytest.raises(UserError, match="CUDA"), utils.matrix_products(torch.device("cpu"), tf32=True):
        pass


@pytest.fixture(scope="module")
def sparse_cells(tmp_path_factory):
    """Cells of few counts, which differ more in how many they have than in their type."""
    path = tmp_path_factory.mktemp("sparse") / "cells.h5ad"
    simulation.write_cells(path, 600, 400, 4, mean_counts=100)
    return path


@pytest.mark.parametrize("on_disk", [False, True])
def test_cells_that_differ_most_in_depth_are_normalised_to_their_median(sparse_cells, fast, on_disk, caplog):
    adata = ad.read_h5ad(sparse_cells)
    totals = np.ravel(adata.X.sum(axis=1))
    with caplog.at_level(logging.INFO):
        given = ad.read_h5ad(sparse_cells, backed="r") if on_disk else adata
        found = pipeline.find_cell_types(given, **fast | {"n_top_genes": 400}).prepared
    assert found.values.endswith("normalised to the median") and "have their number as first PC" in caplog.text
    assert np.array_equal(found.cells.obs["scrcl_total"], totals)
    expected = np.log1p(adata[:, found.cells.var_names].X.toarray() * (np.median(totals) / totals)[:, None])
    assert np.allclose(found.cells.X.toarray(), expected, rtol=1e-4)
    assert preprocess.depth_in_first_pc(found.cells) < pipeline.DEPTH_IS_FIRST_PC


def test_many_counts_are_not_blown_up_further(sparse_cells, fast):
    adata = ad.read_h5ad(sparse_cells)
    adata.X.data *= 1000
    found = pipeline.find_cell_types(adata, **fast | {"n_top_genes": 400}).prepared
    assert "median" not in found.values and preprocess.depth_in_first_pc(found.cells) > pipeline.DEPTH_IS_FIRST_PC


def test_a_sum_that_is_asked_for_is_taken(sparse_cells, fast):
    adata = ad.read_h5ad(sparse_cells)
    found = pipeline.find_cell_types(adata, **fast | {"n_top_genes": 400}, target_sum=10_000).prepared
    assert "median" not in found.values and preprocess.depth_in_first_pc(found.cells) > pipeline.DEPTH_IS_FIRST_PC
    assert np.allclose(np.expm1(found.cells.X.toarray()).sum(axis=1), 10_000, rtol=1e-4)
