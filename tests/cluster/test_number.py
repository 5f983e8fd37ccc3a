"""The number of clusters: as asked for, of the known labels, or estimated without any label."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scrcl.cluster import number
from scrcl.cluster.number import Number, choose, information, number_of, shared_information
from scrcl.messages import UserError
from scrcl.prepare.halves import Described
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import CellSettings


def blobs(sizes: list[int], n_halves: int = 2, apart: float = 12) -> Described:
    """Cells in blobs of these sizes, which all descriptions show, each with noise of its own."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    whole, *halves = (rng.normal(size=(len(truth), 20)) + apart * np.eye(20)[truth] for _ in range(1 + 2 * n_halves))
    return Described(whole, list(zip(halves[::2], halves[1::2])))


@pytest.mark.parametrize("sizes", [[15, 15], [60, 60], [60] * 4, [60] * 9, [300, 30, 30, 30], [500, 20]])
def test_number_of_clusters_of_blobs_is_estimated(sizes):
    assert number_of(information(blobs(sizes))) == len(sizes)


def test_one_blob_is_not_cut_into_many():
    assert number_of(information(blobs([300], apart=0))) == 2


def test_few_cells_have_a_number_of_clusters():
    curve = information(blobs([2, 2]))
    assert list(curve["n_clusters"]) == [2] and number_of(curve) == 2


def test_shared_information_by_hand():
    """ln 2 of two halves that agree, minus 1/3 ln 2, since a third of all ways to draw 2 and 2 of 4 cells agree."""
    one = np.array([0, 0, 1, 1])
    assert shared_information(one, one) == pytest.approx(2 / 3 * np.log(2))
    assert shared_information(one, np.array([0, 1, 0, 1])) == pytest.approx(-1 / 3 * np.log(2))
    assert shared_information(one, np.zeros(4, dtype=int)) == pytest.approx(0)


def test_the_number_that_holds_what_is_shared_by_hand():
    """1.2 nats are shared at most; 3 clusters hold 1.0 and 5 hold 1.4, so 4 hold it."""
    curve = pd.DataFrame({"n_clusters": [2, 3, 5, 8], "shared": [0.5, 0.9, 1.2, 1.1], "held": [0.7, 1.0, 1.4, 2.0]})
    assert number_of(curve) == 4
    assert number_of(curve.assign(shared=-0.1)) == 2


def test_partitions_are_tried_up_to_five_times_the_estimate():
    tried = list(information(blobs([60] * 4))["n_clusters"])
    assert tried[-2] < 20 <= tried[-1]


def test_labels_are_smoothed_before_they_are_compared():
    """Where all cells of a blob vote on each other's labels, no cluster is finer than a blob."""
    cells = blobs([60] * 4)
    same_blob = np.kron(np.eye(4), np.ones((60, 60)))
    smooth, rough = (information(cells, graph) for graph in (sparse.csr_matrix(same_blob), None))
    assert smooth["held"].max() < 1.3 * np.log(4) < 1.5 * np.log(4) < rough["held"].max()


def prepared(known: list[str] | None = None) -> Prepared:
    """Sixty cells, as far as their number of clusters needs them."""
    points = blobs([15] * 4).whole
    cells = ad.AnnData(obsm={"X_pca": points})
    labels = None if known is None else pd.Series(known, index=cells.obs_names, name="mine")
    return Prepared(cells, points, points, labels, "counts, in X")


def test_the_number_is_chosen_in_this_order(monkeypatch):
    monkeypatch.setattr(number, "described", lambda prepared, task, seed: blobs([15] * 4))
    known = [*"ab" * 29, None, None]
    assert choose(prepared(known), CellSettings(n_clusters=5)) == Number(5, "as asked for")
    words = "the number of known labels in obs['mine'], as the published protocol does"
    assert choose(prepared(known), CellSettings()) == Number(2, words)
    for unknown in (None, ["a"] * 60):  # a single known label says nothing of their number
        found = choose(prepared(unknown), CellSettings())
        assert found[:2] == (4, "estimated without labels") and number_of(found.curve) == 4
    with pytest.raises(UserError, match="61 clusters were asked for, but there are only 60 cells"):
        choose(prepared(), CellSettings(n_clusters=61))
