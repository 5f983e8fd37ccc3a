"""Batches: what differs between them is taken out, what is real stays, and bad columns are named."""

from __future__ import annotations

import dataclasses

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import FAST, run, simulate
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import scrcl
from scrcl.messages import UserError
from scrcl.prepare import batches, cells
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import CellSettings

QUICK = {"epochs": 8, "hidden": 16, "n_top_genes": 80, "n_pcs": 10, "n_seeds": 2, "umap": False}


def shifted(adata: ad.AnnData, share: float = 0.5, seed: int = 0) -> ad.AnnData:
    """The same cells, of which the second batch has each gene times a factor of its own."""
    rng = np.random.default_rng(seed)
    second = rng.random(adata.n_obs) < share
    factors = np.exp(rng.normal(0, 1.6, adata.n_vars))
    values = adata.X.toarray()
    values[second] = rng.poisson(values[second] * factors)
    values[:, 0] += 1
    obs = adata.obs.assign(donor=np.where(second, "b", "a"))
    return ad.AnnData(sparse.csr_matrix(values.astype(np.float32)), obs=obs, var=adata.var, obsm=adata.obsm)


def test_batch_effects_of_a_known_model_are_found():
    """values = group + batch + noise, where one batch has more of one group: the batch's part alone goes."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 600)
    codes = (rng.random(600) < np.where(groups == 0, 0.8, 0.2)).astype(int)
    of_group, of_batch = rng.normal(size=(2, 30)) * 3, rng.normal(size=(2, 30)) * 3
    clean = of_group[groups] + 0.1 * rng.normal(size=(600, 30))
    values = clean + of_batch[codes]
    scaled = ((values - values.mean(axis=0)) / values.std(axis=0, ddof=1)).astype(np.float32)
    points = np.column_stack([groups * 10.0, rng.normal(size=600)]).astype(np.float32)
    names = pd.Series(np.where(codes, "b", "a"))
    left = batches.corrected_values(scaled, points, names)
    for group in (0, 1):
        means = [left[(groups == group) & (codes == code)].mean(axis=0) for code in (0, 1)]
        assert np.abs(means[0] - means[1]).max() < 0.25  # 2 to 3 before
        assert np.corrcoef(left[groups == group].mean(axis=0), -left[groups != group].mean(axis=0))[0, 1] > 0.99
    apart = np.abs(left[groups == 0].mean(axis=0) - left[groups == 1].mean(axis=0))
    assert np.median(apart) > 1.5  # the groups are still apart


def mixed(adata: ad.AnnData) -> float:
    """The share of a cell's 15 nearest cells in the embedding that are of the other donor; half of them by chance."""
    index = NearestNeighbors(n_neighbors=15).fit(adata.obsm["X_scrcl"])
    donors = adata.obs["donor"].to_numpy()
    return float((donors[index.kneighbors(return_distance=False)] != donors[:, None]).mean())


def test_cells_of_two_donors():
    adata = shifted(simulate(240, 100))
    plain, evened = adata.copy(), adata.copy()
    scrcl.find_cell_types(plain, 3, label_key="none", **QUICK)
    scrcl.find_cell_types(evened, 3, label_key="none", batch_key="donor", **QUICK)
    assert adjusted_rand_score(adata.obs["cell_type1"], evened.obs["scrcl"]) > 0.95
    assert mixed(plain) < 0.2 and mixed(evened) > 0.35
    again = adata.copy()
    scrcl.find_cell_types(again, 3, label_key="none", batch_key="donor", **QUICK)
    assert again.obs["scrcl"].equals(evened.obs["scrcl"])


def test_the_number_of_clusters_is_that_of_types_not_of_types_in_batches():
    found = {}
    for key in ("none", "donor"):
        adata = shifted(simulate(240, 100))
        scrcl.find_cell_types(adata, label_key="none", batch_key=key, **QUICK)
        found[key] = adata.obs["scrcl"].nunique()
    assert found["none"] > 3 and found["donor"] == 3


