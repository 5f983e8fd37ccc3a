"""Whole spatial runs on a small simulated tissue: results, sections, figures, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import run, write_visium
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

import figures
import pipeline
import results
import runST
import spatial
import tissue_figures
from config import STConfig
from pipeline import find_domains
from simulate import layered_tissue
from utils import Stopwatch, UserError

SMALL = ["--epochs", 5, "--seed", 5, "--hidden", 16, "--n-pcs", 10]


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=300, n_genes=60)


@pytest.fixture
def quick() -> dict:
    return {"epochs": 5, "seeds": [5], "hidden": 16, "n_pcs": 10, "figures": False}


def test_layers_of_simulated_tissue_are_found():
    result = find_domains(layered_tissue(n_spots=900, n_genes=120), epochs=40, hidden=32)
    assert result.scores["scrcl"]["ARI"] > 0.6 and result.prepared.n_clusters == 7
    assert result.scores["scrcl"]["n_scored"] == result.prepared.known.notna().sum() < 900


def test_keys_in_the_callers_anndata(tissue, quick):
    result = find_domains(tissue, refine_neighbors=12, **(quick | {"seeds": [1, 2]}))
    ours = [name for name in tissue.obs if name.startswith("scrcl")]
    assert ours == ["scrcl_seed_1_unsmoothed", "scrcl_seed_1", "scrcl_seed_2_unsmoothed", "scrcl_seed_2"] + [
        "scrcl_unsmoothed",
        "scrcl",
        "scrcl_confidence",
    ]
    assert (tissue.obs["scrcl"].astype(str) != tissue.obs["scrcl_unsmoothed"].astype(str)).any()
    assert tissue.obsp["scrcl_graph"].shape == (300, 300) and "X_pca_spatial" in result.cells.obsm
    assert np.array_equal(result.cells.obsm["spatial"], tissue.obsm["spatial"])
    find_domains(tissue, refine_neighbors=0, **(quick | {"seeds": [3]}))
    assert [name for name in tissue.obs if name.startswith("scrcl")] == ["scrcl", "scrcl_confidence", "scrcl_seed_3"]


def test_confidence_is_that_of_the_smoothed_labels(tissue, quick):
    """By hand: the share of the seeds whose labels, as they stand beside the final ones, agree with these."""
    result = find_domains(tissue.copy(), **(quick | {"seeds": [1, 2, 3]}))
    final = result.labels["scrcl"].astype(int).to_numpy()
    agree = []
    for name in result.seeds:
        common = pd.crosstab(result.labels[name].astype(int), result.labels["scrcl"].astype(int))
        ours, theirs = linear_sum_assignment(common, maximize=True)
        match = dict(zip(common.index[ours], common.columns[theirs]))
        agree.append(result.labels[name].astype(int).map(match).to_numpy() == final)
    assert np.allclose(result.confidence, np.mean(agree, axis=0)) and result.confidence.min() < 1
    alone = find_domains(tissue, **quick)
    assert alone.confidence.isna().all() and results.metrics(alone)["mean_confidence"] is None


@pytest.mark.parametrize("choice", ["scaled", "uncentred", "lognorm", "counts"])
def test_genes_weigh_the_same_in_whatever_the_encoders_see(tissue, choice):
    seen = {}
    for weights in ("spatial", "none"):
        config = STConfig(encoder_input=choice, gene_weights=weights, n_clusters="3")
        seen[weights] = pipeline.prepare_spots(tissue.copy(), config, Stopwatch())
    expected = seen["spatial"].cells.var["spatial_weight"].to_numpy(dtype=np.float32)
    assert np.ptp(expected) > 0.1 and np.allclose(seen["spatial"].inputs, seen["none"].inputs * expected, atol=1e-6)


def test_columns_of_an_earlier_run_do_not_stay(tissue, quick):
    first = find_domains(tissue, **quick).cells
    first.obs["scrcl_total"] = -1.0
    again = find_domains(first, gene_weights="none", layer="X", **quick).cells  # log-normalised values
    assert "spatial_weight" in first.var and "spatial_weight" not in again.var and "scrcl_total" not in again.obs


def test_labels_touch_nothing_but_the_number_of_domains(tissue, quick):
    runs = []
    for labels in (
        tissue.obs["ground_truth"],
        tissue.obs["ground_truth"].sample(frac=1, random_state=0).to_numpy(),
        None,
    ):
        other = tissue.copy()
        other.obs["ground_truth"] = labels
        runs.append(find_domains(other, n_clusters=5, **quick))
    assert runs[0].labels.equals(runs[1].labels) and runs[0].labels.equals(runs[2].labels)
    assert runs[2].scores == {} and runs[0].scores["scrcl"]["ARI"] != runs[1].scores["scrcl"]["ARI"]


def test_spots_without_position_or_annotation(tissue, quick):
    tissue.obsm["spatial"][:4] = np.nan
    tissue.obs.loc[tissue.obs_names[:50], "ground_truth"] = None
    result = find_domains(tissue, **quick)
    assert tissue.obs["scrcl"].isna().sum() == 4 and tissue.obs["scrcl"].isna().iloc[:4].all()
    assert result.scores["scrcl"]["n_scored"] == tissue.obs["ground_truth"].notna().sum()


def test_positions_from_columns_and_counts_from_a_layer(tissue, quick):
    plain = find_domains(tissue.copy(), **quick)
    tissue.obs[["x", "y"]] = tissue.obsm.pop("spatial")
    tissue.layers["count"] = tissue.X
    tissue.X = tissue.X * 0.37
    other = find_domains(tissue, **quick)
    assert other.labels.equals(plain.labels) and other.prepared.values == "counts, in layers['count']"


@pytest.mark.parametrize(
    "settings",
    [{"graph": "delaunay"}, {"graph": "radius", "radius": 150.0}, {"hvg_flavor": "seurat_v3", "n_top_genes": 30}]
    + [{"encoder_input": "uncentred"}, {"n_neighbors": 4}],
)
def test_every_choice_runs_and_changes_the_embedding(tissue, quick, settings):
    plain, other = find_domains(tissue.copy(), **quick), find_domains(tissue.copy(), **(quick | settings))
    assert other.labels["scrcl"].notna().all()
    assert not np.allclose(plain.cells.obsm["X_scrcl"], other.cells.obsm["X_scrcl"])


def two_sections(tissue: ad.AnnData) -> ad.AnnData:
    """The tissue twice, in the same place of two slides."""
    both = ad.concat({"s1": tissue, "s2": tissue}, label="slide", index_unique="-")
    both.obs["slide"] = both.obs["slide"].astype(str)
    return both


def test_two_sections_are_trained_together_without_an_edge_between(tissue, quick):
    both = two_sections(tissue)
    result = find_domains(both, section_key="slide", **quick)
    first = (both.obs["slide"] == "s1").to_numpy()
    graph = both.obsp["scrcl_graph"]
    alone = find_domains(tissue, **quick).cells.obsp["scrcl_graph"]
    assert graph[first][:, ~first].nnz == 0 and (graph[first][:, first] != alone).nnz == 0
    labels = result.labels["scrcl"].to_numpy()
    assert (labels[first] == labels[~first]).mean() > 0.95  # the same spots, but for rounding and dropout
    assert find_domains(both.copy(), section_key="none", **quick).cells.obsp["scrcl_graph"][first][:, ~first].nnz > 0
    panels = tissue_figures.domains_figure(result.cells, result.prepared.known, both.obs["slide"]).axes
    assert [axes.get_title() for axes in panels if "scRCL" in axes.get_title()] == ["s1, scRCL", "s2, scRCL"]


# Figures


def test_colours_match_and_stay_apart():
    known = pd.Series(["b", "b", "a", "a", "c", None], dtype=object).rename("truth")
    cells = ad.AnnData(obs=pd.DataFrame({"scrcl": pd.Categorical(["0", "0", "1", "1", "2", "3"])}))
    known.index = cells.obs_names
    palettes = figures.colours(figures.panels(cells, known))
    assert [palettes["scRCL"][name] for name in "012"] == [palettes["given: truth"][name] for name in "bac"]
    assert palettes["scRCL"]["3"] not in palettes["given: truth"].values()
    assert len(set(figures.PALETTE)) == 40 and figures.natural_order(["L10", "L2", "WM"]) == ["L2", "L10", "WM"]


@pytest.mark.parametrize("n_domains", [3, 40, 120])
def test_a_figure_of_any_number_of_domains(n_domains, tmp_path):
    rng = np.random.default_rng(0)
    labels = pd.Categorical([str(i) for i in rng.integers(0, n_domains, 500)], [str(i) for i in range(n_domains)])
    cells = ad.AnnData(obs=pd.DataFrame({"scrcl": labels}), obsm={"spatial": rng.random((500, 3))})
    figures.save(tissue_figures.domains_figure(cells, None), tmp_path / "domains.png")
    assert matplotlib.image.imread(tmp_path / "domains.png").std() > 0


@pytest.mark.parametrize(
    "library",
    [None, 3, {"images": {}}, {"images": {"hires": None}, "scalefactors": {"tissue_hires_scalef": 1}}]
    + [
        {"images": {"hires": np.zeros(shape)}, "scalefactors": {"tissue_hires_scalef": scale}}
        for shape, scale in (((3, 9, 9), 1), ((0, 9), 1), ((9, 9, 2), 1), ((9,), 1), ((9, 9), 0), ((9, 9), np.nan))
    ],
)
def test_anything_in_uns_spatial_is_survived(library):
    assert tissue_figures.tissue_image({"spatial": {"a": library}}, None) is None


def test_a_section_has_its_own_image_or_none():
    one = {"images": {"lowres": np.ones((4, 4))}, "scalefactors": {"tissue_lowres_scalef": 1}}
    assert tissue_figures.tissue_image({"spatial": {"a": one}}, "b") is None
    assert tissue_figures.tissue_image({"spatial": {"a": one}}, "a").diameter is None
    assert tissue_figures.tissue_image({"spatial": {"a": one, "b": one}}, None) is None
    assert (
        tissue_figures.tissue_image({}, None) is None and tissue_figures.tissue_image({"spatial": None}, None) is None
    )


def test_the_better_image_lies_under_the_spots(tissue, tmp_path):
    adata = spatial.read(write_visium(tissue, tmp_path / "v"), "v")
    assert tissue_figures.tissue_image(adata.uns, None).scale == 0.1
    (tmp_path / "v" / "spatial" / "tissue_hires_image.png").unlink()
    image = tissue_figures.tissue_image(spatial.read(tmp_path / "v", "v").uns, None)
    assert image.scale == 0.05 and image.diameter == 60 and image.pixels.shape == (60, 60, 4)


def test_paga_without_an_edge_between_groups(tmp_path):
    """Two groups far apart: scanpy's PAGA has nothing to show, and must not cost the other figures."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["0", "1"], 60)
    points = rng.normal(size=(120, 3)) + 100 * (labels == "1")[:, None]
    cells = ad.AnnData(obs=pd.DataFrame({"scrcl": pd.Categorical(labels)}), obsm={"X_scrcl": points})
    pipeline.add_umap(cells)
    graphs = tissue_figures.paga_graphs(cells, None)
    assert graphs == {}
    figures.save(tissue_figures.paga_figure(graphs), tmp_path / "paga.png")
    figures.save(tissue_figures.paga_compare_figure(graphs), tmp_path / "paga_compare.png")


