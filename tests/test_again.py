"""Another look at a finished run: another number of clusters, clusters joined, one divided."""

from __future__ import annotations

import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import FAST, run, simulate
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.messages import UserError
from scrcl.readers.simulated import layered_tissue

QUICK = {"epochs": 5, "hidden": 16, "n_top_genes": 60, "n_pcs": 10}


@pytest.fixture(scope="module")
def annotated() -> ad.AnnData:
    """Cells with a run of three seeds, one cell without a label."""
    adata = simulate(150)
    adata.X[3] = 0
    scrcl.find_cell_types(adata, n_seeds=3, **QUICK)
    return adata


@pytest.fixture
def adata(annotated) -> ad.AnnData:
    return annotated.copy()


def test_another_number_of_clusters(adata):
    scrcl.recluster(adata, 3)
    scrcl.recluster(adata, 5, key_added="five")
    same, five = adata.obs["scrcl_3_clusters"], adata.obs["five"]
    assert same.cat.categories.tolist() == ["0", "1", "2"] and five.nunique() == 5
    assert (
        same.isna().tolist()
        == five.isna().tolist()
        == adata.obs["scrcl"].isna().tolist()
        == [i == 3 for i in range(150)]
    )
    known = same.notna()
    assert adjusted_rand_score(same[known], adata.obs["scrcl"][known]) > 0.9
    assert adata.obs["five_confidence"][known].between(0, 1).all()
    assert adata.uns["five"]["clusters"]["size"].sum() == 149 and adata.uns["five"]["n_clusters"] == 5
    before = adata.obs["five"].copy()
    scrcl.recluster(adata, 5, key_added="five")
    assert adata.obs["five"].equals(before)
    assert scrcl.pl.umap(adata, key="five") is not None and len(scrcl.rank_markers(adata, "five").top) == 5


def test_numbers_compared(adata):
    before = adata.copy()
    found = scrcl.compare_numbers(adata, range(2, 5))
    assert found["n_clusters"].tolist() == [2, 3, 4] and adata.obs.equals(before.obs)
    scrcl.recluster(adata, 4)
    clusters = adata.uns["scrcl_4_clusters"]["clusters"]
    assert np.isclose(found.loc[2, "agreement"], adata.obs["scrcl_4_clusters_confidence"].mean())
    assert np.isclose(found.loc[2, "least"], clusters["agreement"].min())
    assert found.loc[2, "doubtful"] == (clusters["verdict"] != "clear").sum()
    first = adata.uns["scrcl_4_clusters"]["tree"].loc[0]
    assert found.loc[2, "first_joined"] == f"{first['one']}+{first['other']}"
    assert found.loc[1, "agreement"] > 0.95  # as many as there are
    again = scrcl.compare_numbers(adata, [3], n_seeds=2, key="scrcl_4_clusters")  # a look is at the same run
    assert again["n_clusters"].tolist() == [3]
    for numbers, seeds, says in (
        ([2, 150], None, "149 cells"),
        ([1, 3], None, "above 1"),
        ([2], 1, "one seed, so nothing can agree; add n_seeds=5"),
    ):
        with pytest.raises(UserError, match=says):
            scrcl.compare_numbers(adata, numbers, n_seeds=seeds)


def test_the_tree_of_a_look_survives_a_file(adata, tmp_path):
    """Names of joined clusters and of parts are in it; a single cluster has a tree without steps."""
    scrcl.merge_clusters(adata, ["0", "1"], key_added="joined")
    scrcl.split_cluster(adata, "0+1", 3, key="joined", key_added="divided")
    scrcl.merge_clusters(adata, ["0+1", "2"], key="joined", key_added="one")
    adata.write_h5ad(tmp_path / "in.h5ad")
    adata.write_zarr(tmp_path / "in.zarr")
    for back in (ad.read_h5ad(tmp_path / "in.h5ad"), ad.read_zarr(tmp_path / "in.zarr")):
        assert len(back.uns["divided"]["tree"]) == 3 and len(back.uns["one"]["tree"]) == 0
        assert scrcl.pl.tree(back, "divided") is not None and scrcl.pl.tree(back, "one") is None


