"""What is clustered, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scrcl.cluster.embedding import embedding, shortened_rows, to_unit_variance
from scrcl.method.training import Embedded


def unit_variance(points: np.ndarray) -> np.ndarray:
    scaled = points.copy()
    to_unit_variance(scaled)
    return scaled


def test_joint_embedding_by_hand():
    """Two columns that vary by 1 and 3 about their mean: a total variance of 10 becomes 1."""
    points = np.array([[1.0, 3.0], [-1.0, -3.0]]) + 5
    assert np.allclose(unit_variance(points), np.array([[1, 3], [-1, -3]]) / np.sqrt(10))
    found = Embedded(points, points[:, :1], lengths=np.ones((2, 2)))
    assert np.allclose(embedding(found, points, "joint"), np.hstack(2 * [unit_variance(points)]))
    assert embedding(found, points, "refined") is found.refined
    swapped = embedding(found, points, "refined", np.array([1, 0]))
    assert np.array_equal(swapped, found.refined[::-1])


@pytest.mark.parametrize("order", [None, np.array([2, 0, 1])])
def test_every_choice_by_hand(order):
    """Row i of what was trained is of the cell order[i]; the PCs stand in the order of the cells."""
    rng = np.random.default_rng(0)
    encoder, refined, pcs = rng.normal(size=(3, 4)), rng.normal(size=(3, 2)), rng.normal(size=(3, 5))
    found = Embedded(encoder, refined, lengths=np.array([[1.0, 3], [2, 1], [4, 1]]))
    by_cell = slice(None) if order is None else np.argsort(order)
    short = shortened_rows(encoder, found.lengths)[by_cell]
    expected = {
        "pcs": pcs,
        "encoder": encoder[by_cell],
        "refined": refined[by_cell],
        "joint": np.hstack([unit_variance(short), unit_variance(pcs)]),
        "joint-or-pcs": np.hstack([unit_variance(short), unit_variance(pcs)]),
        "joint-refined": np.hstack([unit_variance(refined[by_cell]), unit_variance(pcs)]),
    }
    for choice, points in expected.items():
        assert np.allclose(embedding(found, pcs, choice, order), points), choice


def test_short_rows_stay_short():
    """H1 of lengths 1, 2 and 4, of which 2 is the median: 1 / sqrt(1 + 4), 2 / sqrt(4 + 4), 4 / sqrt(16 + 4).

    H2 is 0 for most cells.
    """
    directions = np.array([[1.0, 0, 0.6, 0.8], [0.6, -0.8, 0, 0], [0, 1, 0, 0]])
    found = shortened_rows(directions, np.array([[1.0, 3], [2, 0], [4, 0]]))
    first = np.array([1 / np.sqrt(5), 2 / np.sqrt(8), 4 / np.sqrt(20)])[:, None]
    assert np.allclose(found[:, :2], directions[:, :2] * first)
    assert np.array_equal(found[:, 2:], directions[:, 2:])
