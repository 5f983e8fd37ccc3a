"""The benchmarks still run against the code, and their steps of the recipe give what the recipe gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import simulate

from benchmarks import accuracy, accuracy_tables, datasets, ranking, runs, scale, step, trust
from benchmarks.datasets import DataSet
from benchmarks.variants import RECIPE, VARIANTS, Variant, changed
from scrcl import analysis
from scrcl.cluster import number
from scrcl.cluster.embedding import beside_pcs, embedding
from scrcl.keys import OURS
from scrcl.method import training
from scrcl.method.network import ScRCL
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import RECIPES, Task
from scrcl.runtime import Stopwatch

DATA: dict[Task, Callable[[], ad.AnnData]] = {"SC": lambda: simulate(80), "ST": lambda: layered_tissue(150, 60)}
QUICK = {"epochs": 14, "hidden": 8}  # for the plateau to be looked for


def prepared(task: Task) -> DataSet:
    return DataSet(task, analysis.PREPARE[task](DATA[task](), RECIPES[task](), Stopwatch()))


def trained(without: tuple[str, ...], **settings: Any) -> ScRCL:
    """A model of the simulated cells with some losses left out."""
    data, given = prepared("SC"), RECIPES["SC"](**QUICK | settings)
    inputs = runs.on_device(runs.inputs_of(data.prepared, given), torch.device("cpu"))
    return runs.model_of(data, inputs, given, without, 3, 5)


def same_parameters(one: ScRCL, other: ScRCL) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("task", RECIPES)
def test_the_recipe_as_it_is_gives_what_an_analysis_gives(task):
    data, settings = prepared(task), RECIPES[task](seeds=[5, 6], **QUICK)
    found = runs.of_recipe(data, changed(**QUICK), [5, 6])
    n_clusters = number.choose(data.prepared, settings)
    labels = analysis.train_and_cluster(data.prepared, n_clusters, settings, torch.device("cpu")).labels
    for ours, theirs in {"": OURS.labels, "5": "seed_5", "6": "seed_6"}.items():
        pd.testing.assert_series_equal(found[ours], labels[theirs])


def test_a_loss_left_out_counts_for_nothing():
    assert same_parameters(trained(("cvc", "ndc")), trained((), lambda1=0, lambda2=0))
    assert not same_parameters(trained(("hea_global", "hea_cell")), trained(()))


def test_rows_of_one_length_stand_beside_the_pcs_as_they_are():
    data, settings = prepared("SC"), RECIPES["SC"](**QUICK)
    inputs, pcs = runs.on_device(runs.inputs_of(data.prepared, settings), torch.device("cpu")), data.prepared.pcs
    found = training.embed(runs.model_of(data, inputs, settings, (), 3, 5), inputs)
    plain = beside_pcs(found.encoder, pcs)
    np.testing.assert_allclose(embedding(runs.equally_long(found), pcs, "joint"), plain, rtol=1e-4, atol=1e-7)
    assert not np.allclose(embedding(found, pcs, "joint"), plain, rtol=1e-2, atol=1e-3)


def test_nothing_is_trained_twice():
    data = prepared("SC")
    for variant in (changed(**QUICK), changed(embedding="encoder", **QUICK), Variant(QUICK, unit_rows=True)):
        runs.of_recipe(data, variant, [5])
    assert len(data.models) == 1
    for other in (Variant(QUICK, without=("hea_cell",)), changed(hops=[1, 0], **QUICK)):
        runs.of_recipe(data, other, [5])
    assert len(data.models) == 3


@pytest.mark.parametrize("task", RECIPES)
def test_every_variant_is_one_of_settings_that_there_are(task):
    for name, variant in VARIANTS[task].items():
        settings = RECIPES[task](**variant.settings)
        assert (settings != RECIPES[task]() or variant != RECIPE) or name in ("as it is", "200 epochs")


@pytest.mark.parametrize("task", RECIPES)
def test_every_kind_of_method_gives_a_row(task, tmp_path):
    """A CSV of two calls: the second one adds what the first did not have."""
    DATA[task]().write_h5ad(tmp_path / "some.h5ad")
    csv, named = tmp_path / "scores.csv", next(reversed(accuracy.POINTS[task]))
    given = task, [str(tmp_path / "some.h5ad")], "as it is", [5]
    accuracy.run(*given, ["1 epoch", "number: estimated"], csv)
    accuracy.run(*given, ["1 epoch", f"{named} + Leiden", f"{named} + k-means"], csv)
    rows = pd.read_csv(csv)
    assert list(rows) == [*accuracy.KEY, "ACC", "NMI", "ARI", "F1", "n_clusters", "n_types", "recall", "seconds"]
    assert list(rows["method"]) == ["1 epoch", "number: estimated", f"{named} + Leiden", f"{named} + k-means"]
    assert list(rows["dataset"].unique()) == ["some"] and rows["ARI"].notna().sum() == 3


def test_the_consensus_and_its_seeds_are_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "RECIPE", changed(**QUICK))
    simulate(80).write_h5ad(tmp_path / "some.h5ad")
    found, known = accuracy.found_by("SC", str(tmp_path / "some.h5ad"), "as it is", "scRCL", 5)
    assert list(found) == [("scRCL", 5), *(("scRCL, one seed", seed) for seed in range(5, 10))]
    assert accuracy.row_of(found["scRCL", 5], known)["ARI"] > 0.9


def test_the_published_settings_by_their_last_and_their_best_epoch():
    data = prepared("SC")
    settings = RECIPES["SC"](embedding="refined", cluster_method="kmeans", consistency="published", epochs=20, hidden=8)
    last, oracle = runs.as_published(data, settings, 5)
    likes = [runs.score(labels, data.prepared.known)["NMI"] for labels in (last, oracle)]
    assert likes[0] <= likes[1] and list(last.index) == list(data.prepared.cells.obs_names)


def test_parts_of_a_data_set():
    adata = simulate(200)
    rng = np.random.default_rng(0)
    assert datasets.INPUTS["hundred-cells"](adata.copy(), rng).n_obs == 100
    found = [datasets.INPUTS[f"mixed-{draw}"](adata.copy(), rng) for draw in (1, 2)]
    assert all(part.obs["cell_type1"].value_counts().min() >= 6 and part.n_obs < 200 for part in found)
    assert set(found[0].obs_names) != set(found[1].obs_names)


def test_every_form_of_a_step():
    seconds = step.seconds_in_turn(list(step.FORMS), torch.device("cpu"), 60, 40, 8)
    assert set(seconds) == set(step.FORMS) and all(min(found) > 0 for found in seconds.values())


def test_the_dense_step_of_a_scale_run(monkeypatch):
    monkeypatch.setattr(scale, "GENES", 40)
    assert scale.RUNS["dense"](Path("not read"), 60, 1, "cpu").keys() == {"step", "gib"}


def test_exponents():
    cells = pd.Series([1e3, 1e4, 1e5, 1e6])
    # Fitted from 10,000 cells up: the first value counts for nothing.
    assert scale.exponent(cells, pd.Series([7.0, 2.0, 20.0, 200.0])) == pytest.approx(1)
    assert scale.exponent(cells, pd.Series([1.0, 1.0, 1e2, 1e4])) == pytest.approx(2)


def test_a_ranking_is_measured():
    method, before, after, seconds = ranking.measure(("t-test", 60, 200, 3))
    assert method == "t-test" and 0 < float(before) <= float(after) and int(seconds) < 60


def test_table_of_the_parts_by_hand():
    """Two sets and two seeds; the variant has one pair on each set: gains of .2 and -.1, so .05 ± .15."""
    runs_made = [
        *(("as it is", "a", 5, 0.5), ("as it is", "a", 15, 0.7), ("as it is", "b", 5, 0.6)),
        *(("less", "a", 5, 0.7), ("less", "b", 5, 0.5)),
    ]
    rows = pd.DataFrame(runs_made, columns=["method", "dataset", "seed", "ARI"]).assign(NMI=0.1, F1=0.2)
    *_, recipe, less = accuracy_tables.ablation(rows).split("\n")
    assert recipe == "| as it is | 0.600 | 0.600 | 0.600 | 0.100 | 0.200 | +0.000 |"
    assert less == "| less | 0.700 | 0.500 | 0.600 | 0.100 | 0.200 | +0.050 ± 0.150 |"


def test_table_of_scores_by_hand():
    """The oracle is no result: neither bold nor ranked."""
    made = [
        *(("one", "a", 5, 0.5), ("one", "a", 15, 0.7), ("one", "b", 5, 0.6)),
        *(("two", "a", 5, 0.7), ("the oracle", "a", 5, 0.9), ("the oracle", "b", 5, 0.9)),
    ]
    _, _, one, two, oracle = accuracy_tables.table(
        pd.DataFrame(made, columns=["method", "dataset", "seed", "ARI"]), "ARI"
    ).split("\n")
    assert one == "| one | 0.600 ± 0.141 | **0.600** | 0.600 | 1.5 |"
    assert two == "| two | **0.700** |  |  |  |"
    assert oracle == "| the oracle | 0.900 | 0.900 | 0.900 | nan |"


def test_clusters_are_judged_by_hand():
    """Of type a, cluster 0 has 4 of 6 cells and 2 has the others; 1 has 2 of b and 2 of c; 3 has no known cell."""
    labels = pd.Series([*"0000", *"1111", *"22", "3"])
    known = pd.Series([*"aaaa", *"bbcc", *"aa", None])
    clusters = pd.DataFrame(
        {"agreement": 1.0, "support": [np.nan, 0.9, 0.4, 0.8], "verdict": ["clear", "clear", "doubtful", "clear"]},
        index=list("0123"),
    )
    found = trust.judged(clusters, labels, known)
    assert list(found.index) == list("012")  # Jaccard: 4 of 6, 2 of 4, 2 of 6
    assert found["false"].tolist() == [False, False, True] and found["part"].tolist() == [False, False, True]
    assert trust.row("mine", found) == ["mine", "3", "1", "1", "1", "1.00", "1", "1", "1.00"]


def test_a_floor_is_the_slower_of_bytes_and_operations():
    """Of a thousand cells: 2 n G^2 operations of their genes, at a rate of a GFLOP/s or without limit."""
    run = {"cells": 1000, "epochs": 2, "file GB": 0.5, "peak GB/s": 10.0, "peak GFLOP/s": 1.0}
    slow, fast = scale.floors(run), scale.floors(run | {"peak GFLOP/s": np.inf})
    assert slow["preprocess"] == pytest.approx(2 * 1000 * scale.GENES**2 / 1e9)
    assert fast["preprocess"] == pytest.approx(2 * 0.5 / 10) and slow["read"] == fast["read"] == pytest.approx(0.05)
    assert all(slow[stage] >= fast[stage] > 0 for stage in slow)
    assert scale.floors(run | {"card gib": 1.0})["train"] > 2 * slow["train"]  # a card multiplies zeros too
