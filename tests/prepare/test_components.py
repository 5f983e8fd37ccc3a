"""Principal components in blocks of rows, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from scrcl.prepare import components


@pytest.mark.parametrize("rows", [7, 60, 100])
def test_components_are_those_of_scikit_learn_up_to_their_signs(rows, monkeypatch):
    monkeypatch.setattr(components, "ROWS", rows)
    points = np.random.default_rng(0).normal(size=(60, 9)).astype(np.float32) * np.arange(1, 10) + 3
    found = components.components(points, 4, "cpu")
    asked = PCA(4, svd_solver="full").fit_transform(points.astype(np.float64))
    assert np.allclose(found * np.sign((found * asked).sum(axis=0)), asked, atol=1e-9)


def test_an_axis_points_where_its_largest_entry_is_positive():
    axes = components.principal_axes(np.diag([1.0, 9.0, 4.0]), 2)
    assert np.allclose(axes, [[0, 0], [1, 0], [0, 1]])