# The command line


def test_files_of_a_run_on_a_visium_folder(monkeypatch, capsys, tmp_path, tissue):
    folder = write_visium(tissue, tmp_path / "sample")
    truth = tissue.obs["ground_truth"].rename("layer_guess")
    truth.sample(frac=1, random_state=0).to_csv(folder / "metadata.tsv", sep="\t", index_label="barcode")
    out = tmp_path / "out"
    code, text, err = run(runST, monkeypatch, capsys, "--dataset", folder, "--output", out, *SMALL, "--seeds", 5, 15)
    assert code == 0 and "mean ± sd, not smoothed" in text and "obs['layer_guess']" in text, err
    assert {path.name for path in out.iterdir()} == {*results.FILES, *tissue_figures.FILES}
    labels = pd.read_csv(out / "labels.csv", index_col="barcode")
    assert list(labels.index) == list(tissue.obs_names) and list(labels)[-3:] == [
        "scrcl_unsmoothed",
        "scrcl_confidence",
        "scrcl",
    ]
    saved = ad.read_h5ad(out / "result.h5ad")
    assert set(saved.uns["spatial"]["sample"]["images"]) == {"hires", "lowres"}
    assert list(saved.obs["layer_guess"].astype(object).fillna("")) == list(truth.fillna(""))
    scores = json.loads((out / "metrics.json").read_text())
    assert set(scores["unsmoothed"]["mean"]) == set(scores["mean"]) == {"ACC", "NMI", "ARI", "F1"}
    recorded = yaml.safe_load((out / "config.yaml").read_text())["provenance"]["input"]["sha256"]
    assert set(recorded) == {"filtered_feature_bc_matrix.h5", "tissue_positions.csv", "metadata.tsv"}
    again = tmp_path / "again"
    assert run(runST, monkeypatch, capsys, "--config", out / "config.yaml", "--output", again, "--no-figures")[0] == 0
    assert (again / "labels.csv").read_bytes() == (out / "labels.csv").read_bytes()


