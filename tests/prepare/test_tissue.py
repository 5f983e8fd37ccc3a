"""Preparing spots: how much of a gene neighbours share."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from scrcl.prepare import graphs
from scrcl.prepare.tissue import morans_i, spatial_weights


def test_spatial_weights_by_hand():
    """On a line of six spots a step has I = 6/10 * 6/6, an alternating gene -1, and a constant one none."""
    path = sparse.diags([np.ones(5), np.ones(5)], [-1, 1], format="csr", dtype=np.float32)
    step, alternating = np.array([-1, -1, -1, 1, 1, 1.0]), np.array([1, -1, 1, -1, 1, -1.0])
    values = np.column_stack([step, alternating, np.zeros(6), np.arange(6) - 2.5]).astype(np.float32)
    expected_i = [6 / 10 * 6 / 6, -1, 0, 6 / 10 * 2 * sum((a - 2.5) * (a - 1.5) for a in range(5)) / 17.5]
    assert np.allclose(morans_i(path, values), expected_i, atol=1e-5)
    weights = spatial_weights(values, path)
    assert weights[1] == weights[2] == 0 and np.isclose(np.mean(weights**2), 1)
    assert np.isclose(weights[0] / weights[3], expected_i[0] / expected_i[3], atol=1e-4)
    assert (spatial_weights(values[:, 1:3], path) == 1).all()


def test_what_differs_between_sections_has_no_weight():
    rng = np.random.default_rng(0)
    places, sections = np.tile(rng.random((200, 2)), (2, 1)), np.repeat(["a", "b"], 200)
    graph = graphs.spatial_graph(places, "knn", 6, 0, sections)
    batch = rng.normal(size=400) + 5 * (sections == "b")
    values = np.column_stack([batch, places[:, 0]]).astype(np.float32)
    assert spatial_weights(values, graph)[0] > 0.5
    assert spatial_weights(values, graph, sections)[0] < 0.15