def test_sections_of_tissue():
    adata = shifted(layered_tissue())
    half = (adata.obsm["spatial"][:, 0] > np.median(adata.obsm["spatial"][:, 0])).astype(int)
    rng = np.random.default_rng(1)
    values = layered_tissue().X.toarray()
    values[half == 1] = rng.poisson(values[half == 1] * np.exp(rng.normal(0, 1.2, values.shape[1])))
    adata = ad.AnnData(sparse.csr_matrix(values.astype(np.float32)), obs=adata.obs, obsm=adata.obsm, var=adata.var)
    adata.obs["slide"] = np.array(["one", "two"])[half]
    known = next(name for name in ("layer_guess", "ground_truth", "annotation") if name in adata.obs)
    n, truth = adata.obs[known].nunique(), adata.obs[known].astype(str)
    found = {}
    for key in ("none", "slide"):
        copy = adata.copy()
        scrcl.find_domains(copy, n, label_key="none", section_key="slide", batch_key=key, **QUICK)
        found[key] = adjusted_rand_score(truth, copy.obs["scrcl"])
    assert found["slide"] > found["none"] + 0.1


def test_large_data_stay_sparse(monkeypatch):
    """Then the PCs alone are corrected."""
    from scrcl.prepare import plan

    monkeypatch.setattr(plan, "ALL_AT_ONCE_UP_TO", 0.0)
    adata = shifted(simulate(240, 100))
    scrcl.find_cell_types(adata, 3, label_key="none", batch_key="donor", **QUICK)
    assert adjusted_rand_score(adata.obs["cell_type1"], adata.obs["scrcl"]) > 0.9


def test_what_is_wrong(caplog):
    obs = pd.DataFrame({"donor": ["a"] * 30 + ["b"] * 5, "gap": ["a"] * 34 + [None], "one": "x"})
    for key, says in (
        ("doner", r"no obs column 'doner' for --batch-key \(did you mean donor\?\); the columns are donor, gap, one"),
        ("gap", "The batch of 1 cells is missing"),
        ("donor", "The batch 'b' of .* has 5 cells; at least 10"),
    ):
        with pytest.raises(UserError, match=says):
            batches.batches_of(obs, key)
    assert batches.batches_of(obs, "one") is None and "of one batch (x)" in caplog.text
    assert batches.batches_of(obs, "none") is None


def test_the_command_and_what_it_writes(tmp_path, capsys):
    shifted(simulate(150)).write_h5ad(tmp_path / "in.h5ad")
    flags = ["--dataset", tmp_path / "in.h5ad", *FAST, "--no-figures", "--batch-key", "donor"]
    code, _, err = run("cells", capsys, *flags, "--output", tmp_path / "out")
    assert code == 0, err
    cells = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert cells.obsm["X_pca_harmony"].shape == cells.obsm["X_pca"].shape
    assert cells.uns["scrcl"]["params"]["batch_key"] == "donor"


def test_without_harmonypy(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "harmonypy", None)
    with pytest.raises(UserError, match=r"pip install harmonypy"):
        batches.corrected_points(np.zeros((30, 3), dtype=np.float32), pd.Series(["a", "b"] * 15))


def test_settings_that_do_not_go_with_batches():
    from scrcl.recipes import CellSettings, TissueSettings

    with pytest.raises(UserError, match="leave --encoder-input out"):
        TissueSettings(batch_key="slide", encoder_input="lognorm")
    with pytest.raises(UserError, match="leave --graph-on out"):
        CellSettings(batch_key="donor", graph_on="genes")


def test_a_batch_of_few_cells_among_many():
    """The number of clusters is estimated on some of the cells, of which a batch may have very few."""
    from scrcl.prepare import halves

    adata = shifted(simulate(300, 100))
    adata.obs["donor"] = np.where(np.arange(300) < 12, "small", adata.obs["donor"])
    before = halves.MOST_CELLS
    try:
        halves.MOST_CELLS = 60
        scrcl.find_cell_types(adata, label_key="none", batch_key="donor", **QUICK)
    finally:
        halves.MOST_CELLS = before
    assert adata.obs["scrcl"].notna().all()


def test_batches_of_cells_whose_first_pc_is_depth():
    """Counts normalised anew give what counts do that were normalised to their median at once."""
    adata = simulate(300, 60, 3)
    rng = np.random.default_rng(0)
    depth = np.exp(rng.normal(0, 1.5, adata.n_obs))
    adata.X = sparse.csr_matrix(rng.poisson(adata.X.toarray() * depth[:, None] / 20).astype(np.float32))
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    settings = CellSettings(batch_key="donor", n_pcs=10)
    found = cells.depth_corrected(adata, settings)
    assert found.values.endswith("normalised to the median")
    asked = cells.encoded(adata, dataclasses.replace(settings, target_sum="median"))
    assert np.array_equal(found.inputs, asked.inputs)
    for key in ("X_pca", "X_pca_harmony"):
        assert np.array_equal(found.cells.obsm[key], asked.cells.obsm[key])
