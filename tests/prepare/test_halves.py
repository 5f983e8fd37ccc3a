"""Cells described by halves of the genes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scrcl.cluster.number import estimate
from scrcl.prepare import cells, halves, scales, tissue
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.runtime import Stopwatch
from tests.conftest import simulate

FEW = {"n_top_genes": 60, "n_pcs": 30}


@pytest.fixture
def spots():
    adata = simulate(90)
    adata.obsm["spatial"] = np.random.default_rng(0).random((90, 2))
    return tissue.prepare(adata, TissueSettings(**FEW), Stopwatch())


def test_halves_are_pcs_of_genes_that_the_other_half_does_not_have():
    prepared = cells.prepare(simulate(), CellSettings(**FEW), Stopwatch())
    found = halves.described(prepared, "SC")
    assert np.array_equal(found.whole, prepared.cells.obsm["X_pca"][:, :20])
    assert len(found.halves) == 2 and all(half.shape == (120, 20) for pair in found.halves for half in pair)
    for pair in found.halves:  # which genes a half has: those that its PCs explain best
        explained = [_explained(half, prepared.inputs) for half in pair]
        assert 25 < (explained[0] > explained[1]).sum() < 35
    assert not np.array_equal(found.halves[0][0], found.halves[1][0])


def _explained(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of the variance of each column of values that a linear model of the points explains."""
    left = values - points @ np.linalg.lstsq(points, values, rcond=None)[0]
    return 1 - (left**2).sum(axis=0) / (values**2).sum(axis=0)


@pytest.mark.parametrize("n_genes", [2, 3, 5])
def test_a_handful_of_genes_has_halves_too(n_genes):
    adata = simulate(60, n_genes)
    adata.obsm["spatial"] = np.random.default_rng(0).random((60, 2))
    for task, prepare, settings in (("SC", cells, CellSettings()), ("ST", tissue, TissueSettings())):
        prepared = prepare.prepare(adata, settings, Stopwatch())
        for block in (0, 30):
            assert len(halves.described(dataclasses.replace(prepared, block=block), task).halves) == 2
        assert estimate(prepared, settings).n >= 2


def test_the_seed_decides():
    prepared = cells.prepare(simulate(), CellSettings(**FEW), Stopwatch())
    first, again, other = (halves.described(prepared, "SC", seed).halves[0][0] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_of_many_cells_a_random_part_is_described(monkeypatch):
    monkeypatch.setattr(halves, "MOST_CELLS", 50)
    found = halves.described(cells.prepare(simulate(), CellSettings(**FEW), Stopwatch()), "SC")
    assert len(found.whole) == 50 and {len(half) for pair in found.halves for half in pair} == {50}


def test_spots_are_described_with_their_rings_but_not_the_wide_mean(spots, monkeypatch):
    monkeypatch.setattr(scales, "WIDE", 0.5)
    found = halves.described(spots, "ST")
    expected = scales.at_scales(spots.cells.obsm["X_pca"][:, :20], spots.cells.obsm["spatial"], wide=False)
    assert np.array_equal(found.whole, expected) and found.halves[0][0].shape[0] == 90


def test_spots_in_blocks_are_described_alike(spots):
    dense, sparse = (halves.described(dataclasses.replace(spots, block=block), "ST") for block in (0, 30))
    for one, other in zip(dense.halves, sparse.halves):
        assert np.allclose(np.abs(one[0][:, 0]), np.abs(other[0][:, 0]), atol=1e-3)
