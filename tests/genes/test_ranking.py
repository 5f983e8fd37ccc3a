"""Ranking by hand-typed numbers, against scanpy's own filter, and odd clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from grouped import grouped, simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scrcl.genes import ranking
from scrcl.genes.ranking import GROUP, at_a_glance, drawn_for_a_glance, rank
from scrcl.messages import UserError


def test_statistics_by_hand():
    cells = grouped([[3, 0], [4, 0], [5, 2], [0, 1], [1, 1], [2, 1]], ["a"] * 3 + ["b"] * 3, ["up", "down"])
    table = rank(cells).table.set_index(["group", "names"])
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
    found = rank(cells, min_in_group_fraction=inside, max_out_group_fraction=outside, min_fold_change=change)
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
    found = rank(cells, method=method, max_out_group_fraction=1)
    own = np.array_split(cells.var_names[:40], n_types)
    for i, (name, genes) in enumerate(found.table.groupby("group", observed=True)):
        assert name == f"type {i}" and set(genes["names"].head(5)) <= set(own[i])
        assert genes["scores"].is_monotonic_decreasing and len(genes) == cells.n_vars
        assert set(found.top[name]) <= set(own[i]) and len(found.top[name]) >= 5
        assert genes["pvals"].isna().all() == (method == "logreg")


def test_top_genes_are_ordered_by_fold_change_and_may_be_elsewhere():
    # 'leaked' is in every cell and far higher in a; 'own' only in a, lower
    values = [[6, 2.0], [6.5, 2.1], [6.2, 2.2], [2, 0], [2.1, 0], [2.2, 2.05]]
    found = rank(grouped(values, ["a"] * 3 + ["b"] * 3, ["leaked", "own"]), max_out_group_fraction=0.5)
    assert found.top["a"] == ["leaked", "own"] and found.specific["a"] == ["own"]
    listed = found.listed(1).set_index(["group", "names"])
    assert listed.loc[("a", "leaked"), "top_rank"] == 1 and pd.isna(listed.loc[("a", "leaked"), "specific_rank"])
    assert listed.loc[("a", "own"), "specific_rank"] == 1 and listed.loc[("a", "own"), "rank"] == 2
    assert found.drawn(3) == {"a": ["own"], "b": ["own", "leaked"]}  # of b none passes: its first ones


def test_genes_at_a_glance_are_the_top_ones_by_t_test(monkeypatch):
    cells = simulated()
    top = rank(cells, method="t-test").top
    assert at_a_glance(cells, GROUP) == {name: genes[:4] for name, genes in top.items()}
    monkeypatch.setattr(ranking, "MOST_AT_A_GLANCE", 60)  # of 120 cells
    own = dict(zip(top, np.array_split(cells.var_names[:40], 3)))
    few = drawn_for_a_glance(cells)
    assert few.n_obs == 60 and list(few.obs_names) == list(drawn_for_a_glance(cells).obs_names)
    found = at_a_glance(few, GROUP, n_genes=2)
    assert all(len(genes) == 2 and set(genes) <= set(own[name]) for name, genes in found.items())
    assert list(found) == list(top)


def test_nothing_at_a_glance_where_there_is_nothing_to_compare():
    cells = grouped([[1, 0], [2, 1], [0, 3]], ["a", "a", "b"], ["one", "other"])
    assert list(at_a_glance(cells, GROUP)) == ["a"]  # b is a single cell
    assert at_a_glance(cells[:2], GROUP) == {} == at_a_glance(cells[1:], GROUP)


def test_some_groups_are_tested_against_all_other_cells():
    cells = simulated()
    every, one = rank(cells).table, rank(cells, groups=["type 1"]).table
    expected = every[every["group"] == "type 1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, expected, check_categorical=False)
    logistic = rank(cells, groups=["type 1"], method="logreg").table
    assert set(logistic["group"]) == {"type 1"} and logistic["names"][0] in cells.var_names[14:27]


def test_a_cluster_of_one_cell_is_not_tested_but_counts_among_the_others(caplog):
    cells = simulated()
    names = cells.obs[GROUP].astype(str)
    names.iloc[0] = "alone"
    cells.obs[GROUP] = names.astype("category")
    for method in ("wilcoxon", "logreg"):
        found = rank(cells, method=method)
        assert found.untested == ["alone"] and "alone" not in found.specific and len(found.specific) == 3
    with pytest.raises(UserError, match="single cell"):
        rank(cells, groups=["alone"])


def test_a_cluster_without_any_gene_that_passes(caplog):
    caplog.set_level("INFO", "scrcl")
    found = rank(simulated(), max_out_group_fraction=0)
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
        rank(cells, groups=wanted)


def test_the_callers_cells_stay_as_they_are():
    cells = simulated()
    before = cells.copy()
    rank(cells)
    assert (cells.X != before.X).nnz == 0 and list(cells.uns) == list(before.uns)


def test_infinite_scores_are_as_large_as_the_largest_finite_one():
    cells = simulated()
    dense = cells.X.toarray()
    dense[:, 79] = np.where(cells.obs[GROUP] == "type 1", 5, 0)  # no variance in or outside: an infinite t
    cells.X = sparse.csr_matrix(dense)
    table = rank(cells, method="t-test").table
    assert np.isfinite(table["scores"]).all()
    assert table[table["group"] == "type 1"]["names"].iloc[0] == "gene-79"


def test_clusters_called_all(caplog):
    with pytest.raises(UserError, match="no cluster 'all'"):
        rank(simulated(), groups=["all", "type 1"])
