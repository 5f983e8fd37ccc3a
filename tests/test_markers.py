"""Ranking and naming by hand-typed numbers, against scanpy's own filter, and odd clusters."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import marker_figures
import markers
import report
import score
from markers import GROUP
from utils import UserError


def grouped(values: list[list[float]], groups: list[str], genes: list[str]) -> ad.AnnData:
    """Log-normalised values with clusters, as rank takes them."""
    names = [f"cell-{i}" for i in range(len(values))]
    obs = pd.DataFrame({GROUP: pd.Categorical(groups, sorted(set(groups)))}, index=names)
    return ad.AnnData(sparse.csr_matrix(np.array(values, dtype=np.float32)), obs=obs, var=pd.DataFrame(index=genes))


def simulated(n_types: int = 3, n_cells: int = 120) -> ad.AnnData:
    """Log-normalised simulated cells; the markers of type 0 are gene-0 and so on, of type 1 those after them."""
    cells = simulate(n_cells=n_cells, n_types=n_types)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.obs[GROUP] = cells.obs["cell_type1"].astype("category")
    return cells


def test_statistics_by_hand():
    cells = grouped([[3, 0], [4, 0], [5, 2], [0, 1], [1, 1], [2, 1]], ["a"] * 3 + ["b"] * 3, ["up", "down"])
    table = markers.rank(cells).table.set_index(["group", "names"])
    up = table.loc[("a", "up")]
    assert up["scores"] == pytest.approx((15 - 3 * 7 / 2) / np.sqrt(3 * 3 * 7 / 12), rel=1e-6)  # ranks 4, 5, 6
    assert up["pvals"] == pytest.approx(0.0495346, rel=1e-5)
    assert up["pvals_adj"] == pytest.approx(2 * 0.0495346, rel=1e-5)  # Benjamini-Hochberg, the smaller of two
    assert up["logfoldchanges"] == pytest.approx(np.log2(np.expm1(4) / np.expm1(1)), rel=1e-5)
    assert (up["pct_nz_group"], up["pct_nz_reference"]) == pytest.approx((1, 2 / 3))
    assert table.loc[("b", "up"), "scores"] == pytest.approx(-up["scores"])
    assert list(table.loc["a"].index) == ["up", "down"] and list(table.loc["b"].index) == ["down", "up"]


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(-2, 3))
def test_filter_is_scanpys(inside, outside, change):
    cells = simulated()
    found = markers.rank(cells, min_in_group_fraction=inside, max_out_group_fraction=outside, min_fold_change=change)
    sc.tl.rank_genes_groups(cells, GROUP, method="wilcoxon", use_raw=False, pts=True)
    sc.tl.filter_rank_genes_groups(
        cells, min_in_group_fraction=inside, max_out_group_fraction=outside, min_fold_change=change
    )
    for name, own in found.specific.items():
        filtered = cells.uns["rank_genes_groups_filtered"]["names"][name]
        assert own == [gene for gene in filtered if isinstance(gene, str)]


@pytest.mark.parametrize("method", ["wilcoxon", "t-test", "logreg"])
@pytest.mark.parametrize("n_types", [2, 3])
def test_every_method_finds_the_simulated_markers(method, n_types):
    cells = simulated(n_types)
    found = markers.rank(cells, method=method, max_out_group_fraction=1)
    own = np.array_split(cells.var_names[:40], n_types)
    for i, (name, genes) in enumerate(found.table.groupby("group", observed=True)):
        assert name == f"type {i}" and set(genes["names"].head(5)) <= set(own[i])
        assert genes["scores"].is_monotonic_decreasing and len(genes) == cells.n_vars
        assert set(found.top[name]) <= set(own[i]) and len(found.top[name]) >= 5
        assert genes["pvals"].isna().all() == (method == "logreg")


def test_top_genes_are_ordered_by_fold_change_and_may_be_elsewhere():
    # 'leaked' is in every cell and far higher in a; 'own' only in a, lower
    values = [[6, 2.0], [6.5, 2.1], [6.2, 2.2], [2, 0], [2.1, 0], [2.2, 2.05]]
    found = markers.rank(grouped(values, ["a"] * 3 + ["b"] * 3, ["leaked", "own"]), max_out_group_fraction=0.5)
    assert found.top["a"] == ["leaked", "own"] and found.specific["a"] == ["own"]
    listed = found.listed(1).set_index(["group", "names"])
    assert listed.loc[("a", "leaked"), "top_rank"] == 1 and pd.isna(listed.loc[("a", "leaked"), "specific_rank"])
    assert listed.loc[("a", "own"), "specific_rank"] == 1 and listed.loc[("a", "own"), "rank"] == 2
    assert found.drawn(3) == {"a": ["own"], "b": ["own", "leaked"]}  # of b none passes: its first ones


def test_some_groups_are_tested_against_all_other_cells():
    cells = simulated()
    every, one = markers.rank(cells).table, markers.rank(cells, groups=["type 1"]).table
    expected = every[every["group"] == "type 1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, expected, check_categorical=False)
    logistic = markers.rank(cells, groups=["type 1"], method="logreg").table
    assert set(logistic["group"]) == {"type 1"} and logistic["names"][0] in cells.var_names[14:27]


def test_a_cluster_of_one_cell_is_not_tested_but_counts_among_the_others(caplog):
    cells = simulated()
    names = cells.obs[GROUP].astype(str)
    names.iloc[0] = "alone"
    cells.obs[GROUP] = names.astype("category")
    for method in ("wilcoxon", "logreg"):
        found = markers.rank(cells, method=method)
        assert found.untested == ["alone"] and "alone" not in found.specific and len(found.specific) == 3
    with pytest.raises(UserError, match="single cell"):
        markers.rank(cells, groups=["alone"])


def test_a_cluster_without_any_gene_that_passes(caplog):
    caplog.set_level("INFO", "scrcl")
    found = markers.rank(simulated(), max_out_group_fraction=0)
    assert not any(found.specific.values()) and "No gene passes the filter in 3 clusters" in caplog.text
    assert all(len(genes) == 2 for genes in found.drawn(2).values())


@pytest.mark.parametrize(
    "groups, wanted, says",
    [
        (["a"] * 6, ["all"], "one cluster, 'a'"),
        (["a", "a", "a", "b", "b", "b"], ["c"], "no cluster 'c' to test; there are a, b"),
        (list("abcdef"), ["all"], "6 different values for 6 cells"),
    ],
)
def test_nothing_to_compare(groups, wanted, says):
    cells = grouped(np.arange(12).reshape(6, 2).tolist(), groups, ["x", "y"])
    with pytest.raises(UserError, match=says):
        markers.rank(cells, groups=wanted)


def test_the_callers_cells_stay_as_they_are():
    cells = simulated()
    before = cells.copy()
    markers.rank(cells)
    assert (cells.X != before.X).nnz == 0 and list(cells.uns) == list(before.uns)


def test_names_by_hand():
    cells = grouped([[3, 0], [3, 0], [0, 1], [0, 3], [0, 4], [0, 4]], list("aabbcc"), ["x", "y"])
    named = markers.name_clusters(cells, {"X cell": ["x"], "Y cell": ["y"], "both": ["x", "y"]})
    assert list(named["name"]) == ["X cell", "unknown", "Y cell"]
    # pairs of a cell in the cluster and one outside: x of b ties with 2 of 4 and is lower than 2; y of b wins half
    assert list(named["score of X cell"]) == pytest.approx([1, -0.5, -0.5])
    assert list(named["score of Y cell"]) == pytest.approx([-1, 0, 1], abs=1e-6)
    assert list(named["score of both"]) == pytest.approx([0, -0.25, 0.25], abs=1e-6)
    assert list(named["runner_up"]) == ["both", "both", "both"]
    assert list(named["margin"]) == pytest.approx([1, 0.25, 0.75])
    alone = markers.name_clusters(cells, {"X cell": ["x"]})
    assert list(alone["name"]) == ["X cell", "unknown", "unknown"] and alone["margin"].isna().all()


def test_a_few_cells_do_not_name_the_cluster_that_they_are_lost_in():
    rng = np.random.default_rng(0)
    common, rare = np.r_[np.full(40, 5.0), np.zeros(60)], np.r_[np.full(4, 5.0), np.zeros(96)]
    cells = grouped(np.c_[common, rare, rng.random(100)].tolist(), ["a"] * 40 + ["b"] * 60, ["x", "y", "z"])
    assert markers.name_clusters(cells, {"rare": ["y"], "common": ["x"]}).loc["a", "name"] == "common"


def test_a_table_of_markers(tmp_path, caplog):
    path = tmp_path / "known.csv"
    path.write_text("Gene,Type\nins,beta\nIAPP,beta\nGCG,alpha\n gcg ,alpha\nFOO,odd\n,beta\n")
    genes = pd.Index(["INS", "IAPP", "GCG", "Gcg"])
    assert markers.read_marker_genes(path, genes) == {"beta": ["INS", "IAPP"], "alpha": ["GCG"]}
    assert "No marker is in the data for odd" in caplog.text
    with pytest.raises(UserError, match="None of the 5 genes .* named like x1, x2, x3"):
        markers.read_marker_genes(path, pd.Index(["x1", "x2", "x3", "x4"]))
    path.write_text("Type;gene\nbeta;INS\n")
    assert markers.read_marker_genes(path, genes) == {"beta": ["INS"]}
    path.write_text("Type,type,gene\nbeta,beta,INS\n")
    with pytest.raises(UserError, match="columns type and gene"):
        markers.read_marker_genes(path, genes)
    path.write_text("cell,gene\nbeta,INS\n")
    with pytest.raises(UserError, match="has the columns cell, gene; a table of markers has columns type and gene"):
        markers.read_marker_genes(path, genes)


def test_names_of_genes(caplog):
    ids = pd.Index([f"ENSG0000000000{i}" for i in range(4)])
    symbols = pd.Series(["INS", "GCG", "GCG", None], index=ids)
    beside = pd.DataFrame({"gene_symbols": symbols})
    assert list(markers.gene_names(beside)) == ["INS", "GCG", "GCG-1", ids[3]]
    assert list(markers.gene_names(beside, "none")) == list(ids)
    named = pd.DataFrame({"gene_name": ["a", "b"], "other": ["c", "d"]}, index=["INS", "GCG"])
    assert list(markers.gene_names(named)) == ["INS", "GCG"] and list(markers.gene_names(named, "other")) == ["c", "d"]
    with pytest.raises(UserError, match="no var column 'nothing'; the columns are gene_name, other"):
        markers.gene_names(named, "nothing")
    assert "no names" not in caplog.text
    markers.gene_names(pd.DataFrame(index=["g0", "g1", "g2"]))
    assert "The genes have no names, only numbers such as g0" in caplog.text


def test_largest_overlaps_by_hand():
    predicted = pd.Series(["0", "0", "0", "1", "1", "2", "2"])
    known = pd.Series(["A", "A", "B", "B", None, None, None])
    table = score.largest_overlaps(predicted, known)
    assert list(table.index) == ["0", "1"] and list(table["known_type"]) == ["A", "B"]
    assert list(table["n_cells"]) == [3, 1] and list(table["n_overlap"]) == [2, 1]
    assert list(table["jaccard"]) == pytest.approx([2 / 3, 1 / 2])
    assert list(table["share_of_cluster"]) == pytest.approx([2 / 3, 1])
    assert list(table["share_of_type"]) == pytest.approx([1, 1 / 2])


def test_parts_of_groups():
    cells = grouped([[i] for i in range(9)], list("aaaaaabbc"), ["x"])
    assert list(marker_figures.at_most_per_group(cells, 2).obs[GROUP].value_counts(sort=False)) == [2, 2, 1]
    equal = marker_figures.equal_groups(cells, 4)
    assert list(equal.obs[GROUP].value_counts(sort=False)) == [4, 4, 4] and equal.obs_names.is_unique
    assert list(equal.X.toarray().ravel()[4:]) == [6, 6, 7, 7, 8, 8, 8, 8]
    first = equal.X.toarray().ravel()[:4]
    assert len(set(first)) == 4 and list(first) == sorted(first)


def test_cells_of_a_table():
    frame = pd.DataFrame({"gene": ["<b>", None], "in cluster": [0.5, np.nan], "n": pd.array([3, None], dtype="Int64")})
    shown = report.table(frame)
    assert shown["columns"] == [("gene", False), ("in cluster", True), ("n", True)]
    assert [cell.text for row in shown["rows"] for cell in row] == ["<b>", "50.0%", "3", "", "", ""]
    assert [cell.value for cell in shown["rows"][0]] == ["<b>", "0.5", "3.0"]


def test_infinite_scores_are_as_large_as_the_largest_finite_one():
    cells = simulated()
    dense = cells.X.toarray()
    dense[:, 79] = np.where(cells.obs[GROUP] == "type 1", 5, 0)  # no variance in or outside: an infinite t
    cells.X = sparse.csr_matrix(dense)
    table = markers.rank(cells, method="t-test").table
    assert np.isfinite(table["scores"]).all()
    assert table[table["group"] == "type 1"]["names"].iloc[0] == "gene-79"


def test_clusters_called_all(caplog):
    with pytest.raises(UserError, match="no cluster 'all'"):
        markers.rank(simulated(), groups=["all", "type 1"])
