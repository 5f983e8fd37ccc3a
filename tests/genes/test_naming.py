"""Names of clusters by hand-typed numbers, and names of genes as people read them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from grouped import grouped

from scrcl.contents.gene_names import gene_names
from scrcl.genes.naming import name_clusters
from scrcl.messages import UserError


def test_names_by_hand():
    cells = grouped([[3, 0], [3, 0], [0, 1], [0, 3], [0, 4], [0, 4]], list("aabbcc"), ["x", "y"])
    named = name_clusters(cells, {"X cell": ["x"], "Y cell": ["y"], "both": ["x", "y"]})
    assert list(named["name"]) == ["X cell", "unknown", "Y cell"]
    # pairs of a cell in the cluster and one outside: x of b ties with 2 of 4 and is lower than 2; y of b wins half
    assert list(named["score of X cell"]) == pytest.approx([1, -0.5, -0.5])
    assert list(named["score of Y cell"]) == pytest.approx([-1, 0, 1], abs=1e-6)
    assert list(named["score of both"]) == pytest.approx([0, -0.25, 0.25], abs=1e-6)
    assert list(named["runner_up"]) == ["both", "both", "both"]
    assert list(named["margin"]) == pytest.approx([1, 0.25, 0.75])
    alone = name_clusters(cells, {"X cell": ["x"]})
    assert list(alone["name"]) == ["X cell", "unknown", "unknown"] and alone["margin"].isna().all()


def test_a_few_cells_do_not_name_the_cluster_that_they_are_lost_in():
    rng = np.random.default_rng(0)
    common, rare = np.r_[np.full(40, 5.0), np.zeros(60)], np.r_[np.full(4, 5.0), np.zeros(96)]
    cells = grouped(np.c_[common, rare, rng.random(100)].tolist(), ["a"] * 40 + ["b"] * 60, ["x", "y", "z"])
    assert name_clusters(cells, {"rare": ["y"], "common": ["x"]}).loc["a", "name"] == "common"


def test_names_of_genes(caplog):
    ids = pd.Index([f"ENSG0000000000{i}" for i in range(4)])
    symbols = pd.Series(["INS", "GCG", "GCG", None], index=ids)
    beside = pd.DataFrame({"gene_symbols": symbols})
    assert list(gene_names(beside)) == ["INS", "GCG", "GCG-1", ids[3]]
    assert list(gene_names(beside, "none")) == list(ids)
    named = pd.DataFrame({"gene_name": ["a", "b"], "other": ["c", "d"]}, index=["INS", "GCG"])
    assert list(gene_names(named)) == ["INS", "GCG"] and list(gene_names(named, "other")) == ["c", "d"]
    with pytest.raises(UserError, match="no var column 'nothing'; the columns are gene_name, other"):
        gene_names(named, "nothing")
    assert "numbers such as" not in caplog.text
    gene_names(pd.DataFrame(index=["g0", "g1", "g2"]))
    assert "The genes have" in caplog.text and "numbers such as g0" in caplog.text


def test_names_in_doubt_end_with_a_question_mark():
    """A lead of less than 0.1, or a score of less than 0.2."""
    rng = np.random.default_rng(0)
    labels = ["a"] * 50 + ["b"] * 50
    clear, also, faint = np.r_[rng.normal(3, 1, 50), rng.normal(0, 1, 50)], None, rng.normal(0, 1, 100)
    also = clear + rng.normal(0, 0.1, 100)
    cells = grouped(np.c_[clear, also, faint].tolist(), labels, ["x", "y", "z"])
    assert name_clusters(cells, {"X": ["x"], "Z": ["z"]}).loc["a", "name"] == "X"
    assert name_clusters(cells, {"X": ["x"], "Y": ["y"]}).loc["a", "name"] in ("X?", "Y?")
    named = name_clusters(cells, {"Z": ["z"]})
    assert set(named["name"]) == {"Z?", "unknown"}
