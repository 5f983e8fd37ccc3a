"""Sparse features less an offset: all that is asked of them is as of the dense matrix that they stand for."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from scrcl.prepare import graphs
from scrcl.prepare.features import Features
from scrcl.prepare.genes import principal_components
from scrcl.prepare.tissue import spatial_weights


def random_features(seed: int, n_cells: int, n_genes: int, density: float) -> Features:
    values = sparse.random(n_cells, n_genes, density, "csr", np.float32, random_state=seed)
    return Features(values, np.random.default_rng(seed).normal(size=n_genes).astype(np.float32))


def dense(features: Features) -> np.ndarray:
    return features.values.toarray() - features.offset


def test_features_know_their_sums_and_parts():
    features = random_features(4, 5000, 20, 0.1)  # two blocks
    x = dense(features).astype(np.float64)
    assert np.allclose(features.gram, x.T @ x, rtol=1e-5, atol=1e-3)
    assert np.allclose(features.mean, x.mean(axis=0), atol=1e-6)
    assert np.allclose(features.spread(), np.ptp(x, axis=0), atol=1e-6)
    assert np.allclose(features.columns(np.array([3, 1])), x[:, [3, 1]])
    assert np.allclose(dense(features[np.array([4999, 7])]), x[[4999, 7]])
    weights = np.linspace(0, 2, 20).astype(np.float32)
    assert np.allclose(dense(features.weighted(weights)), x * weights, atol=1e-6)
    assert np.isclose(features.density, 0.1, rtol=0.01)


def test_components_gene_graph_and_spatial_weights_of_both_forms_agree():
    features = random_features(5, 400, 30, 0.2).weighted(0.8 ** np.arange(30))  # variances well apart
    x = dense(features)
    pcs, expected = (principal_components(values, 4) for values in (features, x))
    assert np.allclose(np.abs(pcs), np.abs(expected), atol=1e-3)
    assert (graphs.gene_graph(features, 5) != graphs.gene_graph(x, 5)).nnz == 0
    places = np.random.default_rng(0).random((400, 2))
    graph, sections = graphs.spatial_graph(places, "knn", 6, 0.0), np.arange(400) % 2
    weights = [spatial_weights(values, graph, sections) for values in (features, x)]
    assert np.allclose(*weights, atol=1e-4)


def test_cells_in_another_order_have_the_same_sums():
    features = random_features(6, 50, 8, 0.3)
    order = np.random.default_rng(0).permutation(50)
    assert not {"mean", "gram"} & vars(features.reordered(order)).keys()  # nothing is summed up for it
    features.mean, features.gram  # noqa: B018  # are remembered from here on
    other = features.reordered(order)
    assert np.array_equal(dense(other), dense(features)[order])
    assert other.mean is features.mean and other.gram is features.gram
    assert np.allclose(features.times(np.eye(8)), dense(features))
