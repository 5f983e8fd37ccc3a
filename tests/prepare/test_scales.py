"""Means over neighbourhoods of several sizes: by hand, dense against linear, sections, and many spots in patches."""

from __future__ import annotations

import numpy as np
import pytest

from scrcl.prepare import scales


def grid(side: int) -> np.ndarray:
    """Spots on a square grid whose distances from a spot all differ."""
    x, y = np.meshgrid(np.arange(float(side)), np.arange(float(side)))
    return np.column_stack([x.ravel() ** 1.003, y.ravel() ** 1.005 * 1.01])


def dense_mean(points: np.ndarray, places: np.ndarray, n_nearest: int) -> np.ndarray:
    """The mean over the spots nearest to each, by all pairs."""
    away = np.linalg.norm(places[:, None] - places, axis=-1)
    return points[np.argsort(away, axis=1)[:, :n_nearest]].mean(axis=1)


def test_a_wide_mean_is_over_a_share_of_the_section():
    points, places = np.random.default_rng(0).normal(size=(900, 3)).astype(np.float32), grid(30)
    found = scales.wide_mean(points, places)
    assert found.dtype == np.float32
    assert np.allclose(found, dense_mean(points, places, 1 + 900 // 25), atol=1e-5)


def test_a_wide_mean_of_few_spots_is_over_two_rings():
    points, places = np.random.default_rng(0).normal(size=(49, 3)), grid(7)
    assert np.allclose(scales.wide_mean(points, places), dense_mean(points, places, 1 + 18))
    assert np.allclose(scales.wide_mean(points[:5], places[:5]), points[:5].mean(axis=0))  # fewer spots than two rings


@pytest.mark.parametrize("side, wide", [(20, False), (22, True)])  # 1/25 of the spots are 16 and 19
def test_many_spots_have_a_scale_more(side, wide):
    points = np.random.default_rng(0).normal(size=(side**2, 4)).astype(np.float32)
    assert scales.at_scales(points, grid(side)).shape[1] == 4 * (4 if wide else 3)
    assert scales.at_scales(points, grid(side), wide=False).shape[1] == 4 * 3
    found = scales.at_scales(points, grid(side), rings=())
    alone = [points, scales.wide_mean(points, grid(side))] if wide else [points]
    assert np.isclose(found.var(axis=0).sum(), len(alone), rtol=1e-4)


def test_each_section_has_its_own_share():
    points, places = np.random.default_rng(0).normal(size=(1300, 2)), np.vstack([grid(30), grid(20)])
    sections = np.repeat(["large", "small"], [900, 400])
    found = scales.wide_mean(points, places, sections)
    assert np.allclose(found[:900], scales.wide_mean(points[:900], grid(30)))
    assert np.allclose(found[900:], dense_mean(points[900:], grid(20), 1 + 18))


def test_many_spots_are_counted_in_patches(monkeypatch):
    places = grid(60)
    points = np.sin(places / 10) + np.random.default_rng(0).normal(size=(3600, 2))
    exact = scales.wide_mean(points, places)
    monkeypatch.setattr(scales, "PATCHES", 200)
    monkeypatch.setattr(scales, "ROWS", 1000)  # also in several steps
    found = scales.wide_mean(points, places)
    assert not np.allclose(found, exact)  # about as many spots, not the same
    assert np.corrcoef(found[:, 0], exact[:, 0])[0, 1] > 0.99
    assert np.isclose(found.std(axis=0), exact.std(axis=0), rtol=0.1).all()
