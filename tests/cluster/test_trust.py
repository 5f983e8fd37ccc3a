"""How far each cluster can be trusted, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.cluster import trust


def cliques(*sizes: int) -> sparse.csr_matrix:
    """A graph of groups in which everyone is joined with everyone, and with nobody outside."""
    return sparse.block_diag([np.ones((n, n)) - np.eye(n) for n in sizes], format="csr", dtype=np.float32)


def joined(graph: sparse.csr_matrix, *edges: tuple[int, int]) -> sparse.csr_matrix:
    """The graph with further edges."""
    graph = graph.tolil()
    for one, other in edges:
        graph[one, other] = graph[other, one] = 1
    return graph.tocsr()


def table(labels: list[int], agreement: list[float], graph: sparse.csr_matrix) -> pd.DataFrame:
    names = [f"cell-{i}" for i in range(len(labels))]
    return trust.table(pd.Series(labels, names).astype(str), pd.Series(agreement, names, dtype=np.float32), graph)


def test_two_clear_clusters():
    found = table([0, 0, 0, 1, 1], [1, 1, 0.7, 1, 1], cliques(3, 2))
    assert list(found.index) == ["0", "1"] and found.index.name == "cluster"
    assert list(found) == ["size", "agreement", "nearest", "support", "verdict"]
    assert found["size"].tolist() == [3, 2] and np.allclose(found["agreement"], [0.9, 1])
    assert found["nearest"].tolist() == ["", "0"] and found["verdict"].tolist() == ["clear", "clear"]
    assert np.isnan(found.loc["0", "support"]) and found.loc["1", "support"] == 1


def test_a_cut_through_one():
    """Six cells, all joined, cut in halves: 12 of 30 edge ends stay within, by chance it is half: (.4 - .5) / .5."""
    found = table([0, 0, 0, 1, 1, 1, 2, 2], [1] * 8, cliques(6, 2))
    assert np.allclose(found["support"], [np.nan, -0.2, 1], equal_nan=True)
    assert found["nearest"].tolist() == ["", "0", "0"]  # of those as far apart, the first
    assert found["verdict"].tolist() == ["clear", "doubtful: may be part of cluster 0", "clear"]


def test_the_nearest_is_told_apart_least_and_not_joined_most():
    """Cluster 2, a pair, has one edge to each of two larger ones, which are cliques of 3 and 4.

    With 0: 14 of 16 ends stay within, of which 13 and 3 are in each; (14/16 - (13^2 + 3^2)/16^2) / (1 - ...) = 23/39.
    With 1: 8 of 10, of which 7 and 3; (8/10 - 58/100) / (42/100) = 11/21.
    """
    graph = joined(cliques(4, 3, 2), (7, 0), (8, 4))
    found = table([0, 0, 0, 0, 1, 1, 1, 2, 2], [1] * 9, graph)
    assert found.loc["2", "nearest"] == "1" and np.isclose(found.loc["2", "support"], 11 / 21)
    assert found["verdict"].tolist() == ["clear"] * 3


def test_agreement_times_support_decides_at_one_half():
    """The clusters are 11/21 apart, so an agreement of 21/22 is one half."""
    graph = joined(cliques(3, 2), (3, 0))
    for agreement, verdict in ((0.96, "clear"), (0.95, "doubtful: may be part of cluster 0")):
        found = table([0, 0, 0, 1, 1], [1, 1, 1, agreement, agreement], graph)
        assert np.isclose(found.loc["1", "support"], 11 / 21) and found["verdict"].tolist() == ["clear", verdict]


def test_without_agreement_the_support_decides():
    nothing = [np.nan] * 8
    found = table([0, 0, 0, 1, 1, 1, 2, 2], nothing, cliques(6, 2))
    assert found["agreement"].isna().all()
    assert found["verdict"].tolist() == ["clear", "doubtful: may be part of cluster 0", "clear"]


def test_the_largest_is_part_of_none():
    found = table([0, 0, 0, 1, 1], [0.4, 0.4, 0.4, 1, 1], cliques(3, 2))
    assert found["verdict"].tolist() == ["doubtful", "clear"]


def test_a_single_cluster():
    found = table([0, 0, 0], [1, 1, 1], cliques(3))
    assert found.loc["0"].tolist()[:3] == [3, 1, ""] and np.isnan(found.loc["0", "support"])
    assert found.loc["0", "verdict"] == "clear"


def test_numbers_that_smoothing_has_emptied_or_reordered():
    """Clusters keep their names, in numeric order; the larger of two is told by its size."""
    found = table([10, 10, 10, 2, 2], [1] * 5, cliques(3, 2))
    assert list(found.index) == ["2", "10"] and found["size"].tolist() == [2, 3]
    assert found["nearest"].tolist() == ["10", ""]


def test_cells_without_neighbours():
    found = table([0, 0, 1], [1] * 3, sparse.csr_matrix((3, 3)))
    assert found.loc["1"].tolist() == [1, 1, "0", 0, "doubtful: may be part of cluster 0"]


def test_the_tree_joins_first_what_is_told_apart_least():
    """Clusters of 4, 3 and 2 as above: 1 and 2 are 11/21 apart, 0 and 2 are 23/39, 0 and 1 fully.

    Then 0 is joined with 1+2 by one edge: of 24 ends 13 and 11 are in each, and 22 stay within.
    """
    graph = joined(cliques(4, 3, 2), (7, 0), (8, 4))
    found = trust.tree(pd.Series(list("000011122")), graph)
    by_chance = (13**2 + 11**2) / 24**2
    assert found[["one", "other"]].to_numpy().tolist() == [["1", "2"], ["0", "1+2"]]
    assert np.allclose(found["support"], [11 / 21, (22 / 24 - by_chance) / (1 - by_chance)])


def test_the_tree_of_one_cluster_has_no_steps():
    found = trust.tree(pd.Series(list("0000")), cliques(4))
    assert found.empty and list(found) == ["one", "other", "support"]


def test_so_many_clusters_have_no_tree(monkeypatch):
    monkeypatch.setattr(trust, "MOST_IN_TREE", 2)
    assert len(trust.tree(pd.Series(list("001122")), cliques(2, 2, 2))) == 0
