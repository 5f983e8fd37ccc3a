"""The whole analysis on small data: what is found, that it repeats, odd input, and no influence of labels."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import simulate
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.analysis import analyse
from scrcl.cluster.agreement import agreement_with_graph
from scrcl.messages import UserError
from scrcl.method import inputs, training
from scrcl.prepare import prepared
from scrcl.prepare.features import Features
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import BUNDLED, CellSettings, TissueSettings
from scrcl.result import Result, metrics, summary
from scrcl.runtime import limited_threads


def find(adata: ad.AnnData, **settings) -> Result:
    return analyse(adata, CellSettings(**settings))


def test_cell_types_of_simulated_data_are_found(counts):
    result = find(counts, epochs=30, hidden=32, n_top_genes=60, n_pcs=10)
    assert result.scores["scrcl"]["ARI"] > 0.95
    assert result.n_clusters == 3 and "cell_type1" in result.n_clusters_from


def test_the_data_that_are_given_stay_as_they_are(counts, fast):
    counts.uns["own"], counts.obsm["X_umap"] = {"a": 1}, np.zeros((counts.n_obs, 2))
    before = counts.copy()
    result = find(counts, **fast)
    assert (counts.X != before.X).nnz == 0 and counts.obs.equals(before.obs) and counts.var.equals(before.var)
    assert repr(counts) == repr(before) and counts.uns == {"own": {"a": 1}}  # the names of all that it holds
    assert np.array_equal(result.cells.layers["counts"].toarray(), counts[:, result.cells.var_names].X.toarray())


def test_what_the_cells_of_a_run_hold(counts, fast):
    result = find(counts, **(fast | {"seeds": [1, 2]}))
    cells, parameters = result.cells, result.cells.uns["scrcl"]
    assert list(cells.obs) == [
        *("cell_type1", "scrcl_total", "scrcl_seed_1", "scrcl_seed_2", "scrcl", "scrcl_confidence"),
    ]
    assert cells.obsp["scrcl_graph"].shape == (counts.n_obs, counts.n_obs)
    assert parameters["params"]["seeds"] == [1, 2] and "dataset" not in parameters["params"]
    assert "torch" in parameters["versions"] and parameters["versions"]["scrcl"] == scrcl.__version__
    assert parameters["label_key"] == "cell_type1" and parameters["task"] == "SC"
    for name, losses in pd.DataFrame(result.history).items():
        assert np.array_equal(parameters["losses"][name], losses)
    assert parameters["scores"]["scrcl"]["ARI"] == result.scores["scrcl"]["ARI"]


def test_same_seed_same_result_and_another_seed_another(counts, fast):
    runs = [find(counts, **(fast | {"seeds": [seed]})) for seed in (5, 5, 6)]
    assert np.array_equal(runs[0].cells.obsm["X_scrcl"], runs[1].cells.obsm["X_scrcl"])
    assert runs[0].labels.equals(runs[1].labels)
    assert not np.array_equal(runs[0].cells.obsm["X_scrcl"], runs[2].cells.obsm["X_scrcl"])


def test_a_seed_gives_the_same_alone_and_in_a_list(counts, fast):
    alone = find(counts, **(fast | {"seeds": [6]}))
    listed = find(counts, **(fast | {"seeds": [5, 6]}))
    assert alone.labels["seed_6"].equals(listed.labels["seed_6"])


def test_torchs_random_state_is_left_alone(counts, fast):
    before = torch.get_rng_state()
    find(counts, **fast)
    assert torch.equal(before, torch.get_rng_state())


def test_labels_touch_nothing_but_the_number_of_clusters(counts, fast):
    """Shuffled, renamed or absent labels, with the same number of clusters: identical results."""
    runs = []
    for labels in (counts.obs["cell_type1"], counts.obs["cell_type1"].sample(frac=1, random_state=0).to_numpy(), None):
        other = counts.copy()
        other.obs["cell_type1"] = labels
        runs.append(find(other, n_clusters=3, **(fast | {"seeds": [1, 2]})))
    assert runs[0].labels.equals(runs[1].labels) and runs[0].labels.equals(runs[2].labels)
    assert runs[2].scores == {} and runs[0].scores["scrcl"]["ARI"] != runs[1].scores["scrcl"]["ARI"]


def test_without_labels_the_number_is_estimated(counts, fast):
    result = find(counts, label_key="none", **fast)
    assert result.n_clusters_from == "estimated without labels" and result.scores == {}


def test_partly_labelled_cells_are_all_clustered(counts, fast):
    counts.obs.loc[counts.obs_names[:50], "cell_type1"] = None
    result = find(counts, **fast)
    assert result.labels["scrcl"].notna().all() and result.scores["scrcl"]["n_scored"] == counts.n_obs - 50


def test_cells_without_counts_keep_their_row(counts, fast):
    counts.X = counts.X.toarray()
    counts.X[[0, 7]] = 0
    result = find(counts, **fast)
    assert result.labels.index.equals(counts.obs_names) and result.confidence.index.equals(counts.obs_names)
    assert result.labels["scrcl"].isna().sum() == 2 and result.labels["scrcl"].isna().iloc[[0, 7]].all()
    assert result.cells.n_obs == counts.n_obs - 2


def test_labels_only_on_cells_without_counts(counts, fast):
    counts.X = counts.X.toarray()
    counts.X[0] = 0
    counts.obs.loc[counts.obs_names[1:], "cell_type1"] = None
    result = find(counts, n_clusters=np.int64(3), **fast)
    assert result.scores == {} and result.labels["scrcl"].notna().sum() == counts.n_obs - 1


@pytest.mark.parametrize("kind", ["TPM", "log-normalised", "dense", "few genes"])
def test_other_input(counts, fast, kind):
    values = counts.X.toarray()
    if kind == "TPM":
        values = values / values.sum(1, keepdims=True) * 1e6
    if kind == "log-normalised":
        values = np.log1p(values / values.sum(1, keepdims=True) * 1e4)
    other = ad.AnnData(values, obs=counts.obs)
    result = find(other, **(fast | {"n_top_genes": 500 if kind == "few genes" else 60}))
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
    plain, other = find(counts, **fast), find(counts, **(fast | settings))
    same = plain.cells.obsm["X_scrcl"].shape == other.cells.obsm["X_scrcl"].shape and np.allclose(
        plain.cells.obsm["X_scrcl"], other.cells.obsm["X_scrcl"]
    )
    assert same == ("cluster_method" in settings or "mixture_dims" in settings or settings == {"embedding": "joint"})
    assert other.labels["scrcl"].nunique() == 3


def test_counts_asked_for_but_not_there(counts, fast):
    values = counts.X.toarray()
    with pytest.raises(UserError, match="raw counts"):
        find(ad.AnnData(np.log1p(values / values.sum(1, keepdims=True) * 1e4)), encoder_input="counts", **fast)


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
        find(make(), **(fast | settings))


def test_final_labels_are_the_consensus_of_all_seeds(counts, fast):
    result = find(counts, **(fast | {"seeds": [1, 2, 3]}))
    agreement = {name: adjusted_rand_score(result.labels[name], result.labels["scrcl"]) for name in result.seeds}
    assert agreement[f"seed_{result.chosen_seed}"] == max(agreement.values())
    assert result.confidence.between(0, 1).all() and result.confidence.mean() > 0.9
    assert result.cells.obs["scrcl_confidence"].equals(result.confidence)


def test_one_seed_is_its_own_consensus(counts, fast):
    result = find(counts, **(fast | {"seeds": [4]}))
    assert result.labels["scrcl"].equals(result.labels["seed_4"].rename("scrcl")) and result.chosen_seed == 4


def test_what_is_clustered_is_chosen_by_the_cell_graph_alone(counts, fast):
    """Of the joint embedding and the PCs, on 2 or 5 dimensions, whatever agrees best with the graph."""
    settings = fast | {"seeds": [4], "n_clusters": 6}
    chosen = find(counts, **(settings | {"mixture_dims": [2, 5]}))
    graph, labels, agreement = chosen.cells.obsp["scrcl_graph"], {}, {}
    for embedding in ("joint", "pcs"):
        for n_dims in (2, 5):
            alone = find(counts, **(settings | {"embedding": embedding, "mixture_dims": [n_dims]}))
            name = f"{embedding}, {n_dims} dimensions"
            labels[name] = alone.labels["seed_4"]
            agreement[name] = agreement_with_graph(labels[name].astype(int).to_numpy(), graph)
            assert alone.clustered == alone.cells.uns["scrcl"]["clustered"] == {"seed_4": name}
    name = max(agreement, key=agreement.get)
    assert len(set(agreement.values())) > 1 and chosen.clustered == {"seed_4": name}
    assert adjusted_rand_score(chosen.labels["seed_4"], labels[name]) > 0.99
    assert name in summary(chosen) and metrics(chosen)["clustered"] == {"seed_4": name}


def test_values_of_which_few_are_stored_stay_sparse_unless_they_are_smoothed_or_corrected(counts, fast):
    few = counts.copy()
    few.X = few.X.multiply(np.random.default_rng(0).random(few.shape) < 0.1).tocsr()
    few.obs["donor"] = ["a", "b"] * (few.n_obs // 2)
    run = find(few, **fast)
    assert isinstance(run.prepared.inputs, Features) and run.prepared.block == 0 and run.prepared.order is None
    for cells, more in ((counts, {}), (few, {"hops": [1, 0]}), (few, {"batch_key": "donor"})):
        assert isinstance(find(cells, **(fast | more)).prepared.inputs, np.ndarray)


def test_components_of_values_that_stay_sparse_are_made_in_one_thread(counts, fast, monkeypatch):
    """Threads would share the sums, and so change their last digits."""
    used, plain = [], prepared.genes.principal_components
    monkeypatch.setattr(
        prepared.genes, "principal_components", lambda *of: used.append(torch.get_num_threads()) or plain(*of)
    )
    monkeypatch.setattr(prepared, "SPARSE_UP_TO", 1.0)
    with limited_threads(2):
        find(counts, **fast)
    assert used and set(used) == {1}


def test_what_stays_sparse_gives_what_is_dense_gives(counts, fast, monkeypatch):
    few = counts.copy()
    few.X = few.X.multiply(np.random.default_rng(0).random(few.shape) < 0.2).tocsr()
    runs = []
    for up_to in (0.0, 1.0):
        monkeypatch.setattr(prepared, "SPARSE_UP_TO", up_to)
        monkeypatch.setattr(inputs, "SPARSE_UP_TO", up_to)
        runs.append(find(few, **fast))
    dense, sparse = runs
    assert isinstance(dense.prepared.inputs, np.ndarray) and isinstance(sparse.prepared.inputs, Features)
    assert np.allclose(*(np.abs(run.cells.obsm["X_pca"]) for run in runs), atol=1e-3)
    losses = [[record["total"] for record in run.history] for run in runs]
    assert np.allclose(*losses, rtol=1e-3)
    assert adjusted_rand_score(dense.labels["scrcl"], sparse.labels["scrcl"]) > 0.95


def test_training_ends_where_the_loss_is_flat(counts, fast):
    settings = fast | {"epochs": 60, "seeds": [5]}
    whole = find(counts, **(settings | {"plateau": 0}))
    early = find(counts, **(settings | {"plateau": 0.2}))
    losses = [record["total"] for record in whole.history]
    expected = next(i for i in range(10, 60) if losses[i - 10] - losses[i] < 0.2 * losses[0])
    assert len(losses) == 60 and [record["total"] for record in early.history] == losses[: expected + 1]


def test_a_plateau_of_0_ends_nothing_even_where_the_loss_rises(counts, fast, monkeypatch):
    rising = iter(range(1, 31))
    monkeypatch.setattr(training.Updates, "__call__", lambda _: torch.full((5,), float(next(rising))))
    assert len(find(counts, **(fast | {"epochs": 30, "seeds": [5], "plateau": 0})).history) == 30


def same_but_for_rounding(one: Result, two: Result) -> None:
    """Sums of another number of threads may be rounded in another order, as on Intel processors; no more than that."""
    ours, theirs = (pd.DataFrame(run.history)[["epoch", "ndc", "cvc", "total"]] for run in (one, two))
    assert np.allclose(ours, theirs, rtol=1e-3)
    assert adjusted_rand_score(one.labels["scrcl"], two.labels["scrcl"]) > 0.95


def test_one_thread_or_two_differ_by_rounding_alone(fast):
    settings = fast | {"epochs": 20, "hidden": 64, "n_top_genes": 500, "n_pcs": 30, "seeds": [5, 15]}
    one, two, again = (find(scrcl.read(BUNDLED), threads=threads, **settings) for threads in (1, 2, 2))
    same_but_for_rounding(one, two)
    assert (one.threads, two.threads) == (1, 2)
    assert np.array_equal(one.cells.obsm["X_pca"], two.cells.obsm["X_pca"])
    assert two.history == again.history and two.labels.equals(again.labels)
    assert np.array_equal(two.cells.obsm["X_scrcl"], again.cells.obsm["X_scrcl"])


def test_tissue_of_one_thread_or_two_differs_by_rounding_alone(fast):
    tissue, settings = layered_tissue(n_spots=400, n_genes=80), fast | {"epochs": 20, "n_top_genes": 80}
    runs = [analyse(tissue, TissueSettings(threads=n, n_clusters="4", **settings)) for n in (1, 2)]
    same_but_for_rounding(*runs)
