"""The whole analysis of a small simulated tissue: layers, sections, confidence, and no influence of labels."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment

from scrcl.analysis import analyse
from scrcl.messages import UserError
from scrcl.prepare.tissue import prepare
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import TissueSettings
from scrcl.result import Result, metrics, summary
from scrcl.runtime import Stopwatch


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=300, n_genes=60)


@pytest.fixture
def quick() -> dict:
    return {"epochs": 5, "seeds": [5], "hidden": 16, "n_pcs": 10, "figures": False}


def find(adata: ad.AnnData, **settings) -> Result:
    return analyse(adata, TissueSettings(**settings))


def test_layers_of_simulated_tissue_are_found():
    result = find(layered_tissue(n_spots=900, n_genes=120), epochs=40, hidden=32)
    assert result.scores["scrcl"]["ARI"] > 0.6 and result.n_clusters == 7
    assert result.scores["scrcl"]["n_scored"] == result.prepared.known.notna().sum() < 900


def test_the_data_that_are_given_stay_as_they_are(tissue, quick):
    before = tissue.copy()
    find(tissue, **quick)
    assert (tissue.X != before.X).nnz == 0 and tissue.obs.equals(before.obs) and tissue.var.equals(before.var)
    assert repr(tissue) == repr(before) and np.array_equal(tissue.obsm["spatial"], before.obsm["spatial"])


def test_what_the_spots_of_a_run_hold(tissue, quick):
    cells = find(tissue, refine_neighbors=12, **quick).cells
    assert "X_pca_spatial" in cells.obsm and "spatial_weight" in cells.var
    assert np.array_equal(cells.obsm["spatial"], tissue.obsm["spatial"])
    assert (cells.obs["scrcl"].astype(str) != cells.obs["scrcl_unsmoothed"].astype(str)).any()


def test_confidence_is_that_of_the_smoothed_labels(tissue, quick):
    """By hand: the share of the seeds whose labels, as they stand beside the final ones, agree with these."""
    quick = quick | {"embedding": "joint", "mixture_dims": [20]}
    result = find(tissue, **(quick | {"seeds": [1, 2, 3]}))
    final = result.labels["scrcl"].astype(int).to_numpy()
    agree = []
    for name in result.seeds:
        common = pd.crosstab(result.labels[name].astype(int), result.labels["scrcl"].astype(int))
        ours, theirs = linear_sum_assignment(common, maximize=True)
        match = dict(zip(common.index[ours], common.columns[theirs]))
        agree.append(result.labels[name].astype(int).map(match).to_numpy() == final)
    assert np.allclose(result.confidence, np.mean(agree, axis=0)) and result.confidence.min() < 1
    alone = find(tissue, **quick)
    assert alone.confidence.isna().all() and metrics(alone)["mean_confidence"] is None


def test_a_domain_that_is_only_a_border_is_doubtful():
    """Of the demo's seven layers six are found, and the seventh domain is a border; a short training shows it too."""
    tissue = layered_tissue()
    result = find(tissue, n_clusters=7, epochs=20, seeds=[5])
    shares = pd.crosstab(result.labels["scrcl"], tissue.obs["ground_truth"], normalize="columns")
    layers = shares.max(axis=1) > 0.5  # whether a domain holds most of a layer
    assert layers.sum() == 6 and len(result.clusters) == 7
    doubtful = result.clusters[result.clusters["verdict"] != "clear"]
    assert list(doubtful.index) == list(layers.index[~layers])
    assert re.fullmatch(r"doubtful: may be part of cluster \d", doubtful["verdict"].item())


def test_the_views_of_one_seed_give_a_confidence(tissue, quick):
    result = find(tissue, **quick)
    assert set(result.clustered.values()) == {"a vote of 12 partitions of 4 views"}
    twelfths = result.confidence * 12
    assert np.allclose(twelfths, twelfths.round(), atol=1e-4) and result.confidence.nunique() > 2
    assert metrics(result)["mean_confidence"] == pytest.approx(result.confidence.mean())
    assert "Agreement:" in summary(result)
    plain = find(tissue, **(quick | {"gene_weights": "none"}))
    assert set(plain.clustered.values()) == {"a vote of 12 partitions of 4 views"}


