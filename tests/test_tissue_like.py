"""Tissue made of real cells is made of those cells, and is what was asked for."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from conftest import simulate
from scipy import sparse

from benchmarks import tissue_like
from benchmarks.tissue_like import LAYOUTS, Tissue, make
from scrcl.contents.labels import find_labels
from scrcl.keys import LABELS_OF_SPOTS
from scrcl.messages import UserError
from scrcl.readers import source

SMALL = Tissue(n_spots=300, n_domains=4)
CELLS = simulate(150, 80)


def dense(adata: ad.AnnData) -> np.ndarray:
    return adata.X.toarray()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_domains", [3, 8])
def test_every_layout_has_the_domains_asked_for(layout, n_domains):
    for seed in range(2):
        spots = make(CELLS, replace(SMALL, layout=layout, n_domains=n_domains, n_spots=250, seed=seed))
        sizes = spots.obs["ground_truth"].value_counts()
        assert sorted(sizes.index) == [f"D{i + 1}" for i in range(n_domains)]
        assert sizes.sum() == 250 and sizes.min() >= 4 and sizes.max() > sizes.min()


@pytest.mark.parametrize("grid", ["hexagonal", "square", "irregular"])
def test_every_grid_has_the_spots_asked_for(grid):
    places = make(CELLS, replace(SMALL, grid=grid)).obsm["spatial"]
    assert places.shape == (300, 2) and len(np.unique(places, axis=0)) == 300
    far = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(300)
    assert np.median(far.min(axis=0)) == pytest.approx(100, abs=0.01 if grid != "irregular" else 45)
    assert np.ptp(places, axis=0) == pytest.approx([1700, 1700], rel=0.15)


def test_the_same_seed_gives_the_same_bits():
    how = replace(SMALL, layout="islands", grid="irregular", cells=3, panel=40, depth=50, leak=0.1)
    one, same, other = make(CELLS, how), make(CELLS, how), make(CELLS, replace(how, seed=1))
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.X, part), getattr(same.X, part))
    np.testing.assert_array_equal(one.obsm["spatial"], same.obsm["spatial"])
    assert one.obs.equals(same.obs) and not one.obs.equals(other.obs)


def test_what_is_measured_leaves_the_tissue_as_it_is():
    one, thin = (make(CELLS, replace(SMALL, depth=depth, strength=0.3)) for depth in (0, 20))
    assert one.obs.equals(thin.obs) and one.obsm["cell_types"].equals(thin.obsm["cell_types"])


def test_a_spot_of_one_cell_is_that_cell():
    spots = make(CELLS, SMALL)
    types = {tuple(row): name for row, name in zip(dense(CELLS), CELLS.obs["cell_type1"])}
    found = [types[tuple(row)] for row in dense(spots)]
    assert found == list(spots.obsm["cell_types"].idxmax(axis=1)) and (spots.obsm["cell_types"].sum(axis=1) == 1).all()


def test_a_spot_of_several_cells_is_their_sum():
    cells = CELLS.copy()
    cells.X = np.eye(3, 80)[np.unique(cells.obs["cell_type1"], return_inverse=True)[1]]  # a type's one gene
    spots = make(cells, replace(SMALL, cells=6))
    np.testing.assert_array_equal(dense(spots)[:, :3], spots.obsm["cell_types"])
    n_cells = spots.obsm["cell_types"].sum(axis=1)
    assert n_cells.min() >= 1 and n_cells.mean() == pytest.approx(6, abs=0.5)


def test_domains_have_the_composition_asked_for(monkeypatch):
    asked = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    monkeypatch.setattr(tissue_like, "compositions", lambda *given: asked)
    spots = make(CELLS, Tissue(n_domains=2, n_spots=1500, cells=5, clumps=0))
    found = spots.obsm["cell_types"].groupby(spots.obs["ground_truth"], observed=True).sum()
    np.testing.assert_allclose(found.div(found.sum(axis=1), axis=0), asked, atol=0.03)


def test_domains_scatter_as_far_as_asked():
    draws = np.array([tissue_like.compositions(4, 40, 0.3, np.random.default_rng(i)) for i in range(200)])
    shared = draws.mean(axis=1)
    assert (draws.var(axis=1) / (shared * (1 - shared))).mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(draws.sum(axis=2), 1)


def test_a_gradient_passes_over_at_the_middle_between_centres():
    at = np.column_stack([np.zeros(1000), np.arange(1000)]) + 1.0
    weights = tissue_like.gradient(at, np.array([0.5, 0.3, 0.2]), np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert ((weights > 0).sum(axis=1) <= 2).all() and (weights.max(axis=1) >= 0.5).all()


def test_panels_depths_and_leaks():
    whole, panel = make(CELLS, SMALL), make(CELLS, replace(SMALL, panel=30))
    assert panel.n_vars == 30 and whole.n_vars == 80
    np.testing.assert_array_equal(dense(panel), dense(whole[:, panel.var_names]))
    thin = make(CELLS, replace(SMALL, depth=20))
    assert dense(thin).sum() / 300 == pytest.approx(20, rel=0.05) and (dense(thin) <= dense(whole)).all()
    leaked = make(CELLS, replace(SMALL, leak=0.2))
    np.testing.assert_array_equal(dense(leaked).sum(axis=0), dense(whole).sum(axis=0))
    stayed = np.minimum(dense(leaked), dense(whole)).sum() / dense(whole).sum()
    assert 0.8 <= stayed < 0.95


def test_what_leaks_is_found_in_the_nearest_spots():
    at = np.column_stack(np.divmod(np.arange(81), 9)).astype(float)
    counts = sparse.csr_matrix(([6000], ([40], [0])), shape=(81, 1))
    found = tissue_like.leaked(counts, 0.5, at, np.random.default_rng(0)).toarray()[:, 0]
    assert found[40] == pytest.approx(3000, abs=200) and found[[31, 39, 41, 49]] == pytest.approx(500, abs=100)
    assert (found > 0).sum() == 7 and found.sum() == 6000


def test_types_of_few_cells_are_left_out():
    cells = CELLS.copy()
    cells.obs["cell_type1"] = ["rare"] * 10 + list(cells.obs["cell_type1"][10:])
    assert "rare" not in make(cells, SMALL).obsm["cell_types"]


@pytest.mark.parametrize("fault", ["labels", "counts"])
def test_cells_without_labels_or_counts_are_refused(fault):
    cells = CELLS.copy()
    if fault == "labels":
        del cells.obs["cell_type1"]
    else:
        cells.X = cells.X * 0.5
    with pytest.raises(UserError, match="labelled cells with counts"):
        make(cells, SMALL)


def test_the_suite_is_varied():
    tissues = tissue_like.suite().values()
    assert {how.layout for how in tissues} == set(LAYOUTS) and {how.n_domains for how in tissues} == set(range(3, 9))
    assert len({how.seed for how in tissues}) == len(tissues) == 20
    assert all(250 <= how.n_spots <= 10_000 and how.panel in (0, *range(150, 1001)) for how in tissues)


def test_the_suite_is_written_as_a_run_reads_it(tmp_path, monkeypatch):
    CELLS.write_h5ad(tmp_path / "some.h5ad")
    simulate(100, 60).write_h5ad(tmp_path / "other.h5ad")
    few = {"a": SMALL, "b": replace(SMALL, panel=20)}
    monkeypatch.setattr(tissue_like, "suite", lambda: few)
    tissue_like.write_tissues([str(tmp_path / "some.h5ad"), str(tmp_path / "other.h5ad")], [], tmp_path / "to")
    spots = [source(str(tmp_path / "to" / f"{name}.h5ad"), "ST").read() for name in few]
    assert [part.shape for part in spots] == [(300, 80), (300, 20)]
    assert [part.uns["tissue_like"]["made_of"] for part in spots] == ["some", "other"]
    assert all(find_labels(part.obs, usual=LABELS_OF_SPOTS).nunique() == 4 for part in spots)


def annotated() -> ad.AnnData:
    """A section of 12 x 10 spots in two layers, some without a label, 50 units apart."""
    places = 50.0 * np.column_stack(np.divmod(np.arange(120), 10))
    layers = np.where(places[:, 0] < 300, "upper", "lower").astype(object)
    layers[:7] = np.nan
    section = ad.AnnData(np.ones((120, 1), dtype=np.float32), obsm={"spatial": places})
    section.obs["ground_truth"] = layers
    return section


def test_cells_are_laid_out_as_an_annotated_section(tmp_path):
    section = annotated()
    spots = make(CELLS, SMALL, section)
    assert list(spots.obs["ground_truth"]) == list(section.obs["ground_truth"][7:])
    np.testing.assert_allclose(spots.obsm["spatial"], 2 * section.obsm["spatial"][7:])  # neighbours are 100 um apart
    CELLS.write_h5ad(tmp_path / "cells.h5ad")
    section.write_h5ad(tmp_path / "section.h5ad")
    tissue_like.write_tissues([str(tmp_path / "cells.h5ad")], [str(tmp_path / "section.h5ad")], tmp_path / "to")
    assert source(str(tmp_path / "to" / "section.h5ad"), "ST").read().shape == (113, 80)
    assert len({replace(tissue_like.like(i), seed=0) for i in range(9)}) == 9


def test_a_section_without_labels_is_refused():
    section = annotated()
    del section.obs["ground_truth"]
    with pytest.raises(UserError, match="needs labels"):
        make(CELLS, SMALL, section)
