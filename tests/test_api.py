"""The functions for a notebook: all that they find is in the caller's own AnnData, under the names asked for."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import ROOT, simulate
from matplotlib import pyplot
from matplotlib.figure import Figure

import scrcl
from scrcl import recipes
from scrcl.analysis import analyse
from scrcl.api import ELSEWHERE
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import CellSettings, TissueSettings

CELLS = {"epochs": 5, "hidden": 16, "n_top_genes": 60, "n_pcs": 10}
SPOTS = {"epochs": 5, "hidden": 16, "n_pcs": 10}
NEIGHBORS = ("scrcl_neighbors_connectivities", "scrcl_neighbors_distances")


def find_cells(adata: ad.AnnData, **settings) -> ad.AnnData | None:
    """One seed and no UMAP, unless the test is about them."""
    return scrcl.find_cell_types(adata, **{"n_seeds": 1, "umap": False} | CELLS | settings)


def find_spots(adata: ad.AnnData, **settings) -> ad.AnnData | None:
    return scrcl.find_domains(adata, **{"n_seeds": 1, "umap": False} | SPOTS | settings)


# Their known domains give the number of clusters, so there is nothing to draw of an estimate.
FIGURES_OF_SPOTS = [name for name in scrcl.plot.names("ST") if name != "numbers"]
FIND = {"SC": find_cells, "ST": find_spots}


def made(task: str) -> ad.AnnData:
    return simulate() if task == "SC" else layered_tissue(n_spots=300, n_genes=60)


@pytest.fixture
def tissue() -> ad.AnnData:
    return made("ST")


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    pyplot.close("all")


def held(adata: ad.AnnData) -> dict[str, set[str]]:
    """The names of all that an AnnData holds, by slot."""
    slots = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")
    return {slot: set(getattr(adata, slot)) for slot in slots}


def new(adata: ad.AnnData, before: dict[str, set[str]]) -> dict[str, set[str]]:
    """The names that it did not hold before, by slot."""
    return {slot: names - before[slot] for slot, names in held(adata).items() if names - before[slot]}


def same(one: ad.AnnData, two: ad.AnnData) -> bool:
    """Whether values, tables and the names of all else are the same."""
    tables = one.obs.equals(two.obs) and one.var.equals(two.var)
    return tables and held(one) == held(two) and (one.X != two.X).nnz == 0


# What the caller's AnnData receives


def test_all_that_is_found_is_in_the_callers_own_cells(counts):
    before, values = held(counts), counts.X.copy()
    assert scrcl.find_cell_types(counts, n_seeds=2, random_state=1, **CELLS) is None
    assert new(counts, before) == {
        "obs": {"scrcl", "scrcl_confidence", "scrcl_seed_1", "scrcl_seed_11"},
        "obsm": {"X_scrcl", "X_umap"},
        "obsp": {"scrcl_graph", *NEIGHBORS},
        "uns": {"scrcl", "scrcl_colors", "scrcl_neighbors"},
    }
    assert list(counts.obs) == ["cell_type1", "scrcl_seed_1", "scrcl_seed_11", "scrcl", "scrcl_confidence"]
    assert isinstance(counts.obs["scrcl"].dtype, pd.CategoricalDtype)
    assert list(counts.obs["scrcl"].cat.categories) == ["0", "1", "2"]
    sizes = counts.obs["scrcl"].value_counts()
    assert sizes["0"] >= sizes["1"] >= sizes["2"] and counts.obs["scrcl_confidence"].between(0, 1).all()
    assert len(counts.obsm["X_scrcl"]) == counts.n_obs and counts.obsm["X_umap"].shape == (counts.n_obs, 2)
    assert counts.obsp["scrcl_graph"].shape == (counts.n_obs, counts.n_obs)
    assert counts.uns["scrcl"]["params"]["seeds"] == [1, 11] and "torch" in counts.uns["scrcl"]["versions"]
    assert counts.uns["scrcl"]["scores"]["scrcl"]["ARI"] > 0.9 and len(counts.uns["scrcl_colors"]) == 3
    assert (counts.X != values).nnz == 0


def test_all_that_is_found_is_in_the_callers_own_spots(tissue):
    before, values = held(tissue), tissue.X.copy()
    assert scrcl.find_domains(tissue, n_seeds=2, refine_neighbors=12, **SPOTS) is None
    seeds = {f"scrcl_seed_{seed}{smoothed}" for seed in (5, 15) for smoothed in ("", "_unsmoothed")}
    assert new(tissue, before) == {
        "obs": {"scrcl", "scrcl_unsmoothed", "scrcl_confidence", *seeds},
        "obsm": {"X_scrcl", "X_umap"},
        "obsp": {"scrcl_graph", *NEIGHBORS},
        "uns": {"scrcl", "scrcl_colors", "scrcl_neighbors"},
    }
    assert [name for name in tissue.obs if name.startswith("scrcl")] == [
        *("scrcl_seed_5_unsmoothed", "scrcl_seed_5", "scrcl_seed_15_unsmoothed", "scrcl_seed_15"),
        *("scrcl_unsmoothed", "scrcl", "scrcl_confidence"),
    ]
    assert (tissue.obs["scrcl"].astype(str) != tissue.obs["scrcl_unsmoothed"].astype(str)).any()
    assert tissue.obsp["scrcl_graph"].shape == (300, 300)
    assert len(tissue.uns["scrcl_colors"]) == len(tissue.obs["scrcl"].cat.categories) > 1
    assert (tissue.X != values).nnz == 0


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_names_as_pandas_own_strings(task):
    adata, find, settings = (simulate(), scrcl.find_cell_types, CELLS) if task == "SC" else (
        (layered_tissue(n_spots=100, n_genes=40), scrcl.find_domains, SPOTS)
    )  # fmt: skip
    adata.obs.index, adata.var.index = (names.astype("string") for names in (adata.obs.index, adata.var.index))
    before = list(adata.obs_names)
    find(adata, n_seeds=1, **settings)
    assert adata.obs["scrcl"].notna().all() and list(adata.obs_names) == before
    assert set(adata.uns["scrcl"]["scores"]["scrcl"]) == {"ACC", "NMI", "ARI", "F1"}
    found = scrcl.rank_markers(adata, "scrcl")
    assert {*found.top, *found.untested} == set(adata.obs["scrcl"].cat.categories)


def test_clusters_get_names_by_known_markers(counts):
    counts.obs["own"] = counts.obs["cell_type1"].where(np.arange(counts.n_obs) > 4)  # five cells without a label
    before = counts.X.copy()
    known = {"one": ["gene-0", "GENE-1"], "two": ["gene-15"], "three": ["gene-30"]}
    named = scrcl.name_clusters(counts, "own", known)
    assert named["name"].to_dict() == {"type 0": "one", "type 1": "two", "type 2": "three"}
    assert list(named)[:4] == ["name", "score", "runner_up", "margin"] and (counts.X != before).nnz == 0
    names = counts.obs["own_name"]
    assert list(names.cat.categories) == ["one", "three", "two"] and names.isna().sum() == 5
    assert (names.dropna().astype(str) == counts.obs["own"].dropna().map(named["name"])).all()
    scrcl.name_clusters(counts, "own", known, key_added="type")
    assert counts.obs["type"].equals(names)
    counts.obs["number"] = counts.obs["cell_type1"].str[-1].astype(int)
    assert scrcl.name_clusters(counts, "number", known)["name"].to_dict() == {"0": "one", "1": "two", "2": "three"}
    counts.obs["alone"] = counts.obs["cell_type1"].where(np.arange(counts.n_obs) > 0, "one cell")
    assert "one cell" not in scrcl.name_clusters(counts, "alone", known).index
    assert counts.obs["alone_name"].isna().tolist() == [True] + [False] * (counts.n_obs - 1)
    counts.obs["same"], counts.obs["barcode"] = "a", counts.obs_names
    for key, markers, says in (
        ("owm", known, "no obs column 'owm' .*did you mean own"),
        ("same", known, "one cluster, 'a'"),
        ("barcode", known, "120 different values for 120 cells"),
        ("own", "", "takes genes by type, a csv, or 'builtin'"),
        ("own", pd.DataFrame({"type": ["one"], "gene": ["gene-0"]}), "takes genes by type, a csv, or 'builtin'"),
        ("own", "no.csv", "marker_genes no.csv is not a file"),
        ("own", "builtin", "No marker of a common cell type"),
    ):
        with pytest.raises(scrcl.UserError, match=says):
            scrcl.name_clusters(counts, key, markers)


def test_what_is_no_gene_takes_no_part_unless_it_is_asked_for(counts):
    counts.var["feature_types"] = ["Antibody Capture"] * 5 + ["Gene Expression"] * (counts.n_vars - 5)
    scrcl.find_cell_types(counts, n_seeds=1, umap=False, **CELLS)
    named = {gene for genes in scrcl.rank_markers(counts, "scrcl", n_genes=80).top.values() for gene in genes}
    assert not named & set(counts.var_names[:5])
    everything = scrcl.rank_markers(counts, "scrcl", n_genes=80, features="all").top
    assert {gene for genes in everything.values() for gene in genes} & set(counts.var_names[:5])


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_the_table_of_clusters_is_kept_in_h5ad(task, tmp_path):
    adata = made(task)
    FIND[task](adata)
    clusters = adata.uns["scrcl"]["clusters"]
    assert list(clusters.index) == list(adata.obs["scrcl"].cat.categories)
    assert clusters["size"].to_dict() == adata.obs["scrcl"].value_counts().to_dict()
    assert clusters["agreement"].isna().all() == (task == "SC")  # one seed of cells, and fifteen partitions of spots
    assert clusters["verdict"].str.fullmatch("clear|doubtful|doubtful: may be part of cluster \\d").all()
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(again.uns["scrcl"]["clusters"], clusters)
    assert len(scrcl.pl.clusters(again).axes) == (2 if task == "SC" else 3)


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_what_is_written_is_what_the_analysis_finds(task):
    adata, recipe = made(task), {"SC": CellSettings(**CELLS, seeds=2), "ST": TissueSettings(**SPOTS, seeds=2)}[task]
    result = analyse(adata, recipe)
    FIND[task](adata, n_seeds=2)
    for name in result.labels:
        column = name if name.startswith("scrcl") else f"scrcl_{name}"
        assert list(adata.obs[column]) == list(result.labels[name])
    assert adata.obs["scrcl_confidence"].equals(result.confidence)
    assert np.array_equal(adata.obsm["X_scrcl"], result.cells.obsm["X_scrcl"])
    assert (adata.obsp["scrcl_graph"] != result.cells.obsp["scrcl_graph"]).nnz == 0


def test_cells_without_counts_keep_their_row(counts):
    counts.X = counts.X.toarray()
    counts.X[[0, 7]] = 0
    find_cells(counts, umap=True)
    lost = np.isin(np.arange(counts.n_obs), [0, 7])
    assert np.array_equal(counts.obs["scrcl"].isna(), lost)
    for name in ("X_scrcl", "X_umap"):
        assert np.isnan(counts.obsm[name][lost]).all() and np.isfinite(counts.obsm[name][~lost]).all()
    for name in ("scrcl_graph", *NEIGHBORS):
        graph = counts.obsp[name]
        assert graph[lost].nnz == graph[:, lost].nnz == 0 and (graph[~lost].getnnz(axis=1) > 0).all()


def test_spots_without_position_keep_their_row(tissue):
    tissue.obsm["spatial"][:4] = np.nan
    tissue.obs.loc[tissue.obs_names[:50], "ground_truth"] = None
    find_spots(tissue)
    assert tissue.obs["scrcl"].isna().sum() == 4 and tissue.obs["scrcl"].isna().iloc[:4].all()
    assert np.isnan(tissue.obsm["X_scrcl"][:4]).all() and tissue.obsp["scrcl_graph"][:4].nnz == 0


def test_part_of_an_anndata_may_be_passed(counts):
    """A part becomes an AnnData of its own, as anndata does it; what it was taken from stays as it is."""
    before = counts.copy()
    part = counts[::-1][:90]
    find_cells(part, n_clusters=3)
    assert not part.is_view and part.obs["scrcl"].notna().all() and same(counts, before)


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_a_copy_leaves_the_input_alone(task):
    adata = made(task)
    before = adata.copy()
    copy = FIND[task](adata, copy=True, umap=True)
    assert same(adata, before)
    assert {"scrcl", "scrcl_confidence"} <= set(copy.obs) and "X_umap" in copy.obsm
    FIND[task](adata, umap=True)
    assert same(adata, copy)


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_another_name_for_everything(task):
    adata = made(task)
    before = held(adata)
    FIND[task](adata, key_added="other", umap=True)
    written = {name for names in new(adata, before).values() for name in names}
    assert "X_umap" in written and all("other" in name for name in written - {"X_umap"})
    assert not any("scrcl" in name for name in written)
    assert adata.uns["other"]["neighbors"] == "other_neighbors" and len(adata.uns["other_colors"]) > 1
    plain = made(task)
    FIND[task](plain)
    assert list(plain.obs["scrcl"]) == list(adata.obs["other"])


def test_runs_under_two_names_stand_beside_each_other(counts):
    find_cells(counts, umap=True)
    kept = counts.copy()
    find_cells(counts, key_added="other", n_clusters=5, umap=True)
    assert counts.obs["other"].nunique() == 5 and np.array_equal(counts.obsm["X_umap"], kept.obsm["X_umap"])
    assert counts.obs[list(kept.obs)].equals(kept.obs)
    assert np.array_equal(counts.obsm["X_scrcl"], kept.obsm["X_scrcl"])
    assert counts.obsm["X_umap_other"].shape == (counts.n_obs, 2) and counts.uns["other"]["umap"] == "X_umap_other"
    for key, n in (("scrcl", 3), ("other", 5)):
        assert len(scrcl.pl.umap(counts, key).axes) == 2 and len(counts.uns[f"{key}_colors"]) == n


def test_a_later_run_replaces_the_labels_of_an_earlier_one(counts, tissue):
    find_cells(counts, n_seeds=2, random_state=1)
    find_cells(counts, random_state=3)
    assert list(counts.obs) == ["cell_type1", "scrcl", "scrcl_confidence", "scrcl_seed_3"]
    assert "dataset" not in counts.uns["scrcl"]["params"]
    find_spots(tissue, n_seeds=2, refine_neighbors=12)
    find_spots(tissue, random_state=3, refine_neighbors=0)
    assert [name for name in tissue.obs if name.startswith("scrcl")] == ["scrcl", "scrcl_confidence", "scrcl_seed_3"]


def test_a_later_run_replaces_the_umap_of_an_earlier_one(counts):
    find_cells(counts, umap=True)
    first = counts.obsm["X_umap"].copy()
    find_cells(counts, umap=True, random_state=6)
    assert counts.uns["scrcl"]["umap"] == "X_umap" and "X_umap_scrcl" not in counts.obsm
    assert not np.array_equal(counts.obsm["X_umap"], first)


def test_a_run_without_a_umap_does_not_make_an_earlier_one_the_callers(counts):
    for umap in (True, False, True):
        find_cells(counts, umap=umap)
    assert counts.uns["scrcl"]["umap"] == "X_umap" and "X_umap_scrcl" not in counts.obsm


# A UMAP, and what draws it


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_scanpy_draws_the_labels(task):
    adata = made(task)
    FIND[task](adata, umap=True)
    adata.uns["scrcl_colors"][0] = "#123456"
    sc.pl.umap(adata, color="scrcl", show=False)
    points = pyplot.gca().collections[0]
    drawn = {tuple(np.round(255 * colour[:3]).astype(int)) for colour in points.get_facecolors()}
    assert (0x12, 0x34, 0x56) in drawn and len(drawn) == adata.obs["scrcl"].nunique()


def test_scanpy_takes_the_neighbours(counts):
    find_cells(counts, umap=True)
    sc.tl.leiden(
        counts, neighbors_key="scrcl_neighbors", flavor="igraph", n_iterations=2, directed=False, random_state=0
    )
    assert counts.obs["leiden"].nunique() > 1


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_a_umap_of_the_callers_own_stays(task):
    adata = made(task)
    own = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    adata.obsm["X_umap"] = own.copy()
    for _ in range(2):  # a second run knows that it is not its own
        FIND[task](adata, umap=True)
        assert np.array_equal(adata.obsm["X_umap"], own) and adata.uns["scrcl"]["umap"] == "X_umap_scrcl"
        assert np.isfinite(adata.obsm["X_umap_scrcl"]).all()
    drawn = scrcl.pl.umap(adata).axes[0].collections[0].get_offsets()
    assert np.allclose(drawn, adata.obsm["X_umap_scrcl"])


def test_without_a_umap_nothing_is_laid_out(counts):
    before = held(counts)
    counts.obsm["X_umap"] = np.zeros((counts.n_obs, 2))
    find_cells(counts)
    assert new(counts, before)["obsm"] == {"X_scrcl", "X_umap"} and new(counts, before)["obsp"] == {"scrcl_graph"}
    assert not counts.obsm["X_umap"].any() and "scrcl_neighbors" not in counts.uns


# Figures, also of what was saved and read again


@pytest.mark.parametrize("key", ["scrcl", "other"])
@pytest.mark.parametrize("task", ["SC", "ST"])
def test_figures_of_what_was_saved_and_read_again(task, key, tmp_path):
    adata = made(task)
    if key == "other":
        adata.obsm["X_umap"] = np.zeros((adata.n_obs, 2))  # so that the run's own is elsewhere
    FIND[task](adata, key_added=key, umap=True, n_seeds=2)
    adata.write_h5ad(tmp_path / "annotated.h5ad")
    read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    assert held(read) == held(adata) and list(read.obs[key]) == list(adata.obs[key])
    assert list(read.uns[f"{key}_colors"]) == list(adata.uns[f"{key}_colors"])
    for name in ("umap", "losses", "confusion") if task == "SC" else FIGURES_OF_SPOTS:
        draw = getattr(scrcl.pl, name)
        drawn, again = draw(adata, key=key), draw(read, key=key)
        assert isinstance(again, Figure) and len(again.axes) == len(drawn.axes) > 0, name
        titles = [[axes.get_title() for axes in figure.axes] for figure in (drawn, again)]
        assert titles[0] == titles[1], name


def test_figures_of_cells_without_known_types_that_were_saved_and_read_again(counts, tmp_path):
    find_cells(counts, label_key="none", n_clusters=3, umap=True)
    counts.write_h5ad(tmp_path / "annotated.h5ad")
    read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    assert scrcl.pl.confusion(read) is None
    assert [axes.get_title() for axes in scrcl.pl.umap(read).axes] == ["scRCL"]


def test_the_figure_of_an_estimated_number_shows_its_curve(counts, tmp_path):
    find_cells(counts, label_key="none", key_added="mine")
    counts.write_h5ad(tmp_path / "annotated.h5ad")
    read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    axes = scrcl.pl.numbers(read, "mine").axes[0]
    curve, n_clusters = read.uns["mine"]["numbers"], read.uns["mine"]["n_clusters"]
    held, shared = (line.get_ydata() for line in axes.lines[:2])
    assert np.array_equal(held, curve["held"]) and np.array_equal(shared, curve["shared"])
    assert axes.get_legend().get_texts()[-1].get_text() == f"estimate: {n_clusters}"
    find_cells(counts, n_clusters=3)
    assert scrcl.pl.numbers(counts) is None and "numbers" not in counts.uns["scrcl"]


def test_figures_of_cells_of_which_some_have_no_counts(counts):
    counts.X = counts.X.toarray()
    counts.X[[0, 7]] = 0
    find_cells(counts, umap=True)
    assert len(scrcl.pl.umap(counts).axes[0].collections[0].get_offsets()) == counts.n_obs - 2
    assert len(scrcl.pl.confusion(counts).axes[0].get_yticks()) == 3


def test_figures_of_spots_of_which_some_have_no_position(tissue):
    tissue.obsm["spatial"][:4] = np.nan
    find_spots(tissue, umap=True)
    for name in FIGURES_OF_SPOTS:
        figure = getattr(scrcl.pl, name)(tissue)
        figure.canvas.draw()


@pytest.mark.parametrize("columns", [("x", "y"), ("array_col", "array_row")])
def test_figures_of_spots_with_their_positions_in_columns(tissue, columns):
    places = tissue.obsm.pop("spatial")
    if columns == ("x", "y"):
        tissue.obs[["x", "y"]] = places
    find_spots(tissue, umap=True)
    for name in FIGURES_OF_SPOTS:
        figure = getattr(scrcl.pl, name)(tissue)
        figure.canvas.draw()


# Parameters


@pytest.mark.parametrize("task", ["SC", "ST"])
@pytest.mark.parametrize(
    ("settings", "seeds"),
    [
        ({"n_seeds": 1}, [5]),
        ({"n_seeds": 2}, [5, 15]),
        ({"n_seeds": 2, "random_state": 7}, [7, 17]),
        ({"n_seeds": None, "random_state": 5}, [5, 15, 25, 35, 45]),
        ({"n_seeds": None, "random_state": 0}, [0, 10, 20, 30, 40]),
    ],
)
def test_seeds_of_a_random_state(task, settings, seeds):
    adata = made(task)
    FIND[task](adata, **settings, epochs=1)
    assert adata.uns["scrcl"]["params"]["seeds"] == seeds
    assert all(f"scrcl_seed_{seed}" in adata.obs for seed in seeds)


@pytest.mark.parametrize("random_state", [5, 7])
def test_many_cells_have_one_seed_whatever_the_random_state(counts, monkeypatch, random_state):
    monkeypatch.setattr(recipes, "ONE_SEED_BEYOND", 100)
    find_cells(counts, n_seeds=None, random_state=random_state, epochs=1)
    assert counts.uns["scrcl"]["params"]["seeds"] == [random_state]


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_the_same_call_twice_gives_the_same_and_another_random_state_another(task):
    one, two, other = (FIND[task](made(task), copy=True, random_state=n, umap=True) for n in (7, 7, 8))
    assert same(one, two)
    for name in ("X_scrcl", "X_umap"):
        assert np.array_equal(one.obsm[name], two.obsm[name])
    assert not np.array_equal(one.obsm["X_scrcl"], other.obsm["X_scrcl"])


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_a_number_of_clusters(task):
    adata = made(task)
    FIND[task](adata, n_clusters=4)
    assert adata.obs["scrcl"].nunique() == 4 and adata.uns["scrcl"]["n_clusters_from"] == "as asked for"
    given = getattr(scrcl, "find_cell_types" if task == "SC" else "find_domains")
    again = given(made(task), 4, copy=True, n_seeds=1, umap=False, **(CELLS if task == "SC" else SPOTS))
    assert list(again.obs["scrcl"]) == list(adata.obs["scrcl"])


@pytest.mark.parametrize(
    ("find", "recipe"), [(scrcl.find_cell_types, CellSettings), (scrcl.find_domains, TissueSettings)]
)
def test_every_setting_is_a_parameter_with_its_default_and_text(find, recipe):
    parameters, defaults = inspect.signature(find).parameters, recipe()
    named = {name for name in vars(defaults) if name not in ELSEWHERE}
    own = {"adata", "n_clusters", "key_added", "random_state", "n_seeds", "umap", "copy"}
    assert set(parameters) == own | named and "**settings" not in find.__doc__
    for name in named:
        assert parameters[name].default == getattr(defaults, name)
        assert f"\n{name}\n    " in find.__doc__, name


@pytest.mark.parametrize(
    ("task", "name", "says"),
    [
        ("SC", "n_cluster", "no parameter 'n_cluster' .did you mean n_clusters"),
        ("SC", "epoch", "no parameter 'epoch' .did you mean epochs"),
        ("SC", "graph", "no parameter 'graph'"),  # of tissue alone
        ("ST", "key_add", "did you mean key_added"),
        ("ST", "output", "no parameter 'output'"),
        ("SC", "seeds", "no parameter 'seeds' .did you mean n_seeds"),
    ],
)
def test_a_parameter_that_is_not_there_names_the_nearest(task, name, says):
    with pytest.raises(TypeError, match=says):
        FIND[task](made(task), **{name: 3})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_clusters": 121}, "only 120 cells"),
        ({"n_clusters": 1}, "above 1"),
        ({"label_key": "typo"}, "no obs column 'typo'"),
        ({"hidden": 0}, "must be above 0"),
        ({"n_seeds": 0}, "seeds"),
        ({"n_seeds": 2, "random_state": -1}, "must not be negative"),
    ],
)
def test_input_that_cannot_be_used_changes_nothing(counts, settings, says):
    before = counts.copy()
    with pytest.raises(scrcl.UserError, match=says):
        find_cells(counts, **settings)
    assert same(counts, before)


# The package itself


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_yield_unless_the_user_says_otherwise(given, spins):
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, scrcl; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=plain | given, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"{spins}\n", done.stderr


def test_what_the_package_offers():
    assert set(scrcl.__all__) <= set(dir(scrcl)) and all(getattr(scrcl, name) for name in scrcl.__all__)
    with pytest.raises(AttributeError, match="find_celltypes"):
        scrcl.find_celltypes  # noqa: B018


@pytest.mark.parametrize("function", [scrcl.find_cell_types, scrcl.find_domains])
def test_the_help_of_a_function_names_every_parameter_and_no_flag(function):
    text = inspect.getdoc(function)
    assert not re.search(r"--[a-z]", text)
    assert all(f"\n{name}\n    " in text for name in inspect.signature(function).parameters)
