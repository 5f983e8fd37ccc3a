"""What differs where data are large: reading from disk, one seed, a UMAP of some cells, memory that is limited."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import torch
from conftest import FAST, run, simulate

import scrcl
from scrcl import plot, recipes
from scrcl.analysis import analyse
from scrcl.commands.run import draw
from scrcl.contents.blocks import is_lazy
from scrcl.messages import UserError
from scrcl.plot import layout
from scrcl.prepare import cells as prepare_cells
from scrcl.prepare import genes
from scrcl.readers import h5ad, simulated
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.result import summary
from scrcl.runtime import tf32_products


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "cells.h5ad"
    simulated.write_cells(path, 300, 100, 3, mean_counts=200)
    return path


def test_simulated_cells_are_the_same_every_time_and_of_the_types_they_say(large, tmp_path):
    adata = ad.read_h5ad(large)
    simulated.write_cells(tmp_path / "again.h5ad", 300, 100, 3, mean_counts=200)
    again = ad.read_h5ad(tmp_path / "again.h5ad")
    assert (adata.X != again.X).nnz == 0 and adata.obs.equals(again.obs)
    assert adata.shape == (300, 100) and 150 < adata.X.sum(axis=1).mean() < 250
    sizes = adata.obs["cell_type"].value_counts()
    assert list(sizes.index) == ["type 1", "type 2", "type 3"] and sizes.iloc[0] > 1.5 * sizes.iloc[1]


def test_simulated_counts_scatter_more_than_poisson():
    counts = np.vstack([block.toarray() for block, _ in simulated.cell_blocks(12_000, 40, 1, 400)])
    assert len(counts) == 12_000 and (counts.var(axis=0) > 1.5 * counts.mean(axis=0)).mean() > 0.5


def test_a_file_left_on_disk_gives_the_run_of_one_in_memory(large, tmp_path, monkeypatch, capsys, caplog):
    found = []
    for limit in (h5ad.IN_MEMORY_UP_TO, 1e-9):
        monkeypatch.setattr(h5ad, "IN_MEMORY_UP_TO", limit)
        flags = ["--dataset", large, *FAST, "--no-figures", "--output", tmp_path / f"{limit}"]
        with caplog.at_level(logging.INFO):
            assert run("cells", capsys, *flags)[0] == 0
        found.append(ad.read_h5ad(tmp_path / f"{limit}" / "result.h5ad"))
    in_memory, on_disk = found
    assert "its values stay on the disk" in caplog.text
    assert list(on_disk.obs["scrcl"]) == list(in_memory.obs["scrcl"])
    assert on_disk.n_vars == 60 and in_memory.n_vars == 100
    kept = on_disk.var_names
    assert np.allclose(on_disk.X.toarray(), in_memory[:, kept].X.toarray(), atol=1e-6)
    assert np.array_equal(on_disk.layers["counts"].toarray(), in_memory[:, kept].layers["counts"].toarray())


def test_a_backed_anndata_can_be_passed_from_a_notebook(large, fast):
    adata, settings = ad.read_h5ad(large, backed="r"), {k: v for k, v in fast.items() if k not in ("seeds", "figures")}
    scrcl.find_cell_types(adata, n_seeds=1, **settings)
    assert adata.obs["scrcl"].notna().all() and adata.isbacked
    assert adata.obsm["X_scrcl"].shape[0] == 300 and adata.obsm["X_umap"].shape == (300, 2)
    assert analyse(ad.read_h5ad(large, backed="r"), CellSettings(**fast)).cells.n_vars == 60


def test_little_memory_leaves_more_files_on_disk(large, monkeypatch):
    monkeypatch.setattr(h5ad, "LEAST_SHARE", 1e9)
    assert not is_lazy(h5ad.read(large)) and not is_lazy(h5ad.read(large, max_memory=0))
    assert is_lazy(h5ad.read(large, max_memory=1e-4))


def test_one_seed_beyond_a_number_of_cells_unless_more_are_asked_for(monkeypatch, caplog):
    assert CellSettings().with_seeds(50_000).seeds == [5, 15, 25, 35, 45]
    with caplog.at_level(logging.INFO):
        assert CellSettings().with_seeds(50_001).seeds == [5]
    assert "--seeds 5" in caplog.text
    assert CellSettings(seeds=3).with_seeds(10**6).seeds == [5, 15, 25]
    monkeypatch.setattr(recipes, "ONE_SEED_BEYOND", 100)
    result = analyse(simulate(), CellSettings(epochs=2, hidden=8, n_top_genes=60, n_pcs=10))
    assert result.settings.seeds == [5] and result.seeds == ["seed_5"]


def test_umap_of_some_cells_and_its_figure(monkeypatch, fast):
    monkeypatch.setattr(layout, "UMAP_ON", 50)
    cells = analyse(simulate(), CellSettings(**fast)).cells
    layout.add_umap(cells)
    placed = np.isfinite(cells.obsm["X_umap"]).all(axis=1)
    assert placed.sum() == 50
    assert all(len(axes.collections[0].get_offsets()) == 50 for axes in plot.umap(cells).axes[:3])


def test_a_umap_of_some_cells_among_cells_without_counts(monkeypatch, fast):
    """Of 120 cells 2 have no count, and of the others 50 are laid out: in the caller's data 70 have no place."""
    monkeypatch.setattr(layout, "UMAP_ON", 50)
    adata, settings = simulate(), {k: v for k, v in fast.items() if k not in ("seeds", "figures")}
    adata.X = adata.X.toarray()
    adata.X[[0, 7]] = 0
    scrcl.find_cell_types(adata, n_seeds=1, **settings)
    placed = np.isfinite(adata.obsm["X_umap"]).all(axis=1)
    joined = adata.obsp["scrcl_neighbors_connectivities"].getnnz(axis=1) > 0
    assert placed.sum() == 50 and not placed[[0, 7]].any() and np.array_equal(placed, joined)
    assert len(plot.umap(adata).axes[0].collections[0].get_offsets()) == 50