@pytest.mark.parametrize("choice", ["scaled", "uncentred", "lognorm", "counts"])
def test_genes_weigh_the_same_in_whatever_the_encoders_see(tissue, choice):
    seen = {}
    for weights in ("spatial", "none"):
        settings = TissueSettings(encoder_input=choice, gene_weights=weights, n_clusters="3")
        seen[weights] = prepare(tissue, settings, Stopwatch())
    expected = seen["spatial"].cells.var["spatial_weight"].to_numpy(dtype=np.float32)
    assert np.ptp(expected) > 0.1 and np.allclose(seen["spatial"].inputs, seen["none"].inputs * expected, atol=1e-6)


def test_columns_of_an_earlier_run_do_not_stay(tissue, quick):
    first = find(tissue, **quick).cells
    first.obs["scrcl_total"] = -1.0
    again = find(first, gene_weights="none", layer="X", **quick).cells  # log-normalised values
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
        runs.append(find(other, n_clusters=5, **quick))
    assert runs[0].labels.equals(runs[1].labels) and runs[0].labels.equals(runs[2].labels)
    assert runs[2].scores == {} and runs[0].scores["scrcl"]["ARI"] != runs[1].scores["scrcl"]["ARI"]


def test_spots_without_position_or_annotation(tissue, quick):
    tissue.obsm["spatial"][:4] = np.nan
    tissue.obs.loc[tissue.obs_names[:50], "ground_truth"] = None
    result = find(tissue, **quick)
    assert result.labels["scrcl"].isna().sum() == 4 and result.labels["scrcl"].isna().iloc[:4].all()
    assert result.scores["scrcl"]["n_scored"] == tissue.obs["ground_truth"].notna().sum()


def test_positions_from_columns_and_counts_from_a_layer(tissue, quick):
    plain = find(tissue, **quick)
    tissue.obs[["x", "y"]] = tissue.obsm.pop("spatial")
    tissue.layers["count"] = tissue.X
    tissue.X = tissue.X * 0.37
    other = find(tissue, **quick)
    assert other.labels.equals(plain.labels) and other.prepared.values == "counts, in layers['count']"


@pytest.mark.parametrize(
    "settings",
    [{"graph": "delaunay"}, {"graph": "radius", "radius": 150.0}, {"hvg_flavor": "seurat_v3", "n_top_genes": 30}]
    + [{"encoder_input": "uncentred"}, {"n_neighbors": 4}],
)
def test_every_choice_runs_and_changes_the_embedding(tissue, quick, settings):
    plain, other = find(tissue, **quick), find(tissue, **(quick | settings))
    assert other.labels["scrcl"].notna().all()
    assert not np.allclose(plain.cells.obsm["X_scrcl"], other.cells.obsm["X_scrcl"])


def test_two_sections_are_trained_together_without_an_edge_between(tissue, quick):
    """The tissue twice, in the same place of two slides."""
    both = ad.concat({"s1": tissue, "s2": tissue}, label="slide", index_unique="-")
    both.obs["slide"] = both.obs["slide"].astype(str)
    result = find(both, section_key="slide", **quick)
    first = (both.obs["slide"] == "s1").to_numpy()
    graph, alone = (found.cells.obsp["scrcl_graph"] for found in (result, find(tissue, **quick)))
    assert graph[first][:, ~first].nnz == 0 and (graph[first][:, first] != alone).nnz == 0
    labels = result.labels["scrcl"].to_numpy()
    assert (labels[first] == labels[~first]).mean() > 0.95  # the same spots, but for rounding and dropout
    joined = find(both, section_key="none", **quick).cells.obsp["scrcl_graph"]
    assert joined[first][:, ~first].nnz > 0


def test_counts_without_values_for_seurat_v3(tissue, quick):
    tissue.X.data = np.log1p(tissue.X.data * 0.31)
    with pytest.raises(UserError, match="data hold none; add --hvg-flavor"):
        find(tissue, hvg_flavor="seurat_v3", n_top_genes=30, **quick)
