"""Cells described by halves of the genes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scrcl.prepare import cells, genes, halves, tissue
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.runtime import Stopwatch
from tests.conftest import simulate

FEW = {"n_top_genes": 60, "n_pcs": 30}


@pytest.fixture
def spots():
    adata = simulate(90)
    adata.obsm["spatial"] = np.random.default_rng(0).random((90, 2))
    return tissue.prepare(adata, TissueSettings(**FEW), Stopwatch())


def test_halves_are_pcs_of_genes_that_no_other_half_has(monkeypatch):
    prepared = cells.prepare(simulate(), CellSettings(**FEW), Stopwatch())
    seen = []
    monkeypatch.setattr(genes, "principal_components", lambda values, n_pcs: seen.append(values) or values[:, :n_pcs])
    found = halves.described(prepared, "SC")
    assert np.array_equal(found.whole, prepared.cells.obsm["X_pca"][:, :20])
    assert len(found.halves) == 2 and all(half.shape == (120, 20) for pair in found.halves for half in pair)
    for one, other in (seen[:2], seen[2:]):
        both = np.hstack([one, other])
        order = [int(np.flatnonzero((both == column[:, None]).all(axis=0))[0]) for column in prepared.inputs.T]
        assert sorted(order) == list(range(60))
    assert not np.array_equal(seen[0], seen[2])


def test_the_seed_decides():
    prepared = cells.prepare(simulate(), CellSettings(**FEW), Stopwatch())
    first, again, other = (halves.described(prepared, "SC", seed).halves[0][0] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_of_many_cells_a_random_part_is_described(monkeypatch):
    monkeypatch.setattr(halves, "MOST_CELLS", 50)
    found = halves.described(cells.prepare(simulate(), CellSettings(**FEW), Stopwatch()), "SC")
    assert len(found.whole) == 50 and {len(half) for pair in found.halves for half in pair} == {50}


def test_spots_are_described_at_three_scales(spots):
    found = halves.described(spots, "ST")
    expected = tissue.at_scales(spots.cells.obsm["X_pca"][:, :20], spots.cells.obsm["spatial"])
    assert np.array_equal(found.whole, expected) and found.halves[0][0].shape[0] == 90


def test_spots_in_blocks_are_described_alike(spots):
    dense, sparse = (halves.described(dataclasses.replace(spots, block=block), "ST") for block in (0, 30))
    for one, other in zip(dense.halves, sparse.halves):
        assert np.allclose(np.abs(one[0][:, 0]), np.abs(other[0][:, 0]), atol=1e-3)
