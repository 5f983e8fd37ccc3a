"""New cells placed among the clusters of a finished run."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import run, simulate
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl import mapping
from scrcl.messages import UserError
from scrcl.prepare import genes
from scrcl.recipes import CellSettings

QUICK = ["--epochs", 10, "--hidden", 16, "--n-pcs", 10, "--seed", 5]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on cells of three types, and other cells of four: the fourth type is new."""
    folder = tmp_path_factory.mktemp("mapping")
    whole = simulate(400, 120, 4)
    old = whole[:240][(whole.obs["cell_type1"][:240] != "type 3").to_numpy()].copy()
    old.write_h5ad(folder / "old.h5ad")
    whole[240:].copy().write_h5ad(folder / "new.h5ad")
    flags = ["cells", "--dataset", folder / "old.h5ad", *QUICK, "--output", folder / "run"]
    from scrcl.commands import script

    assert script.run(flags[0], [str(word) for word in flags[1:]], "scrcl cells") == 0
    return folder


def reference(finished) -> ad.AnnData:
    return ad.read_h5ad(finished / "run" / "result.h5ad")


def test_the_space_of_the_pcs_is_found_again(finished):
    cells = reference(finished)
    space = mapping.space_of(cells)
    values = sparse.csr_matrix(cells[:, space.names].X)
    dense = genes.encoder_values(cells, "scaled")
    features = space.standardised(values)
    assert np.allclose(features.columns(slice(None)), dense, atol=1e-5)
    assert np.allclose(features.times(space.axes), cells.obsm["X_pca"], atol=1e-3)


def test_genes_that_are_missing_have_the_mean_of_the_run(finished):
    space = mapping.space_of(reference(finished))
    known = np.arange(len(space.names)) % 3 > 0
    values = sparse.random(5, len(space.names), 0.5, format="csr", dtype=np.float32, random_state=0)
    values = sparse.csr_matrix(values.multiply(known[None]))
    seen = space.standardised(values, known).columns(slice(None))
    assert np.allclose(seen[:, ~known], 0, atol=1e-6) and np.abs(seen[:, known]).max() > 0.5


def test_the_cells_of_the_run_itself_stay_where_they_are(finished):
    cells = reference(finished)
    old = ad.read_h5ad(finished / "old.h5ad")
    scrcl.map_cells(old, finished / "run")
    assert adjusted_rand_score(old.obs["scrcl"], cells.obs["scrcl"]) > 0.9 and old.obs["scrcl_unlike"].mean() < 0.1
    assert np.allclose(old.obsm["X_pca_scrcl"], cells.obsm["X_pca"], atol=1e-3)


def test_new_cells_and_a_new_type(finished):
    new = ad.read_h5ad(finished / "new.h5ad")
    new.X[7] = 0
    scrcl.map_cells(new, str(finished / "run"), key_added="placed")
    assert new.obs["placed"].isna().tolist() == [i == 7 for i in range(160)]
    used, is_new = new.obs["placed"].notna(), (new.obs["cell_type1"] == "type 3")
    known = used & ~is_new
    assert adjusted_rand_score(new.obs["placed"][known], new.obs["cell_type1"][known]) > 0.95
    unlike = new.obs["placed_unlike"]
    assert unlike[used & is_new].mean() > 0.9 and unlike[known].mean() < 0.15
    assert new.obs["placed_confidence"][known].mean() > 0.9 and np.isnan(new.obsm["X_pca_placed"][7]).all()
    again = ad.read_h5ad(finished / "new.h5ad")
    again.X[7] = 0
    again = again[::-1, ::-1].copy()  # neither the order of cells nor that of genes matters
    scrcl.map_cells(again, finished / "run", key_added="placed")
    assert again.obs["placed"][::-1].astype(object).equals(new.obs["placed"].astype(object))


def test_other_genes_and_missing_ones(finished, caplog):
    new = ad.read_h5ad(finished / "new.h5ad")
    part = new[:, np.arange(120) % 6 > 0].copy()
    with caplog.at_level("INFO"):
        scrcl.map_cells(part, finished / "run")
    assert "20 of the run's 120 highly variable genes are not in the new data" in caplog.text
    known = (new.obs["cell_type1"] != "type 3").to_numpy()
    assert adjusted_rand_score(part.obs["scrcl"][known], new.obs["cell_type1"][known]) > 0.9
    new.var_names = [f"other-{name}" for name in new.var_names]
    with pytest.raises(UserError, match="Only 0 of the run's 120 highly variable genes .* give both the same names"):
        scrcl.map_cells(new, finished / "run")


