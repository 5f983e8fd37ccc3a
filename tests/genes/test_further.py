"""Gene sets, genes that vary in space, and pseudotime: by hand, against known answers, and on the command line."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import FAST, run, simulate
from grouped import grouped
from scipy import sparse, stats

from scrcl.genes import further
from scrcl.genes.ranking import Markers
from scrcl.messages import UserError
from scrcl.readers.simulated import layered_tissue


def markers(specific: dict[str, list[str]], top: dict[str, list[str]]) -> Markers:
    return Markers(table=pd.DataFrame(), top=top, specific=specific, untested=[])


def test_gene_sets_by_hand(tmp_path):
    """Of 20 genes a set has 4 and a cluster has 5, of which 3 are in the set: the hypergeometric tail."""
    genes = [f"G{i}" for i in range(20)]
    path = tmp_path / "sets.gmt"
    path.write_text("one\tna\tg0\tG1\tG2\tG3\tOTHER\ntwo\t\tG19\nnone\t\tZ1\n")
    found = markers({"0": ["G0", "G1", "G2", "G10", "G11"], "1": [], "2": []}, {"0": [], "1": ["G19"], "2": ["G7"]})
    table = further.enrichment(found, path, genes)
    assert list(table.columns) == list(further.TERMS) and table["cluster"].tolist() == ["0", "1"]
    first = table.iloc[0]
    assert (first["term"], first["overlap"], set(first["genes"].split(";"))) == ("one", "3/4", {"G0", "G1", "G2"})
    assert first["pval"] == pytest.approx(stats.hypergeom.sf(2, 20, 4, 5))
    assert table.iloc[1]["term"] == "two" and table.iloc[1]["pval"] == pytest.approx(1 / 20)


def test_bad_gene_sets(tmp_path, monkeypatch):
    found = markers({"0": ["G0"]}, {"0": ["G0"]})
    for text, says in (
        ("name only\n", "is no GMT file"),
        ("", "is no GMT file"),
        ("one\tna\tZ1\n", "None of the genes"),
    ):
        (tmp_path / "bad.gmt").write_text(text)
        with pytest.raises(UserError, match=says):
            further.enrichment(found, tmp_path / "bad.gmt", ["G0", "G1"])
    with pytest.raises(UserError, match="cannot be read"):
        further.enrichment(found, tmp_path / "none.gmt", ["G0"])
    import sys

    monkeypatch.setitem(sys.modules, "gseapy", None)
    with pytest.raises(UserError, match=r"pip install gseapy"):
        further.enrichment(found, tmp_path / "bad.gmt", ["G0"])


def test_morans_i_by_hand():
    """On a ring of cells every neighbour has weight 1/2; I is then the mean product of neighbours over the variance."""
    n, rng = 40, np.random.default_rng(0)
    ring = sparse.csr_matrix(np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0))
    values = np.column_stack(
        [np.sin(np.arange(n) * 2 * np.pi / n) + 1, rng.random(n) + 0.1, np.r_[np.ones(3), np.zeros(37)]]
    )
    cells = ad.AnnData(sparse.csr_matrix(values), var=pd.DataFrame(index=["wave", "noise", "rare"]))
    table = further.spatial_genes(cells, ring)
    assert list(table.index) == ["wave", "noise"]  # the third is in 3 cells
    for j, name in enumerate(["wave", "noise"]):
        z = values[:, j] - values[:, j].mean()
        assert table.loc[name, "I"] == pytest.approx((z * ring.dot(z) / 2).sum() / (z**2).sum())
    # weights of 1/2 to two neighbours: S0 = n, S1 = n (w + w)^2 / 2 * 2 = n, S2 = 4 n
    variance = (n**2 * n - n * 4 * n + 3 * n**2) / ((n**2 - 1) * n**2) - 1 / (n - 1) ** 2
    z = (table.loc["wave", "I"] + 1 / (n - 1)) / np.sqrt(variance)
    assert table.loc["wave", "pval_norm"] == pytest.approx(stats.norm.sf(z))
    assert table.loc["wave", "pval_norm_fdr_bh"] < 1e-5 and table.loc["noise", "pval_norm"] > 0.01


def test_pseudotime_runs_along_a_path():
    steps = np.linspace(0, 10, 150)
    rng = np.random.default_rng(0)
    cells = grouped(np.ones((150, 1)).tolist(), ["a"] * 50 + ["b"] * 50 + ["c"] * 50, ["x"])
    cells.obsm["X_scrcl"] = np.column_stack([steps, rng.normal(0, 0.05, 150)]).astype(np.float32)
    found = further.pseudotime(cells, "a", "X_scrcl")
    assert stats.spearmanr(found[25:], steps[25:]).statistic > 0.99 and found.max() == 1
    back = further.pseudotime(cells, "c", "X_scrcl")
    assert stats.spearmanr(back[:125], steps[:125]).statistic < -0.99
    with pytest.raises(UserError, match="no cluster d to start from; there are a, b, c"):
        further.pseudotime(cells, "d", "X_scrcl")


def test_the_command(tmp_path, capsys):
    simulate(150).write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "sets.gmt").write_text("first\tna\t" + "\t".join(f"gene-{i}" for i in range(14)) + "\n")
    out = tmp_path / "out"
    assert run("cells", capsys, "--dataset", tmp_path / "in.h5ad", *FAST, "--no-figures", "--output", out)[0] == 0
    code, _, err = run("markers", capsys, "--dataset", out, "--gene-sets", tmp_path / "sets.gmt", "--root", 0)
    assert code == 0, err
    assert pd.read_csv(out / "enrichment.csv")["term"].unique().tolist() == ["first"]
    times = pd.read_csv(out / "pseudotime.csv", index_col=0)["pseudotime"]
    assert len(times) == 150 and times.min() == 0
    assert (out / "enrichment.png").exists() and (out / "pseudotime.png").exists()
    assert not (out / "spatial_genes.csv").exists() and "Gene sets" in (out / "report.html").read_text()
    assert run("markers", capsys, "--dataset", out)[0] == 0  # what was not asked for again is gone
    assert not (out / "enrichment.csv").exists() and not (out / "pseudotime.png").exists()


def test_tissue_has_genes_that_vary_in_space(tmp_path, capsys):
    layered_tissue().write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"
    assert run("tissue", capsys, "--dataset", tmp_path / "in.h5ad", *FAST, "--no-figures", "--output", out)[0] == 0
    assert run("markers", capsys, "--task", "ST", "--dataset", out)[0] == 0
    table = pd.read_csv(out / "spatial_genes.csv", index_col=0)
    assert table["I"].is_monotonic_decreasing and table["I"].iloc[0] > 0.08 and (out / "spatial_genes.png").exists()


def experiment() -> ad.AnnData:
    """Cells of two clusters, six donors and two treatments; in cluster a gene g0 is four times as high when treated."""
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(6), 60)
    treated, clusters = donors >= 3, np.tile(["a", "b"], 180)
    mean = np.full((360, 40), 3.0) * rng.gamma(30, 1 / 30, (6, 40))[donors]
    mean[treated & (clusters == "a"), 0] *= 4
    counts = rng.poisson(mean).astype(np.float32)
    obs = pd.DataFrame(
        {"donor": [f"d{i}" for i in donors], "treatment": np.where(treated, "drug", "control"), "cluster": clusters},
        index=[f"c{i}" for i in range(360)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(40)])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=var, layers={"counts": sparse.csr_matrix(counts)})


def test_conditions():
    cells = experiment()
    bulk = further.pseudobulk(cells, cells.obs["cluster"], "treatment", "donor")
    assert bulk.counts.shape == (12, 40) and bulk.counts.to_numpy().sum() == cells.X.sum()
    own = (cells.obs["cluster"] == "a") & (cells.obs["donor"] == "d3")
    assert bulk.counts.loc["a d3"].tolist() == cells.X[own.to_numpy()].sum(axis=0).A1.tolist()
    table = further.conditions(bulk)
    first = table[table["cluster"] == "a"].iloc[0]
    assert (first["gene"], first["condition"], first["reference"], first["n_samples"]) == ("g0", "drug", "control", 6)
    assert first["log2FoldChange"] == pytest.approx(2, abs=0.6) and first["padj"] < 1e-6
    assert (table[table["cluster"] == "b"]["padj"].dropna() > 0.01).all()


def test_what_is_wrong_with_conditions(monkeypatch, caplog):
    cells = experiment()
    cells.obs["gap"] = [None, *cells.obs["donor"][1:]]
    cells.obs["all"], cells.obs["own"] = "x", cells.obs["treatment"].astype(str)
    for keys, says in (
        (("treatment", "none"), "--condition-key needs --sample-key"),
        (("treatmint", "donor"), r"no obs column 'treatmint' \(did you mean treatment\?\)"),
        (("treatment", "gap"), "1 cells have no value in obs"),
        (("donor", "treatment"), "The sample 'control' has several conditions"),
        (("all", "donor"), "only one condition"),
    ):
        with pytest.raises(UserError, match=says):
            further.pseudobulk(cells, cells.obs["cluster"], *keys)
    with pytest.raises(UserError, match="No cluster has two samples of each"):
        further.conditions(further.pseudobulk(cells, cells.obs["cluster"], "treatment", "own"))
    assert "clusters a, b" in caplog.text
    del cells.layers["counts"]
    with pytest.raises(UserError, match="needs counts"):
        further.pseudobulk(cells, cells.obs["cluster"], "treatment", "donor")
    import sys

    monkeypatch.setitem(sys.modules, "pydeseq2.dds", None)
    with pytest.raises(UserError, match=r"pip install pydeseq2"):
        further.conditions(further.Bulk(pd.DataFrame(), pd.DataFrame()))


def test_conditions_on_the_command_line(tmp_path, capsys):
    cells = experiment()
    del cells.layers["counts"]
    cells.write_h5ad(tmp_path / "in.h5ad")
    flags = ["--dataset", tmp_path / "in.h5ad", "--labels", "cluster", "--output", tmp_path / "out"]
    code, _, err = run("markers", capsys, *flags, "--condition-key", "treatment", "--sample-key", "donor")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "out" / "conditions.csv")
    assert table.iloc[0][["cluster", "gene"]].tolist() == ["a", "g0"]
    assert (tmp_path / "out" / "conditions.png").exists() and "Conditions" in (tmp_path / "out/report.html").read_text()


def test_a_gene_that_differs_between_sections_alone_does_not_vary_in_space():
    rng = np.random.default_rng(0)
    n = 60
    ring = np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0)
    both = sparse.block_diag([ring, ring], format="csr")
    values = rng.random((2 * n, 2)) + np.repeat([[0.1, 0.1], [8.0, 0.1]], n, axis=0)
    values[:, 1] += np.tile(np.sin(np.arange(n) * 2 * np.pi / n) + 1, 2)
    cells = ad.AnnData(sparse.csr_matrix(values), var=pd.DataFrame(index=["slide", "wave"]))
    sections = np.repeat(["one", "two"], n)
    assert further.spatial_genes(cells, both).loc["slide", "I"] > 0.9
    table = further.spatial_genes(cells, both, sections)
    assert abs(table.loc["slide", "I"]) < 0.3 and table.loc["slide", "pval_norm"] > 0.001
    one = further.spatial_genes(cells[:n], sparse.csr_matrix(ring))
    two = further.spatial_genes(cells[n:], sparse.csr_matrix(ring))
    assert table.loc["wave", "I"] == pytest.approx((one.loc["wave", "I"] + two.loc["wave", "I"]) / 2)
    assert table.index[0] == "wave"