def test_one_seed_draws_and_prints_no_agreement(fast):
    for seeds, drawn in (([5], 0), ([5, 15], 1)):
        result = analyse(simulate(), CellSettings(**fast | {"seeds": seeds}))
        layout.add_umap(result.cells)
        titles = [axes.get_title() for axes in plot.umap(result.cells).axes]
        assert titles.count("agreement") == drawn and summary(result).count("Agreement:") == drawn


def test_figures_of_more_spots_than_the_umap_lays_out(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "UMAP_ON", 100)
    settings = TissueSettings(epochs=3, seeds=[5], hidden=8, n_top_genes=60, n_clusters="4")
    cells = analyse(simulated.layered_tissue(250, 100), settings).cells
    layout.add_umap(cells)
    assert cells.obsp["connectivities"].shape == (250, 250)
    draw(cells, "ST", tmp_path)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("paga.png", "paga_compare.png", "umap.png"))


@pytest.mark.parametrize(
    "flags",
    [["--max-memory", -1], ["--max-memory", "x"], ["--tf32", "--device", "cpu"], ["--compile", "--device", "cpu"]],
)
def test_flags_that_cannot_be_met_end_in_one_sentence(capsys, flags):
    code, _, error = run("cells", capsys, *FAST, "--no-figures", *flags)
    assert code == 2 and error.splitlines()[-1].startswith("Error: ") and "Traceback" not in error


def test_too_little_memory_is_said_before_training(capsys):
    code, _, error = run("cells", capsys, *FAST, "--no-figures", "--max-memory", 0.01)
    assert code == 2 and "--max-memory 0.01 is too little" in error


def test_tf32_holds_while_it_is_asked_for_and_no_longer():
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    with tf32_products(torch.device("cuda"), wanted=True):
        assert products.fp32_precision == "tf32"
    assert products.fp32_precision == before
    with pytest.raises(UserError, match="CUDA"), tf32_products(torch.device("cpu"), wanted=True):
        pass


@pytest.fixture(scope="module")
def sparse_cells(tmp_path_factory):
    """Cells of few counts, which differ more in how many they have than in their type."""
    path = tmp_path_factory.mktemp("sparse") / "cells.h5ad"
    simulated.write_cells(path, 600, 400, 4, mean_counts=100)
    return path


@pytest.mark.parametrize("on_disk", [False, True])
def test_cells_that_differ_most_in_depth_are_normalised_to_their_median(sparse_cells, fast, on_disk, caplog):
    adata = ad.read_h5ad(sparse_cells)
    totals = np.ravel(adata.X.sum(axis=1))
    with caplog.at_level(logging.INFO):
        given = ad.read_h5ad(sparse_cells, backed="r") if on_disk else adata
        found = analyse(given, CellSettings(**fast | {"n_top_genes": 400})).prepared
    assert found.values.endswith("normalised to the median")
    assert "the first PC is only the number of counts" in caplog.text
    assert np.array_equal(found.cells.obs["scrcl_total"], totals)
    expected = np.log1p(adata[:, found.cells.var_names].X.toarray() * (np.median(totals) / totals)[:, None])
    assert np.allclose(found.cells.X.toarray(), expected, rtol=1e-4)
    assert genes.depth_in_first_pc(found.cells) < prepare_cells.DEPTH_IS_FIRST_PC


def test_many_counts_are_not_blown_up_further(sparse_cells, fast):
    adata = ad.read_h5ad(sparse_cells)
    adata.X.data *= 1000
    found = analyse(adata, CellSettings(**fast | {"n_top_genes": 400})).prepared
    assert "median" not in found.values
    assert genes.depth_in_first_pc(found.cells) > prepare_cells.DEPTH_IS_FIRST_PC


def test_a_sum_that_is_asked_for_is_taken(sparse_cells, fast):
    adata = ad.read_h5ad(sparse_cells)
    found = analyse(adata, CellSettings(**fast | {"n_top_genes": 400}, target_sum="10000")).prepared
    assert "median" not in found.values
    assert genes.depth_in_first_pc(found.cells) > prepare_cells.DEPTH_IS_FIRST_PC
    assert np.allclose(np.expm1(found.cells.X.toarray()).sum(axis=1), 10_000, rtol=1e-4)