def test_clusters_joined(adata):
    scrcl.merge_clusters(adata, ["2", "0"])
    before, after = adata.obs["scrcl"].astype(object), adata.obs["scrcl_0+2"].astype(object)
    assert set(after[before.isin(["0", "2"])]) == {"0+2"} and set(after[before == "1"]) == {"1"}
    assert after.isna().equals(before.isna())
    assert adata.uns["scrcl_0+2"]["clusters"].loc["0+2", "size"] == before.isin(["0", "2"]).sum()


def test_one_cluster_divided(adata):
    """Two types that the run was told to keep together are told apart; the others stay."""
    scrcl.recluster(adata, 2, key_added="two")
    types = pd.crosstab(adata.obs["two"], adata.obs["cell_type1"])
    mixed = types.index[(types > 5).sum(axis=1) > 1][0]
    scrcl.split_cluster(adata, mixed, 2, key="two")
    found = adata.obs[f"two_{mixed}_divided"]
    inside = adata.obs["two"] == mixed
    assert set(found[inside]) == {f"{mixed},0", f"{mixed},1"}
    assert found[~inside].astype(object).equals(adata.obs["two"][~inside].astype(object))
    assert adjusted_rand_score(found[inside], adata.obs["cell_type1"][inside]) > 0.9
    assert found.cat.categories.tolist() == sorted(found.cat.categories)


def test_what_is_wrong(adata):
    for act, says in (
        (lambda: scrcl.merge_clusters(adata, ["0"]), "merge needs two clusters or more"),
        (lambda: scrcl.merge_clusters(adata, ["0", "9"]), "There is no cluster 9"),
        (lambda: scrcl.split_cluster(adata, "x"), "There is no cluster x"),
        (lambda: scrcl.recluster(adata, 500), "cluster"),
        (lambda: scrcl.recluster(simulate(), 3), "There is no run under 'scrcl'"),
    ):
        with pytest.raises(UserError, match=says):
            act()
    adata.obs["scrcl"] = adata.obs["scrcl"].cat.add_categories("few")
    adata.obs.loc[adata.obs_names[:9], "scrcl"] = "few"
    with pytest.raises(UserError, match="Cluster few has 9 cells, too few to divide"):
        scrcl.split_cluster(adata, "few")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    simulate(150).write_h5ad(folder / "cells.h5ad")
    layered_tissue().write_h5ad(folder / "tissue.h5ad")
    return folder


