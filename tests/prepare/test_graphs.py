"""Graphs typed by hand, and what holds for every graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scrcl.messages import UserError
from scrcl.prepare import graphs

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


@pytest.mark.parametrize("library", ["faiss", "pynndescent"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_approximate_search_agrees_with_exact(monkeypatch, caplog, library, metric):
    caplog.set_level("INFO")
    monkeypatch.setattr(graphs, "has_faiss", lambda: library == "faiss")
    points = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    exact = graphs.nearest_neighbors(points, 10, metric, seed=0)
    monkeypatch.setattr(graphs, "EXACT_UP_TO", 100)
    monkeypatch.setattr(graphs, "QUERIES", 250)
    approximate = graphs.nearest_neighbors(points, 10, metric, seed=0)
    again = graphs.nearest_neighbors(points, 10, metric, seed=0)
    assert f"({library})" in caplog.text
    assert (approximate != again).nnz == 0
    assert approximate.diagonal().sum() == 0
    assert exact.multiply(approximate).nnz > 0.95 * exact.nnz


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_on_a_card_agrees_with_exact(monkeypatch, metric):
    """The same code on a CPU, 50 rows at a time and far from the origin."""
    points = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32) + np.float32(30)
    exact = graphs.nearest_neighbors(points.astype(np.float64), 10, metric, seed=0)
    monkeypatch.setattr(graphs, "PAIRS_AT_ONCE", 50 * 600)
    found = graphs._exact(points, 10, metric, "cpu")
    assert [len(set(row)) for row in found] == [11] * 600
    assert all(set(row) == {*exact[i].indices, i} for i, row in enumerate(found))


def test_too_few_cells():
    with pytest.raises(UserError, match="4 cells, too few"):
        graphs.cell_graph(LINE, 5, "euclidean", seed=0)


def test_fewer_genes_than_gene_neighbours():
    assert graphs.gene_graph(LINE.T, 9).nnz == 16
    assert graphs.gene_graph(LINE[:, :1], 5).nnz == 1


# Spots: the corners of a unit square, one spot far to the right, and one alone

SPOTS = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1.1], [5, 0], [40, 40]])


def edges(graph: sparse.csr_matrix) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in zip(*graph.nonzero()) if i < j}


def test_spatial_knn_by_hand():
    """One neighbour, itself not counted: 0-1 and 1-0, 2-0, 3-2, 4-1, 5-4 (0 has 1 and 2 equally near)."""
    graph = graphs.spatial_graph(SPOTS[[0, 1, 3, 4, 5]], "knn", 1, 0)
    assert edges(graph) == {(0, 1), (1, 2), (1, 3), (3, 4)}
    assert (graph != graph.T).nnz == 0 and set(graph.data) == {1}


def test_spatial_radius_by_hand_with_isolated_spots(caplog):
    caplog.set_level("INFO")
    graph = graphs.spatial_graph(SPOTS, "radius", 9, 1.2)
    assert edges(graph) == {(0, 1), (0, 2), (1, 3), (2, 3)}
    assert "2 spots have none" in caplog.text
    assert np.allclose(graphs.normalised(graphs.with_self_loops(graph)).toarray()[4:, 4:], np.eye(2))


def test_spatial_delaunay_by_hand():
    """The diagonal 1-2 is the shorter one of the four corners; the radius takes the long edges away."""
    graph = graphs.spatial_graph(SPOTS[:4], "delaunay", 9, 0)
    assert edges(graph) == {(0, 1), (0, 2), (1, 3), (2, 3), (1, 2)}
    assert edges(graphs.spatial_graph(SPOTS, "delaunay", 9, 1.2)) == {(0, 1), (0, 2), (1, 3), (2, 3)}


@pytest.mark.parametrize("how", ["knn", "radius", "delaunay"])
def test_no_edge_joins_two_sections(how):
    """The same square twice in the same place: each keeps its own graph."""
    spots, sections = np.repeat(SPOTS[:4], 2, axis=0), np.array(["a", "b"] * 4)
    graph = graphs.spatial_graph(spots, how, 2, 1.2, sections)
    alone = graphs.spatial_graph(SPOTS[:4], how, 2, 1.2)
    for name in "ab":
        assert (graph[sections == name][:, sections == name] != alone).nnz == 0
    assert graph[sections == "a"][:, sections == "b"].nnz == 0


def test_sections_smaller_than_the_neighbourhood():
    sections = np.array(["a", "a", "a", "a", "a", "b"])
    graph = graphs.spatial_graph(SPOTS, "knn", 15, 0, sections)
    assert list(graph.getnnz(axis=1)) == [4, 4, 4, 4, 4, 0]


def test_graphs_of_space_that_cannot_be_built():
    with pytest.raises(UserError, match="needs --radius.*within 1"):
        graphs.spatial_graph(SPOTS, "radius", 9, 0)
    with pytest.raises(UserError, match="cannot be triangulated"):
        graphs.spatial_graph(np.column_stack([LINE, LINE]), "delaunay", 9, 0)


def test_neighbour_mean_by_hand():
    graph = sparse.csr_matrix([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert np.allclose(graphs.neighbour_mean(np.array([[2.0], [4.0], [9.0]]), graph).ravel(), [3, 3, 9])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(5, 40), st.integers(1, 6), st.integers(2, 3))
def test_every_spatial_graph(seed, n, k, dimensions):
    points = np.random.default_rng(seed).normal(size=(n, dimensions))
    graph = graphs.spatial_graph(points, "knn", k, 0)
    assert (graph != graph.T).nnz == 0 and graph.diagonal().sum() == 0 and graph.getnnz(axis=1).min() >= min(k, n - 1)
    directed = graphs.nearest_spots(points, k)
    assert (directed.getnnz(axis=1) == min(k, n - 1)).all() and directed.diagonal().sum() == 0
