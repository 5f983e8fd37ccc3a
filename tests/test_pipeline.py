"""Whole runs on small data: results, repetition, odd input, and no influence of labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import FAST, run, simulate
from sklearn.metrics import adjusted_rand_score

import cluster
import data
import figures
import pipeline
import results
import runSC
import train
from pipeline import find_cell_types
from simulate import layered_tissue
from utils import UserError

ROOT = Path(pipeline.__file__).parent


def test_cell_types_of_simulated_data_are_found(counts):
    result = find_cell_types(counts, epochs=30, hidden=32, n_top_genes=60, n_pcs=10)
    assert result.scores["scrcl"]["ARI"] > 0.95
    assert result.prepared.n_clusters == 3 and "cell_type1" in result.prepared.n_clusters_from


def test_keys_in_the_callers_anndata(counts, fast):
    before = counts.X.copy()
    result = find_cell_types(counts, **(fast | {"seeds": [1, 2]}))
    assert list(counts.obs) == ["cell_type1", "scrcl_seed_1", "scrcl_seed_2", "scrcl", "scrcl_confidence"]
    assert isinstance(counts.obs["scrcl"].dtype, pd.CategoricalDtype) and all(
        isinstance(c, str) for c in counts.obs["scrcl"].cat.categories
    )
    assert counts.obsm["X_scrcl"].shape[0] == counts.n_obs and counts.obsp["scrcl_graph"].shape == (
        counts.n_obs,
        counts.n_obs,
    )
    assert counts.uns["scrcl"]["params"]["seeds"] == [1, 2] and "torch" in counts.uns["scrcl"]["versions"]
    assert (counts.X != before).nnz == 0
    assert np.array_equal(result.cells.layers["counts"].toarray(), counts[:, result.cells.var_names].X.toarray())


def test_same_seed_same_result_and_another_seed_another(counts, fast):
    runs = [find_cell_types(counts.copy(), **(fast | {"seeds": [seed]})) for seed in (5, 5, 6)]
    assert np.array_equal(runs[0].cells.obsm["X_scrcl"], runs[1].cells.obsm["X_scrcl"])
    assert runs[0].labels.equals(runs[1].labels)
    assert not np.array_equal(runs[0].cells.obsm["X_scrcl"], runs[2].cells.obsm["X_scrcl"])


def test_a_seed_gives_the_same_alone_and_in_a_list(counts, fast):
    alone = find_cell_types(counts.copy(), **(fast | {"seeds": [6]}))
    listed = find_cell_types(counts.copy(), **(fast | {"seeds": [5, 6]}))
    assert alone.labels["seed_6"].equals(listed.labels["seed_6"])


def test_torchs_random_state_is_left_alone(counts, fast):
    before = torch.get_rng_state()
    find_cell_types(counts, **fast)
    assert torch.equal(before, torch.get_rng_state())


def test_labels_touch_nothing_but_the_number_of_clusters(counts, fast):
    """Shuffled, renamed or absent labels, with the same number of clusters: identical results."""
    runs = []
    for labels in (counts.obs["cell_type1"], counts.obs["cell_type1"].sample(frac=1, random_state=0).to_numpy(), None):
        other = counts.copy()
        other.obs["cell_type1"] = labels
        runs.append(find_cell_types(other, n_clusters=3, **(fast | {"seeds": [1, 2]})))
    assert runs[0].labels.equals(runs[1].labels) and runs[0].labels.equals(runs[2].labels)
    assert runs[2].scores == {} and runs[0].scores["scrcl"]["ARI"] != runs[1].scores["scrcl"]["ARI"]


def test_without_labels_the_number_is_estimated(counts, fast):
    result = find_cell_types(counts, label_key="none", **fast)
    assert result.prepared.n_clusters_from == "estimated without labels" and result.scores == {}


def test_partly_labelled_cells_are_all_clustered(counts, fast):
    counts.obs.loc[counts.obs_names[:50], "cell_type1"] = None
    result = find_cell_types(counts, **fast)
    assert result.labels["scrcl"].notna().all() and result.scores["scrcl"]["n_scored"] == counts.n_obs - 50


def test_cells_without_counts_keep_their_row(counts, fast):
    counts.X = counts.X.toarray()
    counts.X[[0, 7]] = 0
    result = find_cell_types(counts, **fast)
    assert result.labels.index.equals(counts.obs_names)
    assert result.labels["scrcl"].isna().sum() == 2 and result.labels["scrcl"].isna().iloc[[0, 7]].all()
    assert counts.obs["scrcl"].isna().sum() == 2 and np.isnan(counts.obsm["X_scrcl"][[0, 7]]).all()
    assert result.cells.n_obs == counts.n_obs - 2


@pytest.mark.parametrize("kind", ["TPM", "log-normalised", "dense", "few genes"])
def test_other_input(counts, fast, kind):
    values = counts.X.toarray()
    if kind == "TPM":
        values = values / values.sum(1, keepdims=True) * 1e6
    if kind == "log-normalised":
        values = np.log1p(values / values.sum(1, keepdims=True) * 1e4)
    other = ad.AnnData(values, obs=counts.obs)
    result = find_cell_types(other, **(fast | {"n_top_genes": 500 if kind == "few genes" else 60}))
    assert result.labels["scrcl"].notna().all()
    assert ("counts" in result.cells.layers) == (kind in ("dense", "few genes"))


@pytest.mark.parametrize(
    "settings",
    [
        {"embedding": "refined"},
        {"embedding": "encoder"},
        {"embedding": "joint-refined"},
        {"embedding": "pcs"},
        {"embedding": "joint"},
        {"mixture_dims": [5]},
        {"cluster_method": "kmeans"},
        {"cluster_method": "leiden"},
        {"encoder_input": "counts"},
        {"graph_on": "genes", "metric": "cosine"},
        {"hops": [2, 1]},
        {"refined_width": 7},
        {"consistency": "published"},
    ],
)
def test_every_choice_runs_and_changes_the_embedding(counts, fast, settings):
    plain = find_cell_types(counts.copy(), **fast)
    other = find_cell_types(counts.copy(), **(fast | settings))
    same = plain.cells.obsm["X_scrcl"].shape == other.cells.obsm["X_scrcl"].shape and np.allclose(
        plain.cells.obsm["X_scrcl"], other.cells.obsm["X_scrcl"]
    )
    assert same == ("cluster_method" in settings or "mixture_dims" in settings or settings == {"embedding": "joint"})
    assert other.labels["scrcl"].nunique() == 3


def test_joint_embedding_by_hand():
    """Two columns that vary by 1 and 3 about their mean: a total variance of 10 becomes 1."""
    points = np.array([[1.0, 3.0], [-1.0, -3.0]]) + 5
    assert np.allclose(pipeline.unit_variance(points), np.array([[1, 3], [-1, -3]]) / np.sqrt(10))
    found = train.Embedded(points, points[:, :1], lengths=np.ones((2, 2)))
    assert np.allclose(pipeline.embedding(found, points, "joint"), np.hstack(2 * [pipeline.unit_variance(points)]))
    assert pipeline.embedding(found, points, "refined") is found.refined
    swapped = pipeline.embedding(found, points, "refined", np.array([1, 0]))
    assert np.array_equal(swapped, found.refined[::-1])


def test_short_rows_stay_short():
    """H1 of lengths 1, 2 and 4, of which 2 is the median: 1 / sqrt(1 + 4), 2 / sqrt(4 + 4), 4 / sqrt(16 + 4). H2 is 0 for most cells."""
    directions = np.array([[1.0, 0, 0.6, 0.8], [0.6, -0.8, 0, 0], [0, 1, 0, 0]])
    found = pipeline.shortened_rows(directions, np.array([[1.0, 3], [2, 0], [4, 0]]))
    first = np.array([1 / np.sqrt(5), 2 / np.sqrt(8), 4 / np.sqrt(20)])[:, None]
    assert np.allclose(found[:, :2], directions[:, :2] * first)
    assert np.array_equal(found[:, 2:], directions[:, 2:])


def test_long_rows_by_hand():
    """Lengths 1, 2 and 8, of which 2 is the median: divided by sqrt(1 + 16), sqrt(4 + 16), sqrt(64 + 16)."""
    points = np.array([[0.6, 0.8], [2.0, 0.0], [0.0, -8.0]])
    assert np.allclose(pipeline.without_long_rows(points), points / np.sqrt([[17.0], [20.0], [80.0]]))
    assert not pipeline.without_long_rows(np.zeros((3, 2))).any()


def test_few_cells_are_clustered_without_long_rows(fast, monkeypatch):
    few = find_cell_types(simulate(60), **(fast | {"embedding": "pcs"}))
    assert np.allclose(few.prepared.beside, pipeline.without_long_rows(few.cells.obsm["X_pca"]))
    monkeypatch.setattr(cluster, "FEW_CELLS", 60)
    enough = find_cell_types(simulate(60), **(fast | {"embedding": "pcs"}))
    assert enough.prepared.beside is enough.cells.obsm["X_pca"]


def test_counts_asked_for_but_not_there(counts, fast):
    values = counts.X.toarray()
    with pytest.raises(UserError, match="raw counts"):
        find_cell_types(
            ad.AnnData(np.log1p(values / values.sum(1, keepdims=True) * 1e4)), encoder_input="counts", **fast
        )


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (lambda: simulate(10), {}, "10 cells, too few"),
        (lambda: simulate(40), {"n_clusters": 41}, "only 40 cells"),
        (lambda: ad.AnnData(np.eye(2)), {}, "at least 3 cells"),
        (lambda: ad.AnnData(np.zeros((30, 30))), {}, "Only 0 cells"),
        (lambda: simulate(), {"device": "cuda:99"}, "not on this machine"),
        (lambda: simulate(), {"device": "abacus"}, "--device takes"),
        (lambda: simulate(), {"lr": 1e30, "encoder_input": "counts"}, "no longer a finite number"),
        (lambda: simulate(), {"lr": 1e30, "epochs": 1}, "not finite after the last epoch"),
    ],
)
def test_input_that_cannot_be_used(fast, make, settings, says):
    with pytest.raises(UserError, match=says):
        find_cell_types(make(), **(fast | settings))


# The command line


def test_files_of_a_run(monkeypatch, capsys, tmp_path, counts):
    counts.X = counts.X.toarray()
    counts.X[3] = 0
    counts.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"
    code, text, _ = run(
        runSC, monkeypatch, capsys, "--dataset", tmp_path / "in.h5ad", "--output", out, *FAST, "--seeds", 5, 15
    )
    assert code == 0 and "mean ± sd" in text and "Peak memory" in text
    assert {path.name for path in out.iterdir()} == {*results.FILES, *figures.FILES}
    labels = pd.read_csv(out / "labels.csv")
    assert list(labels) == ["barcode", "seed_5", "seed_15", "scrcl_confidence", "scrcl"] and list(
        labels["barcode"]
    ) == list(counts.obs_names)
    assert labels["scrcl"].isna().sum() == 1
    saved = ad.read_h5ad(out / "result.h5ad")
    assert (
        {"X_scrcl", "X_pca", "X_umap"} <= set(saved.obsm) and "scrcl_graph" in saved.obsp and "counts" in saved.layers
    )
    assert saved.uns["scrcl"]["n_clusters"] == 3
    scores = json.loads((out / "metrics.json").read_text())
    assert scores["mean"]["ARI"] == pytest.approx(np.mean([scores["scores"][f"seed_{s}"]["ARI"] for s in (5, 15)]))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 10 and set(lines[0]) == {"seed", "epoch", "hea_global", "hea_cell", "ndc", "cvc", "total"}
    state = torch.load(out / "model.pt", weights_only=True)
    assert "projector.weight" in state


def test_config_yaml_repeats_the_run(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    first, second = tmp_path / "first", tmp_path / "second"
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", first, *FAST, "--seed", 7, "--no-figures"]
    run(runSC, monkeypatch, capsys, *argv)
    recorded = yaml.safe_load((first / "config.yaml").read_text())
    assert recorded["provenance"]["input"]["sha256"] and recorded["settings"]["seeds"] == [7]
    code, *_ = run(runSC, monkeypatch, capsys, "--config", first / "config.yaml", "--output", second)
    assert code == 0
    assert (first / "labels.csv").read_bytes() == (second / "labels.csv").read_bytes()


def test_a_later_run_leaves_no_figure_of_an_earlier_one(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "notes.txt").write_text("the user's own")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path, *FAST]
    run(runSC, monkeypatch, capsys, *argv)
    assert (tmp_path / "confusion.png").exists()
    run(runSC, monkeypatch, capsys, *argv, "--label-key", "none", "--n-clusters", 3, "--no-figures")
    assert not (tmp_path / "confusion.png").exists() and (tmp_path / "notes.txt").exists()


def test_files_that_no_run_has_written_are_never_touched(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "result.h5ad")
    before = (tmp_path / "result.h5ad").read_bytes()
    code, _, err = run(runSC, monkeypatch, capsys, "--dataset", tmp_path / "result.h5ad", "--output", tmp_path, *FAST)
    assert code == 2 and "would overwrite the input" in err
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "labels.csv").write_text("the user's own")
    code, _, err = run(
        runSC, monkeypatch, capsys, "--dataset", tmp_path / "result.h5ad", "--output", tmp_path / "sub", *FAST
    )
    assert code == 2 and "not of an earlier run" in err
    assert (tmp_path / "result.h5ad").read_bytes() == before and len(list((tmp_path / "sub").iterdir())) == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--dataset", "nowhere"], "There is no data set 'nowhere'"),
        (["--dataset", "Baron_human"], "fetch.py Baron_human` fetches it"),
        (["--unknown-flag"], "Unrecognized arguments: --unknown-flag"),
        (["--device", "cuda:7"], "not on this machine"),
        (["--label-key", "typo"], "no obs column 'typo'"),
        (["--output", "/proc/nothing/can/be/here"], "cannot be written"),
        (["--n-clusters", "701"], "only 700 cells"),
    ],
)
def test_one_sentence_and_exit_code_2(monkeypatch, capsys, argv, says):
    code, out, err = run(runSC, monkeypatch, capsys, *argv)
    assert code == 2 and says in err and "Traceback" not in err and out == ""
    assert err.strip().splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("failure", [UserError("no more"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_run_that_ends_early_leaves_earlier_results_whole(monkeypatch, capsys, tmp_path, counts, failure):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", out, "--no-figures", *FAST]
    assert run(runSC, monkeypatch, capsys, *argv)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*args, **kwargs):
        raise failure

    where = (results, "provenance") if isinstance(failure, OSError) else (train, "step")
    monkeypatch.setattr(*where, fail)
    code, _, err = run(runSC, monkeypatch, capsys, *argv, "--seed", 99)
    assert code == (130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert "No space left" in err or not isinstance(failure, OSError)
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    after.pop("log.unfinished.jsonl", None)
    assert after == before


def test_labels_survive_annotations_that_h5ad_cannot_hold(tmp_path, counts, fast):
    counts.obs["odd"] = [{"a": 1}] * counts.n_obs
    results.write(find_cell_types(counts, **(fast | {"seeds": [5]})), tmp_path, None)
    assert set(ad.read_h5ad(tmp_path / "result.h5ad").obs) == {
        "scrcl",
        "scrcl_seed_5",
        "scrcl_confidence",
        "scrcl_total",
    }
    assert (tmp_path / "labels.csv").exists()


def test_labels_only_on_cells_without_counts(counts, fast):
    counts.X = counts.X.toarray()
    counts.X[0] = 0
    counts.obs.loc[counts.obs_names[1:], "cell_type1"] = None
    result = find_cell_types(counts, n_clusters=np.int64(3), **fast)
    assert result.scores == {} and result.labels["scrcl"].notna().sum() == counts.n_obs - 1


def test_a_second_call_replaces_the_labels_of_the_first(counts, fast):
    find_cell_types(counts, **(fast | {"seeds": [1, 2]}))
    find_cell_types(counts, **(fast | {"seeds": [3]}))
    assert list(counts.obs) == ["cell_type1", "scrcl", "scrcl_confidence", "scrcl_seed_3"]
    assert "dataset" not in counts.uns["scrcl"]["params"]


def test_the_bundled_set_is_real_and_labelled():
    adata = data.read(None)
    assert adata.shape == (700, 765) and data.find_labels(adata.obs).nunique() == 10
    assert data.find_expression(adata).source == ".raw"


def test_a_confusion_table_with_unlabelled_and_lost_types(counts, fast):
    counts.obs["cell_type1"] = counts.obs["cell_type1"].where(np.arange(counts.n_obs) > 20, None)
    result = find_cell_types(counts, n_clusters=2, **fast)
    figure = figures.confusion_figure(result.labels["scrcl"], result.prepared.known)
    assert (
        len(figure.axes[0].get_yticks()) == 3 and len(figure.axes[0].get_xticks()) == result.labels["scrcl"].nunique()
    )


def test_final_labels_are_the_consensus_of_all_seeds(counts, fast):
    result = find_cell_types(counts, **(fast | {"seeds": [1, 2, 3]}))
    agreement = {name: adjusted_rand_score(result.labels[name], result.labels["scrcl"]) for name in result.seeds}
    assert agreement[f"seed_{result.chosen_seed}"] == max(agreement.values())
    assert result.confidence.between(0, 1).all() and result.confidence.mean() > 0.9
    assert counts.obs["scrcl_confidence"].equals(result.confidence)
    assert pipeline.versions()["scrcl"]


def test_what_is_clustered_is_chosen_by_the_cell_graph_alone(counts, fast):
    """Of the joint embedding and the PCs, on 2 or 5 dimensions, whatever agrees best with the graph."""
    settings = fast | {"seeds": [4], "n_clusters": 6}
    chosen = find_cell_types(counts, **(settings | {"mixture_dims": [2, 5]}))
    graph, labels, agreement = chosen.cells.obsp["scrcl_graph"], {}, {}
    for embedding in ("joint", "pcs"):
        for n_dims in (2, 5):
            alone = find_cell_types(counts.copy(), **(settings | {"embedding": embedding, "mixture_dims": [n_dims]}))
            name = f"{embedding}, {n_dims} dimensions"
            labels[name] = alone.labels["seed_4"]
            agreement[name] = cluster.agreement_with_graph(labels[name].astype(int).to_numpy(), graph)
            assert alone.cells.uns["scrcl"]["clustered"] == {"seed_4": name}
    name = max(agreement, key=agreement.get)
    assert len(set(agreement.values())) > 1 and chosen.cells.uns["scrcl"]["clustered"] == {"seed_4": name}
    assert adjusted_rand_score(chosen.labels["seed_4"], labels[name]) > 0.99
    assert name in results.summary(chosen) and results.metrics(chosen)["clustered"] == {"seed_4": name}


def test_one_seed_is_its_own_consensus(counts, fast):
    result = find_cell_types(counts, **(fast | {"seeds": [4]}))
    assert result.labels["scrcl"].equals(result.labels["seed_4"].rename("scrcl")) and result.chosen_seed == 4


def test_training_ends_where_the_loss_is_flat(counts, fast):
    settings = fast | {"epochs": 60, "seeds": [5]}
    whole = find_cell_types(counts.copy(), **(settings | {"plateau": 0}))
    early = find_cell_types(counts.copy(), **(settings | {"plateau": 0.2}))
    losses = [record["total"] for record in whole.history]
    expected = next(i for i in range(10, 60) if losses[i - 10] - losses[i] < 0.2 * losses[0])
    assert len(losses) == 60 and [record["total"] for record in early.history] == losses[: expected + 1]


def test_a_folder_with_the_name_of_a_data_set_is_not_taken_for_it(monkeypatch, capsys, tmp_path, counts):
    """python runSC.py --dataset mine --output mine: config.yaml names the file."""
    counts.write_h5ad(tmp_path / "mine.h5ad")
    monkeypatch.setattr(data.find_h5ad, "__defaults__", (tmp_path,))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(runSC, monkeypatch, capsys, "--dataset", "mine", *FAST, "--no-figures", "--output", "mine")[0] == 0
    settings = yaml.safe_load((tmp_path / "here" / "mine" / "config.yaml").read_text())["settings"]
    assert settings["dataset"] == str(tmp_path / "mine.h5ad") and settings["output"] == str(tmp_path / "here" / "mine")


def test_a_plateau_of_0_ends_nothing_even_where_the_loss_rises(counts, fast, monkeypatch):
    rising = iter(range(1, 31))
    monkeypatch.setattr(train, "step", lambda *_: {"total": float(next(rising))})
    assert len(find_cell_types(counts, **(fast | {"epochs": 30, "seeds": [5], "plateau": 0})).history) == 30


def same_but_for_rounding(one: pipeline.Result, two: pipeline.Result) -> None:
    """Sums of another number of threads may be rounded in another order, as on Intel processors; no more than that."""
    ours, theirs = (pd.DataFrame(run.history)[["epoch", "ndc", "cvc", "total"]] for run in (one, two))
    assert np.allclose(ours, theirs, rtol=1e-3)
    assert adjusted_rand_score(one.labels["scrcl"], two.labels["scrcl"]) > 0.95


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_yield_unless_the_user_says_otherwise(given, spins):
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, utils; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=plain | given, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"{spins}\n", done.stderr


def test_one_thread_or_two_differ_by_rounding_alone(fast):
    settings = fast | {"epochs": 20, "hidden": 64, "n_top_genes": 500, "n_pcs": 30, "seeds": [5, 15]}
    one, two, again = (find_cell_types(data.read(None), threads=threads, **settings) for threads in (1, 2, 2))
    same_but_for_rounding(one, two)
    assert np.array_equal(one.cells.obsm["X_pca"], two.cells.obsm["X_pca"])
    assert two.history == again.history and two.labels.equals(again.labels)
    assert np.array_equal(two.cells.obsm["X_scrcl"], again.cells.obsm["X_scrcl"])


def test_tissue_of_one_thread_or_two_differs_by_rounding_alone(fast):
    settings = fast | {"epochs": 20, "n_top_genes": 80, "n_clusters": 4}
    same_but_for_rounding(
        *(
            pipeline.find_domains(layered_tissue(n_spots=400, n_genes=80), threads=threads, **settings)
            for threads in (1, 2)
        )
    )
