"""The command for tissue as a user runs it: folders, tables, names, and what it says where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import run, write_visium

from scrcl.commands import files
from scrcl.disk import home
from scrcl.readers.simulated import layered_tissue

SMALL = ["--epochs", 5, "--seed", 5, "--hidden", 16, "--n-pcs", 10]
QUICK = [*SMALL, "--no-figures"]


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=300, n_genes=60)


def test_files_of_a_run_on_a_visium_folder(capsys, tmp_path, tissue):
    folder = write_visium(tissue, tmp_path / "sample")
    truth = tissue.obs["ground_truth"].rename("layer_guess")
    truth.sample(frac=1, random_state=0).to_csv(folder / "metadata.tsv", sep="\t", index_label="barcode")
    out = tmp_path / "out"
    code, text, err = run("tissue", capsys, "--dataset", folder, "--output", out, *SMALL, "--seeds", 5, 15)
    assert code == 0 and "mean ± sd, not smoothed" in text and "obs['layer_guess']" in text, err
    assert {path.name for path in out.iterdir()} == {*files.RESULTS, *files.figures("ST")} - {"numbers.png"}
    labels = pd.read_csv(out / "labels.csv", index_col="barcode")
    assert list(labels.index) == list(tissue.obs_names)
    assert list(labels)[-3:] == ["scrcl_unsmoothed", "scrcl_confidence", "scrcl"]
    saved = ad.read_h5ad(out / "result.h5ad")
    assert set(saved.uns["spatial"]["sample"]["images"]) == {"hires", "lowres"}
    assert list(saved.obs["layer_guess"].astype(object).fillna("")) == list(truth.fillna(""))
    assert len(saved.uns["scrcl_colors"]) == len(saved.obs["scrcl"].cat.categories)
    scores = json.loads((out / "metrics.json").read_text())
    assert set(scores["unsmoothed"]["mean"]) == set(scores["mean"]) == {"ACC", "NMI", "ARI", "F1"}
    recorded = yaml.safe_load((out / "config.yaml").read_text())["provenance"]["input"]["sha256"]
    assert set(recorded) == {"filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv", "metadata.tsv"}
    again = tmp_path / "again"
    assert run("tissue", capsys, "--config", out / "config.yaml", "--output", again, "--no-figures")[0] == 0
    assert (again / "labels.csv").read_bytes() == (out / "labels.csv").read_bytes()


def test_a_folder_with_one_h5ad_keeps_its_name_when_the_run_is_repeated(monkeypatch, capsys, tmp_path, tissue):
    (tmp_path / "mytissue").mkdir()
    tissue.write_h5ad(tmp_path / "mytissue" / "x.h5ad")
    monkeypatch.chdir(tmp_path)
    assert run("tissue", capsys, "--dataset", "mytissue", *QUICK)[0] == 0
    out = home.results("ST") / "mytissue"
    first = (out / "labels.csv").read_bytes()
    (out / "labels.csv").unlink()
    monkeypatch.chdir("/")
    assert run("tissue", capsys, "--config", out / "config.yaml")[0] == 0
    assert (out / "labels.csv").read_bytes() == first


def twice(tissue: ad.AnnData) -> ad.AnnData:
    """The tissue twice at the same places, the second time in another order."""
    both = ad.concat([tissue, tissue], index_unique="-")
    order = np.random.default_rng(0).permutation(tissue.n_obs)
    both.obsm["spatial"] = np.concatenate([tissue.obsm["spatial"], tissue.obsm["spatial"][order]])
    return both


def test_two_sections_at_the_same_place(capsys, tmp_path, tissue, caplog):
    both = twice(tissue)
    both.write_h5ad(tmp_path / "none.h5ad")
    code, _, err = run("tissue", capsys, tmp_path / "none.h5ad", *QUICK)
    assert code == 2 and "so there are several sections, and nothing tells which spot is in which" in err
    both.obs["sample"] = ["a"] * tissue.n_obs + ["b"] * tissue.n_obs
    both.write_h5ad(tmp_path / "sample.h5ad")
    out = tmp_path / "out"
    assert run("tissue", capsys, tmp_path / "sample.h5ad", *SMALL, "--output", out)[0] == 0
    assert "obs['sample'] tells 2 sections apart" in caplog.text
    saved = ad.read_h5ad(out / "result.h5ad")
    assert saved.uns["scrcl"]["section_key"] == "sample"
    edges = saved.obsp["scrcl_graph"].tocoo()
    sections = saved.obs["sample"].astype(str).to_numpy()
    assert (sections[edges.row] == sections[edges.col]).all()
    assert run("markers", capsys, "--task", "ST", out)[0] == 0


def test_spots_off_the_tissue_in_an_h5ad(capsys, tmp_path, tissue, caplog):
    tissue.obs["in_tissue"] = [0] * 40 + [1] * 260
    tissue.write_h5ad(tmp_path / "x.h5ad")
    assert run("tissue", capsys, tmp_path / "x.h5ad", *QUICK, "--output", tmp_path / "out")[0] == 0
    assert "40 of 300 spots are outside the tissue: left out, without a label." in caplog.text
    labels = pd.read_csv(tmp_path / "out" / "labels.csv", index_col="barcode")["scrcl"]
    assert labels.isna().tolist() == [True] * 40 + [False] * 260


@pytest.mark.parametrize("argv", [["--demo"], ["--dataset", "demo"], ["demo"]])
def test_the_demo_says_that_it_is_simulated(capsys, caplog, argv):
    code, text, _ = run("tissue", capsys, *argv, *QUICK)
    assert code == 0 and "simulated" in caplog.text and "ARI" in text
    assert text.rstrip().endswith(f"Results: {home.results('ST') / 'demo'}")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "Put one of these in place"),
        (["--dataset", "151673"], "fetch 151673` fetches it"),
        (["--dataset", "nowhere"], "There is no data set 'nowhere'"),
        (["--dataset", Path(__file__).parent], "cannot be read"),
        (["--demo", "--dataset", "151673"], "both given"),
        (["--demo", "151673"], "both given"),
        (["--demo", "--label-key", "typo"], "no obs column 'typo'"),
        (["--demo", "--section-key", "typo"], "no obs column 'typo'"),
        (["--demo", "--graph", "radius"], "needs --radius"),
        (["--demo", "--radius", "9"], "no effect on --graph knn"),
        (["--demo", "--annotation", "mine.csv"], "its own annotation"),
        (["--demo", "--n-clusters", "1601"], "only 1600 cells"),
    ],
)
def test_one_sentence_and_exit_code_2(capsys, argv, says):
    code, out, err = run("tissue", capsys, *argv, *SMALL)
    assert code == 2 and says in err and "Traceback" not in err and out == ""


def test_single_cell_data_have_no_positions(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "cells.h5ad")
    code, _, err = run("tissue", capsys, "--dataset", tmp_path / "cells.h5ad")
    assert code == 2 and "no coordinates" in err


def test_an_annotation_table_beside_an_h5ad(capsys, tmp_path, tissue):
    tissue.obs.pop("ground_truth").rename("region").to_csv(tmp_path / "mine.csv", index_label="cell")
    tissue.write_h5ad(tmp_path / "spots.h5ad")
    argv = ["--dataset", tmp_path / "spots.h5ad", "--annotation", tmp_path / "mine.csv", "--label-key", "region"]
    code, text, _ = run("tissue", capsys, *argv, *QUICK)
    assert code == 0 and "obs['region']" in text


def test_the_folder_by_itself(capsys, tmp_path, tissue):
    folder = write_visium(tissue, tmp_path / "sample")
    for argv, out in ((["--dataset", folder, *QUICK], "flag"), ([folder, *QUICK], "alone")):
        assert run("tissue", capsys, *argv, "--n-clusters", 4, "--output", tmp_path / out)[0] == 0
    assert (tmp_path / "alone" / "labels.csv").read_bytes() == (tmp_path / "flag" / "labels.csv").read_bytes()


def test_a_run_does_not_name_the_user_and_is_repeated_in_another_home(monkeypatch, capsys, tmp_path, tissue):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    tissue.obs.pop("ground_truth").rename("region").to_csv(first / "mine.csv", index_label="cell")
    tissue.write_h5ad(first / "spots.h5ad")
    monkeypatch.setenv("HOME", str(first))
    argv = ["--dataset", first / "spots.h5ad", "--annotation", first / "mine.csv", "--label-key", "region"]
    assert run("tissue", capsys, *argv, *QUICK, "--output", first / "out")[0] == 0
    text = (first / "out" / "config.yaml").read_text()
    recorded = yaml.safe_load(text)
    assert str(first) not in text
    assert recorded["settings"]["dataset"] == recorded["provenance"]["input"]["file"] == "~/spots.h5ad"
    assert recorded["settings"]["annotation"] == "~/mine.csv" and recorded["settings"]["output"] == "~/out"
    labels, scores = ((first / "out" / name).read_bytes() for name in ("labels.csv", "metrics.json"))
    first.rename(second)
    (second / "out" / "labels.csv").unlink()
    monkeypatch.setenv("HOME", str(second))
    code, _, err = run("tissue", capsys, "--config", second / "out" / "config.yaml")
    assert code == 0, err
    assert (second / "out" / "labels.csv").read_bytes() == labels
    repeated = json.loads((second / "out" / "metrics.json").read_text())
    assert repeated["scores"] == json.loads(scores)["scores"] != {}
    again = yaml.safe_load((second / "out" / "config.yaml").read_text())
    assert again["provenance"]["input"] == recorded["provenance"]["input"]
    assert set(recorded["provenance"]["input"]["sha256"]) == {"spots.h5ad", "mine.csv"}
