"""The ranking as a notebook calls it: on the values as they are, with scanpy's own table left behind."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import simulate

import scrcl
from scrcl.genes import ranking


def labelled(adata: ad.AnnData) -> ad.AnnData:
    """Raw counts with clusters as a run writes them."""
    adata.obs["scrcl"] = pd.Categorical(adata.obs["cell_type1"].str[-1])
    return adata


def log_normalised(adata: ad.AnnData) -> ad.AnnData:
    cells = adata.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


STATISTICS = ["names", "scores", "logfoldchanges", "pvals", "pvals_adj"]


@pytest.mark.parametrize("method", ["wilcoxon", "t-test", "logreg"])
def test_counts_are_ranked_as_their_logarithms_and_stay(method):
    adata = labelled(simulate())
    before = adata.copy()
    found = scrcl.rank_markers(adata, groupby="scrcl", method=method)
    expected = ranking.rank(log_normalised(before), "scrcl", method=method)
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert (found.top, found.specific, found.untested) == (expected.top, expected.specific, expected.untested)
    assert adata.X.dtype == before.X.dtype and (adata.X != before.X).nnz == 0 and not adata.layers
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert set(adata.uns) == {"rank_genes_groups"}


@pytest.mark.parametrize("groups", [["all"], ["1"], ["2", "0"]])
def test_scanpy_reads_what_is_left_behind(groups):
    adata = labelled(simulate())
    found = scrcl.rank_markers(adata, groupby="scrcl", groups=groups)
    read = sc.get.rank_genes_groups_df(adata, group=None)
    if "group" not in read:  # scanpy leaves it out where there is one
        read.insert(0, "group", groups[0])
    pd.testing.assert_frame_equal(read[["group", *STATISTICS]], found.table[["group", *STATISTICS]], check_dtype=False,
                                  check_categorical=False)  # fmt: skip
    assert adata.uns["rank_genes_groups"]["params"]["groupby"] == "scrcl"


def test_it_is_what_scanpy_itself_writes(tmp_path):
    adata = labelled(simulate())
    scrcl.rank_markers(adata, groupby="scrcl", key_added="mine")
    cells = log_normalised(adata)
    sc.tl.rank_genes_groups(cells, "scrcl", method="wilcoxon", use_raw=False)
    own, theirs = adata.uns["mine"], cells.uns["rank_genes_groups"]
    for name in STATISTICS:
        assert own[name].dtype.names == theirs[name].dtype.names == ("0", "1", "2")
        for group in own[name].dtype.names:
            if name == "names":
                assert list(own[name][group]) == list(theirs[name][group])
            else:
                np.testing.assert_allclose(own[name][group], theirs[name][group], rtol=1e-6)
    assert own["params"].items() <= theirs["params"].items()
    adata.write_h5ad(tmp_path / "kept.h5ad")
    kept = sc.get.rank_genes_groups_df(ad.read_h5ad(tmp_path / "kept.h5ad"), group=None, key="mine")
    pd.testing.assert_frame_equal(kept, sc.get.rank_genes_groups_df(adata, group=None, key="mine"))


def test_scanpy_draws_what_is_left_behind():
    adata = labelled(simulate())
    found = scrcl.rank_markers(adata, groupby="scrcl")
    axes = sc.pl.rank_genes_groups_dotplot(adata, n_genes=2, dendrogram=False, show=False)
    drawn = [text.get_text() for text in axes["mainplot_ax"].get_xticklabels()]
    assert drawn == [gene for own in found.table.groupby("group", observed=True)["names"] for gene in own[1][:2]]


def test_cells_without_a_label_are_left_out():
    adata = labelled(simulate())
    adata.obs.loc[adata.obs_names[::4], "scrcl"] = None
    rest = adata[adata.obs["scrcl"].notna()].copy()
    pd.testing.assert_frame_equal(scrcl.rank_markers(adata).table, scrcl.rank_markers(rest).table)
    assert adata.n_obs == 120 and adata.obs["scrcl"].isna().sum() == 30


@pytest.mark.parametrize("values", [[10, 2, 1], ["B", "T", "NK"], [True, False, True]])
def test_clusters_of_any_type(values):
    adata = simulate()
    adata.obs["mine"] = np.array(values)[np.arange(120) % 3]
    table = scrcl.rank_markers(adata, groupby="mine").table
    assert set(table["group"]) == set(map(str, values))
    if values[0] == 10:
        assert list(table["group"].cat.categories) == ["1", "2", "10"]


def test_all_is_every_cluster():
    """As scanpy takes it, and in a list."""
    adata = labelled(simulate())
    pd.testing.assert_frame_equal(
        scrcl.rank_markers(adata, groups="all").table, scrcl.rank_markers(adata, groups=["all"]).table
    )


def test_a_single_name_is_one_cluster():
    """Not one cluster per letter."""
    adata = simulate()
    adata.obs["mine"] = pd.Categorical([str(i % 13) for i in range(120)])
    assert list(scrcl.rank_markers(adata, groupby="mine", groups="12").specific) == ["12"]


def test_gaps_are_no_clusters():
    """As the command reads labels: pandas turns whole numbers with gaps into floats, and tables have empty fields."""
    adata = simulate()
    adata.obs["number"] = np.where(np.arange(120) < 10, np.nan, np.arange(120) % 3)
    adata.obs["text"] = pd.Categorical(np.array(["x", "y", ""])[np.arange(120) % 3])
    assert list(scrcl.rank_markers(adata, groupby="number").specific) == ["0", "1", "2"]
    assert list(scrcl.rank_markers(adata, groupby="text").specific) == ["x", "y"]


@pytest.mark.parametrize(
    ("groupby", "says"),
    [
        ("scrlc", r"no obs column 'scrlc' \(did you mean scrcl\?\)"),
        ("CELL_type", r"no obs column 'CELL_type' .*did you mean cell_type1"),
        ("xyzzy", "no obs column 'xyzzy'.$"),
    ],
)
def test_a_mistyped_column(groupby, says):
    adata = labelled(simulate())
    with pytest.raises(scrcl.UserError, match=says):
        scrcl.rank_markers(adata, groupby=groupby)
    assert not adata.uns


def test_what_is_wrong_is_said_in_the_words_of_a_function():
    adata = labelled(simulate())
    adata.obs["none"] = pd.Series([None] * 120, index=adata.obs_names, dtype=object)
    adata.obs["unique"] = list(adata.obs_names)
    with pytest.raises(scrcl.UserError, match="None of the 120 cells has a label in obs.'none'."):
        scrcl.rank_markers(adata, groupby="none")
    with pytest.raises(scrcl.UserError, match="120 different values for 120 cells") as caught:
        scrcl.rank_markers(adata, groupby="unique")
    assert "--" not in str(caught.value)