def test_the_command(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    flags = ["new.h5ad", "--map-onto", "run", "--output", "placed"]
    code, out, err = run("cells", capsys, *flags)
    assert code == 0, err
    assert "160 cells were placed" in out and "ARI" in out
    labels = pd.read_csv("placed/labels.csv", index_col=0)
    assert list(labels) == ["scrcl_confidence", "unlike", "scrcl"] and len(labels) == 160
    cells = ad.read_h5ad("placed/result.h5ad")
    assert cells.obs["scrcl"].astype(int).tolist() == labels["scrcl"].tolist() and "X_umap" in cells.obsm
    assert json.loads((finished / "placed/metrics.json").read_text())["n_unlike"] == labels["unlike"].sum()
    assert (finished / "placed/umap.png").stat().st_size > 10_000
    assert run("cells", capsys, *flags, "--no-figures")[0] == 0  # the same once more may replace it
    for wrong, says in (
        (["new.h5ad", "--map-onto", "nowhere"], "There is no finished run of cells in nowhere"),
        (["nothing.h5ad", "--map-onto", "run"], "There is no data set 'nothing.h5ad'"),
        (["old.h5ad", "--map-onto", "run", "--output", "placed"], "holds the results of"),
        ([*flags, "--marker-genes", "builtin"], "leave out --report and --marker-genes"),
        ([*flags, "--report"], "leave out --report and --marker-genes"),
    ):
        code, _, err = run("cells", capsys, *wrong)
        assert code == 2 and says in err


@pytest.mark.parametrize("depth", [1, 10])
def test_new_cells_are_normalised_as_the_run_was(tmp_path, capsys, depth):
    """Also to the median of the run, whatever the depth of the new cells."""
    simulate(240, 120).write_h5ad(tmp_path / "old.h5ad")
    flags = ["--dataset", tmp_path / "old.h5ad", *QUICK, "--no-figures", "--target-sum", "median"]
    assert run("cells", capsys, *flags, "--output", tmp_path / "run")[0] == 0
    new = simulate(240, 120)
    new.X = new.X * depth
    scrcl.map_cells(new, tmp_path / "run")
    assert np.allclose(new.obsm["X_pca_scrcl"], ad.read_h5ad(tmp_path / "run/result.h5ad").obsm["X_pca"], atol=1e-2)


def test_values_on_disk_and_folders_of_runs(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    backed = ad.read_h5ad("new.h5ad", backed="r")
    scrcl.map_cells(backed, "run", key_added="placed")
    assert backed.obs["placed"].notna().all()
    flags = ["new.h5ad", "--map-onto", "run", "--no-figures"]
    assert run("cells", capsys, *flags, "--output", "small", "--max-memory", 0.001)[0] == 0
    code, _, err = run("cells", capsys, *flags, "--output", "run")
    assert code == 2 and "holds a run" in err
    code, _, err = run("markers", capsys, "--dataset", "small")  # which is no run
    assert code == 2 and "small" in err and "Traceback" not in err


@pytest.fixture(scope="module", params=["dense", "sparse"])
def with_batches(tmp_path_factory, request):
    """A run on cells of two batches, with dense or with sparse values, and cells of a third one."""
    folder, rng = tmp_path_factory.mktemp("batches"), np.random.default_rng(0)
    whole = simulate(360, 120, 3)
    whole.obs["donor"] = rng.choice(["a", "b", "c"], whole.n_obs)
    factors = pd.DataFrame(np.exp(rng.normal(0, 0.7, (3, whole.n_vars))), index=["a", "b", "c"])
    values = rng.poisson(whole.X.toarray() * factors.loc[whole.obs["donor"]].to_numpy())
    whole.X = sparse.csr_matrix(values.astype(np.float32))
    is_new = (whole.obs["donor"] == "c").to_numpy()
    whole[~is_new].copy().write_h5ad(folder / "old.h5ad")
    whole[is_new].copy().write_h5ad(folder / "new.h5ad")
    flags = ["--dataset", folder / "old.h5ad", *QUICK, "--n-clusters", 3, "--batch-key", "donor"]
    from scrcl.commands import script
    from scrcl.prepare import plan

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "sparse":
            patch.setattr(plan, "ALL_AT_ONCE_UP_TO", 0.0)
        assert script.run("cells", [str(word) for word in [*flags, "--output", folder / "run"]], "scrcl cells") == 0
    return folder


def test_cells_of_another_batch_are_placed_in_a_run_with_batches(with_batches, monkeypatch, capsys):
    monkeypatch.chdir(with_batches)
    old, new = ad.read_h5ad("old.h5ad"), ad.read_h5ad("new.h5ad")
    scrcl.map_cells(old, "run")
    assert adjusted_rand_score(old.obs["scrcl"], reference(with_batches).obs["scrcl"]) > 0.8
    scrcl.map_cells(new, "run")
    assert adjusted_rand_score(new.obs["scrcl"], new.obs["cell_type1"]) > 0.9
    assert new.obs["scrcl_unlike"].isna().all()
    code, out, err = run("cells", capsys, "new.h5ad", "--map-onto", "run", "--output", "placed")
    assert code == 0, err
    assert "The run has batches, so it is not told which of them are unlike any." in out and "chance" not in out
    labels = pd.read_csv("placed/labels.csv", index_col=0, dtype={"scrcl": str})
    assert labels["scrcl"].tolist() == new.obs["scrcl"].tolist() and labels["unlike"].isna().all()
    assert json.loads((with_batches / "placed/metrics.json").read_text())["n_unlike"] is None
    assert (with_batches / "placed/umap.png").stat().st_size > 10_000


def test_what_a_run_took_out_between_batches_is_found_again(with_batches, monkeypatch):
    cells, settings = reference(with_batches), CellSettings(batch_key="donor", n_pcs=10)
    space = mapping.space_of(cells)
    known = np.arange(len(space.names)) > 0
    new = sparse.csr_matrix(cells[:5, space.names].X)
    seen = mapping._seen(cells, space, new, known, settings)
    assert np.allclose(seen.pcs_of_run, cells.obsm["X_pca"], atol=1e-2)
    if isinstance(seen.run, np.ndarray):
        assert np.allclose(seen.run.mean(axis=0), 0, atol=0.02) and np.allclose(seen.new[:, 0], 0, atol=1e-6)
        monkeypatch.setattr(mapping, "first_points", lambda scaled, *_: np.flip(scaled[:, :10], axis=0).copy())
        with pytest.raises(UserError, match="took out between its batches cannot be found again"):
            mapping._seen(cells, space, new, known, settings)
