"""Figures of any run: colours that match, types against clusters, losses, and what they are drawn from."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from matplotlib.figure import Figure

from scrcl import plot
from scrcl.analysis import analyse
from scrcl.commands.run import draw
from scrcl.messages import UserError, natural_order
from scrcl.plot import cells as cells_figures
from scrcl.plot import style
from scrcl.plot.layout import add_umap
from scrcl.plot.style import Scene
from scrcl.recipes import CellSettings


def annotated(labels: list[str], known: list[str | None] | None = None, **obsm: np.ndarray) -> ad.AnnData:
    """An AnnData as a run annotates it, as far as figures read it; known labels in obs['truth']."""
    obs = pd.DataFrame({"scrcl": pd.Categorical(labels, natural_order(set(labels)))})
    obs["scrcl_confidence"] = np.nan
    if known is not None:
        obs["truth"] = pd.Series(known, dtype=object)
    facts = {"label_key": "" if known is None else "truth", "params": {"seeds": [5]}}
    return ad.AnnData(obs=obs.set_axis([f"cell-{i}" for i in range(len(obs))]), uns={"scrcl": facts}, obsm=obsm)


def test_colours_match_and_stay_apart():
    cells = annotated(["0", "0", "1", "1", "2", "3"], ["b", "b", "a", "a", "c", None])
    palettes = style.colours(Scene(cells).panels())
    assert [palettes["scRCL"][name] for name in "012"] == [palettes["given: truth"][name] for name in "bac"]
    assert palettes["scRCL"]["3"] not in palettes["given: truth"].values()
    assert len(set(style.PALETTE)) == 40 and natural_order(["L10", "L2", "WM"]) == ["L2", "L10", "WM"]


def test_colours_stand_where_scanpy_looks_for_them():
    cells = annotated(["0", "0", "1", "1", "2", "3"], ["b", "b", "a", "a", "c", None])
    style.add_colours(Scene(cells))
    assert cells.uns["scrcl_colors"] == list(style.colours(Scene(cells).panels())["scRCL"].values())


def test_a_confusion_table_with_unlabelled_and_lost_types(counts, fast):
    counts.obs["cell_type1"] = counts.obs["cell_type1"].where(np.arange(counts.n_obs) > 20, None)
    result = analyse(counts, CellSettings(n_clusters="2", **fast))
    (axes, _) = plot.confusion(result.cells).axes
    assert len(axes.get_yticks()) == 3 and len(axes.get_xticks()) == result.labels["scrcl"].nunique()


def test_shares_of_types_by_hand():
    """Of four b, three are in cluster 0; both a are in cluster 1; the rest has only one of both labels."""
    predicted = pd.Series(["0", "0", "0", "2", "1", "1", "1", None])
    known = pd.Series(["b", "b", "b", "b", "a", "a", None, "a"])
    table, share = cells_figures.shares(predicted, known)
    assert list(share.index) == ["b", "a"] and list(share.columns) == ["0", "1", "2"]
    assert share.to_numpy().tolist() == [[0.75, 0, 0.25], [0, 1, 0]] and table.loc["b"].sum() == 4


def test_no_confusion_table_without_types_or_of_more_than_can_be_read():
    n = cells_figures.MOST_TYPES + 1
    assert plot.confusion(annotated(["0", "1"])) is None
    assert plot.confusion(annotated(["0"] * n, [f"type {i}" for i in range(n)])) is None


def test_losses_of_every_seed(counts, fast):
    cells = analyse(counts, CellSettings(**fast | {"seeds": [5, 15]})).cells
    panels = plot.losses(cells).axes
    titles = ["HEA, global", "HEA, cell", "NDC", "CVC", "weighted total"]
    assert [axes.get_title() for axes in panels] == titles
    for axes in panels:
        assert [line.get_label() for line in axes.lines] == ["seed 5", "seed 15"]
        assert all(list(line.get_xdata()) == list(range(1, 9)) for line in axes.lines)


@pytest.mark.parametrize("seeds", [[5], [5, 15]])
def test_the_umap_by_cluster_by_type_and_by_agreement(fast, seeds):
    """One seed of cells gives one partition, which agrees with nothing."""
    cells = analyse(simulate(), CellSettings(**fast | {"seeds": seeds})).cells
    add_umap(cells)
    titles = [axes.get_title() for axes in plot.umap(cells).axes]
    assert titles[:3] == ["scRCL", "given: cell_type1", "agreement"][: 1 + len(seeds)]


def test_cells_without_a_place_are_not_drawn():
    places = np.arange(8.0).reshape(4, 2)
    places[1] = np.nan
    cells = annotated(["0", "1", "0", "1"], X_umap=places)
    cells.uns["scrcl"]["umap"] = "X_umap"
    bare = style.bare_copy(Scene(cells))
    assert list(bare.obs_names) == ["cell-0", "cell-2", "cell-3"]
    assert list(bare.uns["scRCL_colors"]) == list(style.PALETTE[:2])
    assert len(plot.umap(cells).axes[0].collections[0].get_offsets()) == 3


def test_files_of_all_figures_of_cells(tmp_path, fast):
    for known, drawn in (("auto", {"confusion"}), ("none", set())):
        cells = analyse(simulate(), CellSettings(label_key=known, n_clusters="3", **fast)).cells
        add_umap(cells)
        (tmp_path / known).mkdir()
        draw(cells, "SC", tmp_path / known)
        assert {path.stem for path in (tmp_path / known).iterdir()} == {"clusters", "tree", "umap", "losses"} | drawn


@pytest.mark.parametrize("key", ["scrcl", "other"])
def test_data_without_a_run_say_what_to_do(key):
    with pytest.raises(UserError, match=f"no run under '{key}'.*find_cell_types"):
        plot.umap(ad.AnnData(np.ones((3, 2))), key=key)


def test_a_umap_that_is_not_there():
    with pytest.raises(UserError, match="has made no UMAP; run it with umap=True"):
        plot.umap(annotated(["0", "1"]))


def test_the_figures_that_there_are():
    assert set(plot.FIGURES) <= set(dir(plot)) and all(callable(getattr(plot, name)) for name in plot.FIGURES)
    with pytest.raises(AttributeError, match="no figure 'unap'; there are .*umap"):
        plot.unap  # noqa: B018


def test_clouds_of_points_are_images_in_vector_files(tmp_path):
    for n_points, expected in ((6000, True), (20, False)):
        figure = Figure()
        figure.subplots().scatter(np.arange(n_points), np.arange(n_points))
        style.save(figure, tmp_path / "points.svg", "svg", dpi=50)
        assert ("<image" in (tmp_path / "points.svg").read_text()) == expected
