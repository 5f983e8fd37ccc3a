"""Parts of points are compact and of equal size, and hold each point once."""

from __future__ import annotations

import numpy as np

from scrcl.prepare import halving
from scrcl.runtime import limited_threads


def test_parts_are_small_compact_and_hold_every_point_once():
    points = np.random.default_rng(0).uniform(size=(1000, 2))
    parts = halving.parts(points, 10)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert max(map(len, parts)) <= 10 and min(map(len, parts)) >= 5
    assert max(np.ptp(points[part], axis=0).max() for part in parts) < 0.4  # of a side of 1
    alike = halving.parts(np.zeros((9, 2)), 2)  # points in one place
    assert max(map(len, alike)) <= 2 and sum(map(len, alike)) == 9
    assert [list(part) for part in halving.parts(points[:3], 5)] == [[0, 1, 2]]


def test_near_points_are_near_in_the_order():
    """Groups far apart come one after the other, whichever order they are given in."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(8), 300))
    points = rng.normal(size=(2400, 5)) + 50 * rng.normal(size=(8, 5))[group]
    order = halving.near_order(points)
    assert np.array_equal(np.sort(order), np.arange(2400))
    assert (np.diff(group[order]) != 0).sum() < 8 * 8


def test_the_order_does_not_depend_on_the_number_of_threads():
    points, found = np.random.default_rng(0).normal(size=(30_000, 50)).astype(np.float32), []
    for threads in (1, 2):
        with limited_threads(threads):
            found.append(halving.near_order(points))
    assert np.array_equal(*found)
