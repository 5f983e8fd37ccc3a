"""Graphs typed by hand, and what holds for every graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import graphs
from utils import UserError

LINE = np.array([[0.0], [1.0], [3.0], [7.0]])


def test_cell_graph_by_hand():
    """Points 0, 1, 3, 7 on a line, one neighbour besides themselves: 0-1, 1-0, 3-1, 7-3, taken both ways."""
    expected = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert np.array_equal(graphs.cell_graph(LINE, 2, "euclidean", seed=0).toarray(), expected)


def test_gene_graph_by_hand():
    """Columns at 0, 1, 3, 7: each points at itself and its nearest, and stays directed."""
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert np.array_equal(graphs.gene_graph(LINE.T, 2).toarray(), expected)


def test_normalised_by_hand():
    """In-degrees of the gene graph above are 2, 3, 2, 1; row n holds what n receives: B[g, n] / sqrt(d_g d_n)."""
    actual = graphs.normalised(graphs.gene_graph(LINE.T, 2)).toarray()
    six = 1 / np.sqrt(6)
    expected = [[1 / 2, six, 0, 0], [six, 1 / 3, six, 0], [0, 0, 1 / 2, 1 / np.sqrt(2)], [0, 0, 0, 1]]
    assert np.allclose(actual, expected)


def test_smoothing_by_hand():
    """Two linked cells and a lone one: one hop averages the pair and leaves the lone cell."""
    linked = sparse.csr_matrix([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    a_hat = graphs.normalised(graphs.with_self_loops(linked))
    assert np.allclose(graphs.smooth(np.array([[2.0], [4.0], [9.0]]), a_hat, 1).ravel(), [3, 3, 9])
    assert np.allclose(graphs.smooth(np.array([[2.0], [4.0], [9.0]]), a_hat, 0).ravel(), [2, 4, 9])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 1000), st.integers(6, 40), st.integers(2, 6), st.sampled_from(["euclidean", "cosine"]), st.booleans()
)
def test_every_cell_graph(seed, n, k, metric, duplicates):
    points = np.random.default_rng(seed).normal(size=(n, 5))
    if duplicates:
        points[1] = points[2] = points[0]
    graph = graphs.cell_graph(points, k, metric, seed=0)
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert set(graph.data) == {1}
    assert graph.getnnz(axis=1).min() >= k - 1


def test_approximate_search_agrees_with_exact(monkeypatch):
    points = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    exact = graphs.nearest_neighbors(points, 10, "euclidean", seed=0)
    monkeypatch.setattr(graphs, "EXACT_UP_TO", 100)
    approximate = graphs.nearest_neighbors(points, 10, "euclidean", seed=0)
    again = graphs.nearest_neighbors(points, 10, "euclidean", seed=0)
    assert (approximate != again).nnz == 0
    assert approximate.diagonal().sum() == 0
    assert exact.multiply(approximate).nnz > 0.95 * exact.nnz


def test_too_few_cells():
    with pytest.raises(UserError, match="4 cells, too few"):
        graphs.cell_graph(LINE, 5, "euclidean", seed=0)


def test_fewer_genes_than_gene_neighbours():
    assert graphs.gene_graph(LINE.T, 9).nnz == 16
    assert graphs.gene_graph(LINE[:, :1], 5).nnz == 1
