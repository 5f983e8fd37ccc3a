"""The number of clusters: as asked for, of the known labels, or estimated without any label."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scrcl.cluster import number
from scrcl.cluster.methods import leiden
from scrcl.cluster.number import Number, choose
from scrcl.messages import UserError
from scrcl.prepare import graphs
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import CellSettings, TissueSettings


def blobs(n: int = 150, n_blobs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(n) % n_blobs
    return rng.normal(size=(n, 30)) + 12 * np.eye(30)[truth], truth


@pytest.mark.parametrize(("n_blobs", "size"), [(2, 12), (2, 60), (4, 60), (9, 12), (9, 60)])
def test_number_of_clusters_of_blobs_is_estimated(n_blobs, size):
    points, _ = blobs(size * n_blobs, n_blobs)
    graph = graphs.cell_graph(points, 15, "euclidean", seed=0)
    assert number.estimate_of_cells(points, graph, 0) == n_blobs
    if size > 15:
        assert number.estimate_n_clusters(points, graph, 0) == n_blobs


@pytest.mark.parametrize(("n_cells", "how"), [(14, "two"), (15, "leiden"), (499, "leiden"), (500, "graph")])
def test_the_number_of_few_cells_is_that_of_leiden(monkeypatch, n_cells, how):
    monkeypatch.setattr(number, "estimate_n_clusters", lambda points, graph, seed, enough: "graph")
    monkeypatch.setattr(leiden, "at_resolution", lambda graph, resolution, seed: np.arange(graph.n_obs) % 3)
    points, _ = blobs(n_cells, 3)
    mixed = sparse.csr_matrix(np.ones((n_cells, n_cells), dtype=np.float32))
    apart = sparse.csr_matrix((np.arange(n_cells)[:, None] - np.arange(n_cells)) % 3 == 0).astype(np.float32)
    assert number.estimate_of_cells(points, apart, 0) == {"two": 2, "leiden": 3, "graph": "graph"}[how]
    assert number.estimate_of_cells(points, mixed, 0) == {"two": 2, "leiden": 2, "graph": "graph"}[how]


def test_enough_agreement_by_hand():
    """2000 / 625 = 3.2, 3.2^0.6 = 2.0095: twice the disagreement."""
    assert [round(number.enough_agreement(n), 3) for n in (10**6, 2000, 625)] == [0.85, 0.85, 0.699]


def test_one_blob_is_not_cut_into_many():
    points = np.random.default_rng(0).normal(size=(300, 30))
    assert number.estimate_n_clusters(points, graphs.cell_graph(points, 15, "euclidean", seed=0), seed=0) == 2


def test_few_cells_have_a_number_of_clusters():
    points = np.random.default_rng(0).normal(size=(4, 3))
    assert number.estimate_n_clusters(points, sparse.csr_matrix(np.ones((4, 4)) - np.eye(4)), seed=0) == 2


def test_unconfirmed_clusters_are_merged_by_hand():
    """Clusters 0 and 1 share 4 of 10 edge ends each, 2 shares none: two of three stay, with all of the edges."""
    between = np.array([[6.0, 4.0, 0.0], [4.0, 6.0, 0.0], [0.0, 0.0, 10.0]])
    assert number._merge_unconfirmed(between).tolist() == [[20, 0], [0, 10]]
    assert number._merge_unconfirmed(np.diag([5.0, 5.0])).tolist() == [[5, 0], [0, 5]]


def prepared(known: list[str] | None = None) -> Prepared:
    """Sixty cells in four blobs, as far as their number of clusters needs them."""
    points, _ = blobs(60, 4)
    cells = ad.AnnData(obsm={"X_pca": points})
    cells.obsp["scrcl_graph"] = graphs.cell_graph(points, 15, "euclidean", seed=0)
    labels = None if known is None else pd.Series(known, index=cells.obs_names, name="mine")
    return Prepared(cells, points, points, labels, "counts, in X")


def test_the_number_is_chosen_in_this_order():
    known = [*"ab" * 29, None, None]
    assert choose(prepared(known), CellSettings(n_clusters=5)) == Number(5, "as asked for")
    words = "the number of known labels in obs['mine'], as the published protocol does"
    assert choose(prepared(known), CellSettings()) == Number(2, words)
    for unknown in (None, ["a"] * 60):  # a single known label says nothing of their number
        assert choose(prepared(unknown), CellSettings()) == Number(4, "estimated without labels")
    with pytest.raises(UserError, match="61 clusters were asked for, but there are only 60 cells"):
        choose(prepared(), CellSettings(n_clusters=61))


def test_cells_and_spots_have_estimates_of_their_own(monkeypatch):
    monkeypatch.setattr(number, "ESTIMATES", {"SC": lambda *data: 3, "ST": lambda *data: 7})
    assert choose(prepared(), CellSettings()).n == 3 and choose(prepared(), TissueSettings()).n == 7
