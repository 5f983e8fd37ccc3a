"""The command for cells as a user runs it: its files, its repetition, and what it never touches."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import FAST, ROOT, run, simulate
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.analysis import analyse
from scrcl.cluster.number import number_of
from scrcl.commands import files, results
from scrcl.contents.labels import find_labels
from scrcl.contents.values import find_expression
from scrcl.disk import home
from scrcl.messages import UserError
from scrcl.method import training
from scrcl.readers import h5ad
from scrcl.recipes import BUNDLED, CellSettings

QUICK = [*FAST, "--no-figures"]


def process(*argv: object, at: Path) -> subprocess.CompletedProcess[str]:
    """`scrcl cells argv` in a process of its own, in the folder `at`."""
    command = [sys.executable, "-m", "scrcl", "cells", *map(str, argv)]
    return subprocess.run(command, cwd=at, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_the_curve_of_an_estimated_number_is_written_and_removed_by_a_run_without(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path / "out", *FAST, "--label-key", "none"]
    code, text, _ = run("cells", capsys, *argv)
    curve = pd.read_csv(tmp_path / "out" / "numbers.csv")
    assert code == 0 and f"Number of clusters: {number_of(curve)}, estimated without labels." in text
    assert list(curve) == ["n_clusters", "shared", "held"] and (tmp_path / "out" / "numbers.png").stat().st_size > 5000
    run("cells", capsys, *argv, "--n-clusters", 3)
    assert not [path.name for path in (tmp_path / "out").glob("numbers*")]


def test_clusters_are_named_at_the_end_by_known_markers(capsys, caplog, tmp_path, counts):
    counts.var["symbol"] = [f"SYM{i}" for i in range(counts.n_vars)]  # the genes' own names are numbers
    counts.write_h5ad(tmp_path / "in.h5ad")
    known, empty = tmp_path / "known.csv", tmp_path / "empty.csv"
    known.write_text("type,gene\nfirst,SYM0\nfirst,SYM1\nsecond,SYM20\nthird,sym30\nnone,SYM99\n")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path / "out", *FAST, "--report", "--marker-genes"]
    code, text, _ = run("cells", capsys, *argv, known)
    assert code == 0 and "None of the markers of none is in the data" in caplog.text
    named = pd.read_csv(tmp_path / "out" / "cluster_names.csv", dtype=str).set_index("cluster")["name"]
    assert set(named) == {"first", "second", "third"}
    labels = pd.read_csv(tmp_path / "out" / "labels.csv", index_col=0, dtype=str)["scrcl"]
    assert dict(zip(labels, counts.obs["cell_type1"])) == {
        cluster: {"first": "type 0", "second": "type 1", "third": "type 2"}[name] for cluster, name in named.items()
    }
    for cluster, name in named.items():
        assert re.search(rf"(?m)^{cluster} +\d.+clear +{name} +SYM\d+,", text)
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["settings"]["marker_genes"] == str(known)
    empty.write_text("type,gene\nfirst,SYM100\n")
    own = tmp_path / "out" / "markers.csv"
    own.write_text(known.read_text())
    for wrong, says in (
        ("nowhere.csv", "is not a file; builtin means"),
        (empty, "None of the 1 genes in"),
        (own, "would overwrite the input"),
    ):
        code, _, err = run("cells", capsys, *argv, wrong)
        assert code == 2 and says in err


def test_markers_that_are_in_raw_alone_name_clusters_too(capsys, caplog, tmp_path, counts):
    """As in many finished files: some genes, scaled, in X, and all in .raw."""
    adata = counts[:, 40:].copy()
    adata.raw = counts
    adata.X = adata.X.toarray() - 1.5
    adata.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "known.csv").write_text("type,gene\nfirst,gene-0\nsecond,gene-15\nthird,gene-30\n")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path / "out", *QUICK]
    code, text, _ = run("cells", capsys, *argv, "--marker-genes", tmp_path / "known.csv")
    assert code == 0 and all(re.search(rf"clear +{name} +gene-", text) for name in ("first", "second", "third"))
    assert "None of the markers" not in caplog.text


def test_a_run_that_has_kept_no_marker_says_so_and_ends_well(capsys, caplog, tmp_path):
    counts = simulate(150)
    counts.X = counts.X.toarray() * (np.arange(80) != 79)  # gene-79 is in no cell
    counts.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "known.csv").write_text("type,gene\nfirst,gene-79\n")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path / "out", *FAST, "--report"]
    code, text, _ = run("cells", capsys, *argv, "--marker-genes", tmp_path / "known.csv")
    assert code == 0 and " name " not in text and (tmp_path / "out" / "report.html").exists()
    assert "None of the known markers is among the genes that the run has kept" in caplog.text


@pytest.mark.parametrize("kept", ["gene-0", "gene-1"])
def test_values_left_on_disk_name_clusters_by_the_genes_that_are_kept(kept, capsys, caplog, tmp_path, monkeypatch):
    """Of these the result has its highly variable genes alone, and gene-1 is none of them."""
    monkeypatch.setattr(h5ad, "IN_MEMORY_UP_TO", 0)
    simulate(150).write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "known.csv").write_text(f"type,gene\nfirst,{kept}\n")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path / "out", *FAST, "--n-top-genes", 30, "--report"]
    code, text, _ = run("cells", capsys, *argv, "--marker-genes", tmp_path / "known.csv")
    saved = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert code == 0 and (tmp_path / "out" / "report.html").exists() and saved.var["highly_variable"].all()
    assert (" name " in text) == (kept in saved.var_names) == (kept == "gene-0")
    assert ("among the genes that the run has kept" in caplog.text) == (kept == "gene-1")


def test_files_of_a_run(capsys, tmp_path, counts):
    counts.X = counts.X.toarray()
    counts.X[3] = 0
    counts.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", out, *FAST, "--seeds", 5, 15]
    code, text, _ = run("cells", capsys, *argv)
    assert code == 0 and "mean ± sd" in text and "Time and memory: " in text
    assert {path.name for path in out.iterdir()} == {*files.RESULTS, *files.figures("SC")} - {"numbers.png"}
    labels = pd.read_csv(out / "labels.csv")
    assert list(labels) == ["barcode", "seed_5", "seed_15", "scrcl_confidence", "scrcl"]
    assert list(labels["barcode"]) == list(counts.obs_names) and labels["scrcl"].isna().sum() == 1
    saved = ad.read_h5ad(out / "result.h5ad")
    assert {"X_scrcl", "X_pca", "X_umap"} <= set(saved.obsm)
    assert "scrcl_graph" in saved.obsp and "counts" in saved.layers
    assert saved.uns["scrcl"]["n_clusters"] == 3
    assert len(saved.uns["scrcl_colors"]) == len(saved.obs["scrcl"].cat.categories) == 3
    clusters = pd.read_csv(out / "clusters.csv", dtype={"cluster": str, "nearest": str}, index_col="cluster")
    clusters = clusters.fillna({"nearest": ""})
    assert list(clusters) == ["size", "agreement", "nearest", "support", "verdict"]
    assert clusters["size"].sum() == counts.n_obs - 1 and (clusters["verdict"] == "clear").all()
    pd.testing.assert_frame_equal(clusters, saved.uns["scrcl"]["clusters"].round(4))
    for name in clusters.index:
        assert re.search(rf"(?m)^{name} +{clusters.loc[name, 'size']} +[.\d]+ +[-.\d]+ +clear +gene-\d+, .+$", text)
    scores = json.loads((out / "metrics.json").read_text())
    assert scores["clusters"]["0"]["support"] is None  # the largest is part of no other
    assert pd.DataFrame(scores["clusters"]).loc["size"].to_dict() == clusters["size"].to_dict()
    assert scores["mean"]["ARI"] == pytest.approx(np.mean([scores["scores"][f"seed_{s}"]["ARI"] for s in (5, 15)]))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 10 and set(lines[0]) == {"seed", "epoch", "hea_global", "hea_cell", "ndc", "cvc", "total"}
    state = torch.load(out / "model.pt", weights_only=True)
    assert "projector.weight" in state


def test_colours_of_a_run_without_figures(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", "--n-clusters", 5, "--label-key", "none"]
    assert run("cells", capsys, *argv, *QUICK, "--output", tmp_path / "out")[0] == 0
    saved = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert len(saved.uns["scrcl_colors"]) == len(saved.obs["scrcl"].cat.categories) == 5
    assert len(set(saved.uns["scrcl_colors"])) == 5 and "X_umap" not in saved.obsm


def test_results_go_to_the_folder_of_the_data_sets_name(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "mine.h5ad")
    code, text, _ = run("cells", capsys, "--dataset", tmp_path / "mine.h5ad", *QUICK)
    assert code == 0 and results.is_finished(home.results("SC") / "mine")
    assert text.rstrip().endswith(f"Results: {home.results('SC') / 'mine'}")


def test_config_yaml_repeats_the_run(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    first, second = tmp_path / "first", tmp_path / "second"
    run("cells", capsys, "--dataset", tmp_path / "in.h5ad", "--output", first, *QUICK, "--seed", 7)
    recorded = yaml.safe_load((first / "config.yaml").read_text())
    assert recorded["provenance"]["input"]["sha256"] and recorded["settings"]["seeds"] == [7]
    assert recorded["provenance"]["versions"]["scrcl"] == scrcl.__version__
    assert run("cells", capsys, "--config", first / "config.yaml", "--output", second)[0] == 0
    assert (first / "labels.csv").read_bytes() == (second / "labels.csv").read_bytes()


def test_a_later_run_leaves_no_figure_of_an_earlier_one(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "notes.txt").write_text("the user's own")
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", tmp_path, *FAST]
    run("cells", capsys, *argv)
    assert (tmp_path / "confusion.png").exists()
    run("cells", capsys, *argv, "--label-key", "none", "--n-clusters", 3, "--no-figures")
    assert not (tmp_path / "confusion.png").exists() and (tmp_path / "notes.txt").exists()


def test_files_that_no_run_has_written_are_never_touched(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "result.h5ad")
    before = (tmp_path / "result.h5ad").read_bytes()
    argv = ["--dataset", tmp_path / "result.h5ad", *FAST, "--output"]
    code, _, err = run("cells", capsys, *argv, tmp_path)
    assert code == 2 and "would overwrite the input" in err
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "labels.csv").write_text("the user's own")
    code, _, err = run("cells", capsys, *argv, tmp_path / "sub")
    assert code == 2 and "contains labels.csv, which no earlier run has written" in err
    assert (tmp_path / "result.h5ad").read_bytes() == before and len(list((tmp_path / "sub").iterdir())) == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--dataset", "nowhere"], "There is no data set 'nowhere'"),
        (["--dataset", "Baron_human"], "fetch Baron_human` fetches it"),
        (["--unknown-flag"], "There is no flag --unknown-flag"),
        (["--device", "cuda:7"], "not on this machine"),
        (["--label-key", "typo"], "no obs column 'typo'"),
        (["--output", "/proc/nothing/can/be/here"], "cannot be written"),
        (["--n-clusters", "701"], "only 700 cells"),
    ],
)
def test_one_sentence_and_exit_code_2(capsys, argv, says):
    code, out, err = run("cells", capsys, *argv)
    assert code == 2 and says in err and "Traceback" not in err and out == ""
    assert err.strip().splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("failure", [UserError("no more"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_run_that_ends_early_leaves_earlier_results_whole(monkeypatch, capsys, tmp_path, counts, failure, caplog):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"
    argv = ["--dataset", tmp_path / "in.h5ad", "--output", out, *QUICK]
    assert run("cells", capsys, *argv)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*args, **kwargs):
        raise failure

    where = (results, "provenance") if isinstance(failure, OSError) else (training.Updates, "__call__")
    monkeypatch.setattr(*where, fail)
    code, _, err = run("cells", capsys, *argv, "--seed", 99)
    assert code == (130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert "No space left" in err or not isinstance(failure, OSError)
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    after.pop("log.unfinished.jsonl", None)
    rescued = after.pop("labels.unfinished.csv", None)
    assert after == before
    assert (rescued is not None) == isinstance(failure, OSError)  # by then there are labels
    if rescued is not None:
        assert f"The labels are kept in {out / 'labels.unfinished.csv'}" in caplog.text
        monkeypatch.undo()
        home.set_home(tmp_path)
        assert run("cells", capsys, *argv, "--seed", 99)[0] == 0
        assert (out / "labels.csv").read_bytes() == rescued and not (out / "labels.unfinished.csv").exists()


def test_labels_survive_annotations_that_h5ad_cannot_hold(monkeypatch, tmp_path, counts, fast, caplog):
    result = analyse(counts, CellSettings(**fast))
    result.cells.varm["odd"] = np.array([[{"a": 1}]] * result.cells.n_vars)
    results.write(result, tmp_path, None)
    assert set(ad.read_h5ad(tmp_path / "result.h5ad").obs) == {
        *("scrcl", "scrcl_seed_5", "scrcl_confidence", "scrcl_total"),
    }
    assert (tmp_path / "labels.csv").exists() and "leaves out the input's own annotations" in caplog.text


@pytest.mark.parametrize("failure", [MemoryError(), TypeError("no such type")])
def test_labels_survive_whatever_befalls_the_h5ad(monkeypatch, capsys, tmp_path, counts, failure, caplog):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"

    def fail(cells, path):
        raise failure

    monkeypatch.setattr(results, "_write_h5ad", fail)
    assert run("cells", capsys, "--dataset", tmp_path / "in.h5ad", "--output", out, *QUICK)[0] == 0
    assert "result.h5ad cannot be written" in caplog.text and "all other results are there" in caplog.text
    assert {path.name for path in out.iterdir()} == {
        *("labels.csv", "clusters.csv", "tree.csv", "metrics.json", "config.yaml", "log.jsonl", "model.pt"),
    }


@pytest.mark.parametrize("part", ["obs", "var"])
def test_pandas_own_strings_as_names(capsys, tmp_path, counts, part):
    """What anndata 0.14 and pandas 3 write by default."""
    with ad.settings.override(allow_write_nullable_strings=True):
        table = getattr(counts, part)
        setattr(counts, part, table.set_axis(table.index.astype("string")))
        counts.write_h5ad(tmp_path / "in.h5ad")
    code, _, err = run("cells", capsys, "--dataset", tmp_path / "in.h5ad", "--output", tmp_path / "out", *QUICK)
    assert code == 0 and "cannot" not in err
    written = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert list(written.obs_names) == [f"cell-{i}" for i in range(120)] and "cell_type1" in written.obs
    labels = pd.read_csv(tmp_path / "out" / "labels.csv", index_col=0)
    assert list(labels.index) == list(written.obs_names) and labels["scrcl"].notna().all()
    assert adjusted_rand_score(labels["scrcl"], counts.obs["cell_type1"]) > 0.9


def two_patients(folder: Path) -> list[Path]:
    """Two files of the same name in two folders."""
    paths = [folder / patient / "adata.h5ad" for patient in ("patientA", "patientB")]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        simulate(seed=seed).write_h5ad(path)
    return paths


def test_results_of_other_data_are_replaced_only_when_asked(capsys, tmp_path, own_home):
    first, second = two_patients(tmp_path)
    out = own_home / "results" / "SC" / "adata"
    assert run("cells", capsys, first, *QUICK)[0] == 0
    labels = (out / "labels.csv").read_bytes()
    code, _, err = run("cells", capsys, second, *QUICK)
    assert code == 2 and err.strip().endswith(
        f"{out} holds the results of {first}, and this run is on {second}; add --overwrite to replace them, or choose "
        "another folder with --output."
    )
    assert (out / "labels.csv").read_bytes() == labels
    moved = tmp_path / "moved.h5ad"
    first.rename(moved)  # the same data elsewhere
    assert run("cells", capsys, moved, *QUICK, "--output", out)[0] == 0
    assert run("cells", capsys, second, *QUICK, "--overwrite")[0] == 0
    simulate(seed=7).write_h5ad(second)
    code, _, err = run("cells", capsys, second, *QUICK)
    assert code == 2 and "holds the results of that file before it changed" in err
    assert run("cells", capsys, "--config", out / "config.yaml", *QUICK)[0] == 2  # overwriting is not repeated


def test_results_carry_the_given_name_of_a_link(capsys, tmp_path, counts, own_home):
    counts.write_h5ad(tmp_path / "target.h5ad")
    (tmp_path / "given.h5ad").symlink_to(tmp_path / "target.h5ad")
    assert run("cells", capsys, tmp_path / "given.h5ad", *QUICK)[0] == 0
    out = own_home / "results" / "SC" / "given"
    first = (out / "labels.csv").read_bytes()
    assert run("cells", capsys, "--config", out / "config.yaml")[0] == 0  # under its own name again
    assert (out / "labels.csv").read_bytes() == first and not (out.parent / "target").exists()
    assert run("markers", capsys, tmp_path / "given.h5ad")[0] == 0


def test_the_bundled_set_is_real_and_labelled():
    adata = scrcl.read(BUNDLED)
    assert adata.shape == (700, 765) and find_labels(adata.obs).nunique() == 10
    assert find_expression(adata).slot == ".raw"


def test_a_folder_with_the_name_of_a_data_set_is_not_taken_for_it(monkeypatch, capsys, tmp_path, counts):
    """`--dataset mine --output mine`: config.yaml names the file."""
    home.data_folder("SC").mkdir(parents=True)
    counts.write_h5ad(home.data_folder("SC") / "mine.h5ad")
    monkeypatch.chdir(tmp_path)
    assert run("cells", capsys, "--dataset", "mine", *QUICK, "--output", "mine")[0] == 0
    settings = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())["settings"]
    assert Path(settings["dataset"]).expanduser() == home.data_folder("SC") / "mine.h5ad"
    assert Path(settings["output"]).expanduser() == tmp_path / "mine"


@pytest.mark.parametrize("form", ["a path", "a name"])
def test_the_data_set_by_itself(capsys, tmp_path, counts, form):
    home.data_folder("SC").mkdir(parents=True)
    counts.write_h5ad(home.data_folder("SC") / "mine.h5ad")
    named = home.data_folder("SC") / "mine.h5ad" if form == "a path" else "mine"
    for argv, out in ((["--dataset", named, *QUICK], "flag"), ([named, *QUICK], "alone"), ([*QUICK, named], "last")):
        assert run("cells", capsys, *argv, "--output", tmp_path / out)[0] == 0
    first = (tmp_path / "flag" / "labels.csv").read_bytes()
    for out in ("alone", "last"):
        assert (tmp_path / out / "labels.csv").read_bytes() == first
        settings = yaml.safe_load((tmp_path / out / "config.yaml").read_text())["settings"]
        assert Path(settings["dataset"]).expanduser() == home.data_folder("SC") / "mine.h5ad"


def test_without_known_labels_nothing_is_said_of_the_method(tmp_path, counts, capsys):
    counts.write_h5ad(tmp_path / "in.h5ad")
    flags = ["--seeds", 3, "--label-key", "none", "--n-clusters", 3, "--output", tmp_path / "out"]
    code, text, _ = run("cells", capsys, "--dataset", tmp_path / "in.h5ad", *QUICK, *flags)
    assert code == 0 and len(text.strip().splitlines()) == 8 + 3  # a line per cluster
    assert not any(word in text for word in ("seed", "epoch", "loss", "joint", "consensus", "dimensions"))
    assert "Agreement: " in text
    genes = [line.split("clear")[1] for line in text.splitlines() if "clear" in line]
    assert len(genes) == 3 and all("gene-" in own for own in genes)


def test_genes_with_ids_for_names_are_told_by_symbols_and_nothing_is_said_of_it(tmp_path, counts):
    counts.var["feature_name"] = counts.var_names.str.replace("gene", "SYMBOL")
    counts.var_names = [f"ENSG{i:011d}" for i in range(counts.n_vars)]
    counts.write_h5ad(tmp_path / "in.h5ad")
    done = process("in.h5ad", *QUICK, at=tmp_path)
    assert done.returncode == 0 and "SYMBOL-" in done.stdout and "ENSG" not in done.stdout
    assert "Gene names" not in done.stderr and "gene-key" not in done.stderr


def test_quiet_says_nothing_but_the_table(tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    told, quiet = (process("in.h5ad", *QUICK, *flags, at=tmp_path) for flags in ([], ["--quiet"]))
    assert told.returncode == quiet.returncode == 0
    assert "Training: " in told.stderr and "Clusters: 3" in told.stderr and quiet.stderr == ""
    first, *_, last = quiet.stdout.strip().splitlines()
    assert first.startswith("Number of clusters: 3, the number of known labels")
    assert ["clusters", "epochs", "loss", "ACC", "NMI", "ARI", "F1"] in [x.split() for x in quiet.stdout.splitlines()]
    assert last == f"Results: {Path('results', 'SC', 'in')}"
    assert len(quiet.stdout.splitlines()) == len(told.stdout.splitlines())


def test_quiet_says_what_is_wrong(tmp_path):
    done = process("nowhere.h5ad", "--quiet", at=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: There is no data set 'nowhere.h5ad'")


def test_a_run_does_not_name_the_user_and_is_repeated_in_another_home(monkeypatch, capsys, tmp_path, counts):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "data").mkdir(parents=True)
    counts.write_h5ad(first / "data" / "in.h5ad")
    monkeypatch.setenv("HOME", str(first))
    argv = [first / "data" / "in.h5ad", *QUICK, "--output", first / "out"]
    assert run("cells", capsys, *argv, at=first)[0] == 0
    text = (first / "out" / "config.yaml").read_text()
    recorded = yaml.safe_load(text)
    assert str(first) not in text and first.name not in text
    assert recorded["settings"]["dataset"] == recorded["provenance"]["input"]["file"] == "~/data/in.h5ad"
    assert recorded["settings"]["output"] == "~/out"
    assert recorded["provenance"]["command"].startswith("scrcl cells ~/data/in.h5ad ")
    labels = (first / "out" / "labels.csv").read_bytes()
    first.rename(second)
    (second / "out" / "labels.csv").unlink()
    monkeypatch.setenv("HOME", str(second))
    assert run("cells", capsys, "--config", second / "out" / "config.yaml", at=second)[0] == 0
    assert (second / "out" / "labels.csv").read_bytes() == labels