def test_a_folder_with_one_h5ad_keeps_its_name_when_the_run_is_repeated(monkeypatch, capsys, tmp_path, tissue):
    (tmp_path / "mytissue").mkdir()
    tissue.write_h5ad(tmp_path / "mytissue" / "x.h5ad")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    assert run(runST, monkeypatch, capsys, "--dataset", "mytissue", *SMALL, "--no-figures")[0] == 0
    out = tmp_path / "results" / "ST" / "mytissue"
    first = (out / "labels.csv").read_bytes()
    (out / "labels.csv").unlink()
    monkeypatch.chdir("/")
    assert run(runST, monkeypatch, capsys, "--config", out / "config.yaml")[0] == 0
    assert (out / "labels.csv").read_bytes() == first


def test_the_demo_says_that_it_is_simulated(monkeypatch, capsys, caplog):
    code, text, _ = run(runST, monkeypatch, capsys, "--demo", "--no-figures", *SMALL)
    assert code == 0 and "simulated" in caplog.text and "ARI" in text


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "Put one of these in place"),
        (["--dataset", "151673"], "There is no data set '151673'"),
        (["--dataset", Path(__file__).parent], "not a Visium folder"),
        (["--demo", "--dataset", "151673"], "both given"),
        (["--demo", "--label-key", "typo"], "no obs column 'typo'"),
        (["--demo", "--section-key", "typo"], "no obs column 'typo'"),
        (["--demo", "--graph", "radius"], "needs --radius"),
        (["--demo", "--radius", "9"], "no effect on --graph knn"),
        (["--demo", "--annotation", "mine.csv"], "its own annotation"),
        (["--demo", "--n-clusters", "1601"], "only 1600 cells"),
    ],
)
def test_one_sentence_and_exit_code_2(monkeypatch, capsys, argv, says):
    code, out, err = run(runST, monkeypatch, capsys, *argv, *SMALL)
    assert code == 2 and says in err and "Traceback" not in err and out == ""


