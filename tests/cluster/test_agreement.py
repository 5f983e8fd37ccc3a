"""How well labels agree with a graph of the cells."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import cohen_kappa_score

from scrcl.cluster.agreement import agreement_with_graph


def path_graph(n: int) -> sparse.csr_matrix:
    return sparse.diags([np.ones(n - 1), np.ones(n - 1)], [-1, 1]).tocsr()


def test_agreement_with_a_graph_by_hand():
    """The path a-b-c-d, labels 0011: 2 of 3 edges are within, half would be by chance: (2/3 - 1/2) / (1 - 1/2)."""
    assert np.isclose(agreement_with_graph(np.array([0, 0, 1, 1]), path_graph(4)), 1 / 3)
    assert np.isclose(agreement_with_graph(np.array([0, 1, 0, 1]), path_graph(4)), -1)
    assert agreement_with_graph(np.zeros(4, dtype=int), path_graph(4)) == 0
    assert agreement_with_graph(np.array([0, 0, 1, 1]), sparse.csr_matrix((4, 4))) == 0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(6, 40), k=st.integers(2, 6))
def test_agreement_with_a_graph_is_kappa_of_the_ends_of_its_edges(seed, n, k):
    rng = np.random.default_rng(seed)
    graph = sparse.random(n, n, 0.3, random_state=rng, format="csr")
    graph = ((graph + graph.T) > 0).astype(np.float32)
    labels = np.append(np.arange(k), rng.integers(0, k, n - k))
    row, column = graph.nonzero()
    if len(set(labels[row])) > 1:
        expected = cohen_kappa_score(labels[row], labels[column])
        assert np.isclose(agreement_with_graph(labels, graph), expected, atol=1e-6)