@pytest.mark.parametrize("command", ["cells", "tissue"])
def test_the_command(command, finished, monkeypatch, capsys, caplog):
    """By folder and by name; markers of a look, and a look at a look."""
    monkeypatch.chdir(finished)
    base = finished / "results" / ("SC" if command == "cells" else "ST") / command
    flags = [f"{command}.h5ad", *FAST, "--output", base]
    code, text, err = run(command, capsys, *flags)
    assert code == 0, err
    before = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    code, out, err = run(command, capsys, base, "--n-clusters", 2, "--no-figures", at=finished)
    assert code == 0, err
    assert "2 clusters, asked for in another look at what was trained" in out
    top = re.search(r"(?m)^2 .+ (gene-\d+)$", text)[1]  # of the cluster that stays
    Path("known.csv").write_text(f"type,gene\nstays,{top}\n")
    code, out, err = run(command, capsys, f"{command}.h5ad", "--merge", 0, 1, "--marker-genes", "known.csv")
    assert code == 0, err
    assert re.search(r"verdict +name +top genes\n", out) and re.search(r"(?m)^2 .+ stays +gene-", out)
    merged = base.with_name(f"{command}_0+1")
    assert str(merged.relative_to(finished)) in out
    labels = pd.read_csv(merged / "labels.csv", index_col=0, dtype=str)
    was = pd.read_csv(base / "labels.csv", index_col=0, dtype=str)["scrcl"]
    assert labels["scrcl"].equals(was.replace({"0": "0+1", "1": "0+1"}))
    kept = yaml.safe_load((merged / "config.yaml").read_text())
    assert kept["provenance"]["n_clusters_from"] == "after 0 and 1 were joined"
    assert (
        ad.read_h5ad(merged / "result.h5ad").obs["scrcl"].astype(object).tolist() == labels["scrcl"].dropna().tolist()
    )
    assert run("markers", capsys, "--task", base.parent.name, "--dataset", merged)[0] == 0
    assert (merged / "report.html").exists() and (merged / "clusters.png").exists()
    code, out, err = run(command, capsys, merged, "--split", "0+1", "--n-clusters", 2, "--no-figures")
    assert code == 0, err
    assert "0+1,0" in out
    assert {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("command", ["cells", "tissue"])
def test_numbers_compared_on_the_command_line(command, finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    base = finished / "compared" / command
    code, _, err = run(command, capsys, f"{command}.h5ad", *FAST, "--no-figures", "--output", base)
    assert code == 0, err
    if command == "cells":  # of spots, several partitions of one seed vote
        code, _, err = run(command, capsys, base, "--n-clusters", "2-4")
        assert code == 2 and "The run has one seed, so nothing can agree; add --seeds 5" in err
    before = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    code, out, err = run(command, capsys, base, "--n-clusters", "2-4", "--seeds", 3)
    assert code == 0, err
    table = pd.read_csv(base / "compared.csv")
    assert table["n_clusters"].tolist() == [2, 3, 4] and table["agreement"].between(0, 1).all()
    assert str(base / "compared.csv") in out and "lowest of any cluster" in out
    assert (base / "compared.png").stat().st_size > 0
    after = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before  # the run stays
    assert run("markers", capsys, "--task", "SC" if command == "cells" else "ST", "--dataset", base)[0] == 0
    assert "Numbers of clusters compared" in (base / "report.html").read_text()
    code, _, err = run(command, capsys, f"{command}.h5ad", *FAST, "--n-clusters", "2-4", "--output", base / "new")
    assert code == 2 and "compares numbers on a finished run" in err


def test_what_is_wrong_on_the_command_line(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    assert run("cells", capsys, "cells.h5ad", *FAST, "--no-figures", "--output", "results/SC/other")[0] == 0
    for flags, says in (
        (["results/SC/other"], "The data set is a finished run: add --n-clusters, --split or --merge"),
        (["results/SC/other", "--merge", 0], "--merge needs two clusters or more"),
        (
            ["results/SC/other", "--n-clusters", "4-2"],
            "(5-12 compares numbers on a finished run), not '4-2'",
        ),
        (["results/SC/other", "--n-clusters", "1-4"], "not '1-4'"),
        (["results/SC/other", "--n-clusters", "5-5"], "not '5-5'"),
        (["results/SC/other", "--n-clusters", "2-200", "--seeds", 3], "there are only 150 cells"),
        (["results/SC/other", "--n-clusters", "2-4", "--split", 0], "--split takes one number of parts"),
        (
            ["results/SC/other", "--n-clusters", "2-4", "--output", "x"],
            "leave out --output, --report and --marker-genes",
        ),
        (["results/SC/other", "--n-clusters", "2-4", "--marker-genes", "builtin"], "--report and --marker-genes"),
        (["results/SC/other", "--n-clusters", 2, "--marker-genes", "no.csv"], "--marker-genes no.csv is not a file"),
        (["results/SC/other", "--merge", 0, 1, "--split", 2], "--merge is a look of its own"),
        (["results/SC/other", "--split", 7], "There is no cluster 7"),
        (["nothing", "--split", 7], "There is no finished run in"),
        (["results/SC/other", "--n-clusters", 2, "--output", "results/SC/other"], "would replace the run"),
    ):
        code, _, err = run("cells", capsys, *flags)
        assert code == 2 and says in err
    code, _, err = run("tissue", capsys, "results/SC/other", "--n-clusters", 3)
    assert code == 2 and "is of cells, and this command is for spots" in err


def test_one_process_looks(finished, monkeypatch, capsys):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    code, _, err = run("cells", capsys, "cells.h5ad", "--merge", 0, 1)
    assert code == 2 and "start it without torchrun" in err
    code, _, err = run("cells", capsys, finished / "cells.h5ad", "--map-onto", "results/SC/other")
    assert code == 2 and "start it without torchrun" in err


def test_dividing_a_cluster_with_a_batch_of_few_cells(caplog):
    adata = simulate(240)
    adata.obs["donor"] = ["a", "b"] * 120
    scrcl.find_cell_types(adata, 3, batch_key="donor", label_key="none", n_seeds=1, umap=False, **QUICK)
    inside = np.flatnonzero((adata.obs["scrcl"] == "0").to_numpy())
    donors = np.array(adata.obs["donor"].astype(object))
    donors[inside[3:]] = "a"
    donors[inside[:3]] = "b"
    adata.obs["donor"] = donors
    with caplog.at_level("INFO"):
        scrcl.split_cluster(adata, "0", 2)
    assert "so batches are left as they are" in caplog.text
    assert {"0,0", "0,1"} <= set(adata.obs["scrcl_0_divided"])


def test_a_look_replaces_no_other_run(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    for name in ("one", "two"):
        flags = ["cells.h5ad", *FAST, "--no-figures", "--output", f"results/SC/{name}"]
        assert run("cells", capsys, *flags, at=finished)[0] == 0
    look = ["results/SC/one", "--merge", 0, 1, "--no-figures", "--output", "results/SC/two"]
    code, _, err = run("cells", capsys, *look)
    assert code == 2 and "results/SC/two holds another run; add --overwrite" in err
    look[-1] = "results/SC/one_again"
    assert run("cells", capsys, *look)[0] == 0 and run("cells", capsys, *look)[0] == 0  # the same look may be repeated
    monkeypatch.chdir(finished / "results" / "SC" / "one")
    code, _, err = run("cells", capsys, ".", "--n-clusters", 2, "--no-figures")
    assert code == 0, err


def test_a_run_is_known_by_its_file_not_by_its_name(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    for folder, n in (("first", 150), ("second", 120)):
        (finished / folder).mkdir()
        simulate(n).write_h5ad(finished / folder / "s.h5ad")
    assert run("cells", capsys, "first/s.h5ad", *FAST, "--no-figures", at=finished)[0] == 0
    code, _, err = run("cells", capsys, "second/s.h5ad", "--merge", 0, 1)
    assert code == 2 and "not of second/s.h5ad" in err
    assert run("cells", capsys, "first/s.h5ad", "--merge", 0, 1, "--no-figures")[0] == 0


def test_a_folder_of_data_that_holds_its_run_is_run_again(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    simulate().write_h5ad(tmp_path / "data" / "cells.h5ad")
    flags = ["cells", capsys, tmp_path / "data", *FAST, "--no-figures", "--output", tmp_path / "data"]
    for _ in range(2):
        code, _, err = run(*flags)
        assert code == 0, err


@pytest.mark.parametrize("values", ["log2", "counts"])
def test_dividing_what_a_run_has_kept(values, tmp_path, capsys):
    """The kept values are natural logarithms or counts, whatever the data of the run were."""
    adata = simulate(150)
    if values == "log2":
        adata.X = adata.X.astype(np.float64)
        adata.X.data = np.log2(1 + adata.X.data * 1.37)
    else:
        adata.X = adata.X * 1.37  # amounts that are not whole
    adata.write_h5ad(tmp_path / "in.h5ad")
    flags = ["--values", values, "--n-clusters", 2, "--no-figures", "--output", tmp_path / "out"]
    assert run("cells", capsys, "--dataset", tmp_path / "in.h5ad", *FAST, *flags)[0] == 0
    code, out, err = run("cells", capsys, tmp_path / "out", "--split", 0, "--n-clusters", 2, "--no-figures")
    assert code == 0, err
    assert "0,1" in out