def test_single_cell_data_have_no_positions(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "cells.h5ad")
    code, _, err = run(runST, monkeypatch, capsys, "--dataset", tmp_path / "cells.h5ad")
    assert code == 2 and "no coordinates" in err


def test_an_annotation_table_beside_an_h5ad(monkeypatch, capsys, tmp_path, tissue):
    tissue.obs.pop("ground_truth").rename("region").to_csv(tmp_path / "mine.csv", index_label="cell")
    tissue.write_h5ad(tmp_path / "spots.h5ad")
    argv = ["--dataset", tmp_path / "spots.h5ad", "--annotation", tmp_path / "mine.csv", "--label-key", "region"]
    code, text, _ = run(runST, monkeypatch, capsys, *argv, "--no-figures", *SMALL)
    assert code == 0 and "obs['region']" in text


def test_counts_without_values_for_seurat_v3(tissue, quick):
    tissue.X.data = np.log1p(tissue.X.data * 0.31)
    with pytest.raises(UserError, match="data hold none; add --hvg-flavor"):
        find_domains(tissue, hvg_flavor="seurat_v3", n_top_genes=30, **quick)


def test_clouds_of_points_are_images_in_vector_files(tmp_path):
    for n_points, expected in ((6000, True), (20, False)):
        figure = Figure()
        figure.subplots().scatter(np.arange(n_points), np.arange(n_points))
        figures.save(figure, tmp_path / "points.svg", "svg", dpi=50)
        assert ("<image" in (tmp_path / "points.svg").read_text()) == expected
