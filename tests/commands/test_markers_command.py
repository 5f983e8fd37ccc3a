"""The command for marker genes and --report on small runs: files, labels of all kinds, the page, and bad input."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import FAST, ROOT, run, simulate

from scrcl import plot
from scrcl.commands import files, labelled, ranking, script
from scrcl.disk import home
from scrcl.genes.settings import MarkerSettings
from scrcl.messages import without_home
from scrcl.readers.simulated import layered_tissue

ON_REQUEST = ("volcano", "enrichment", "conditions", "pseudotime")
FIGURES = [name for name, entry in plot.GENE_FIGURES.items() if "SC" in entry.tasks and name not in ON_REQUEST]
TABLES = ("markers.csv", "top_markers.csv", "markers.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with cells.h5ad, and with results/ after a run on it."""
    folder = tmp_path_factory.mktemp("finished")
    simulate().write_h5ad(folder / "cells.h5ad")
    home.set_home(folder)
    assert script.run("cells", list(map(str, ["--dataset", folder / "cells.h5ad", *FAST])), "scrcl cells") == 0
    home.set_home(Path())
    return folder


@pytest.fixture
def place(finished, tmp_path) -> Path:
    """A copy of it, as the folder of data and results of this test."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "results" / "SC" / "cells" / "config.yaml"
    config.write_text(config.read_text().replace(without_home(str(finished)), without_home(str(tmp_path))))
    home.set_home(tmp_path)
    return tmp_path


@pytest.fixture
def folder(place) -> Path:
    """The folder of the run."""
    return place / "results" / "SC" / "cells"


@pytest.fixture
def cli(capsys):
    return lambda *argv: run("markers", capsys, *argv)


class Page(HTMLParser):
    """What a page shows and what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words, self.references, self.tags = "", [], []
        self.feed(path.read_text())
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, text: str) -> None:
        self.words += text


def test_the_latest_run(cli, caplog, folder):
    code, out, _ = cli()
    assert code == 0 and f"The finished run in {folder}" in caplog.text
    written = {path.name for path in folder.iterdir()}
    assert written >= {*TABLES, *(f"{stem}.png" for stem in FIGURES), "cluster_types.csv", "report.html"}
    table = pd.read_csv(folder / "markers.csv", dtype={"group": str})
    assert len(table) == 3 * 80 and list(table)[:3] == ["group", "names", "scores"]
    top = pd.read_csv(folder / "top_markers.csv", dtype={"group": str})
    types = pd.read_csv(folder / "cluster_types.csv", dtype=str).set_index("cluster")
    assert set(types["known_type"]) == {"type 0", "type 1", "type 2"}
    for name, genes in top[top["top_rank"] <= 3].groupby("group"):
        own = np.array_split(np.arange(40), 3)[int(types.loc[name, "known_type"][-1])]
        assert set(genes["names"]) <= {f"gene-{i}" for i in own}
    assert "type 1" in out and str(folder) in out


def test_the_page_needs_nothing_else(cli, folder):
    cli()
    page = Page(folder / "report.html")
    assert page.references and all(ref.startswith(("data:", "#")) for ref in page.references)
    assert page.tags.count("img") == len(FIGURES) + 4  # trust, tree, confusion and losses of the run
    assert page.tags.count("table") == 5  # at a glance, overview, trust, genes, scores
    for words in (
        "cells",
        "120 cells, 80 genes",
        "in training, or in",
        "Matrix plot",
        "probability that a",
    ):
        assert words in page.words
    for words in ("n_drawn", "scanpy", "min_fold_change"):
        assert words in page.words


def test_names_in_the_page_are_text(cli, place):
    adata = simulate(n_types=2)
    adata.obs["mine"] = pd.Categorical(np.where(np.arange(120) % 2, "<b>x</b> & y/z", "Ä 2"))
    adata.var_names = [f"<i>{i}" for i in range(80)]
    adata.write_h5ad(place / "odd.h5ad")
    code, _, _ = cli("--dataset", place / "odd.h5ad", "--labels", "mine")
    page = Page(place / "results" / "SC" / "odd_by_mine" / "report.html")
    assert code == 0 and "<b>x</b> & y/z" in page.words and "<i>7" in page.words and not {"b", "i"} & set(page.tags)


@pytest.mark.parametrize("form", ["column", "csv", "own labels"])
def test_labels_from_elsewhere(cli, caplog, place, folder, form):
    kinds = pd.Series(["even" if i % 2 == 0 else "odd" for i in range(120)], index=[f"cell-{i}" for i in range(120)])
    kinds[:10] = None
    adata = simulate()
    adata.obs["kind"] = kinds
    adata.write_h5ad(place / "new.h5ad")
    shuffled = kinds.rename("kind").iloc[::-1].rename_axis("barcode").reset_index()
    shuffled.to_csv(place / "kinds.csv", index=False)
    labels = {"column": "kind", "csv": place / "kinds.csv", "own labels": folder / "labels.csv"}[form]
    code, out, _ = cli("--dataset", place / "new.h5ad", "--labels", labels)
    assert code == 0
    if form == "own labels":
        assert (place / "results" / "SC" / "new_by_scrcl" / "markers.csv").exists()
    else:
        assert "10 of 120 cells have no label" in caplog.text and "even" in out
        top = pd.read_csv(place / "results" / "SC" / "new_by_kind" / "top_markers.csv")
        assert set(top["group"]) == {"even", "odd"}
        types = pd.read_csv(place / "results" / "SC" / "new_by_kind" / "cluster_types.csv")
        assert list(types["n_cells"]) == [55, 55]


def test_a_runs_own_table_names_the_run(place, folder):
    shutil.copytree(folder, place / "results" / "SC" / "later")
    os.utime(place / "results" / "SC" / "later" / "labels.csv")
    assert labelled.find_run(MarkerSettings()).folder == place / "results" / "SC" / "later"
    labels = folder / "labels.csv"
    found, of_run = labelled.find(MarkerSettings(labels=str(labels)))
    assert of_run.folder == folder and found.own
    other, of_run = labelled.find(MarkerSettings(labels=str(labels), label_column="seed_5"))
    assert of_run.folder == folder and not other.own and other.label_name == "seed_5"


def test_other_labels_leave_the_runs_own_results_alone(cli, place, folder):
    cli()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code, _, _ = cli("--dataset", "cells", "--labels", "cell_type1")
    assert code == 0 and before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    beside = place / "results" / "SC" / "cells_by_cell_type1"
    assert (beside / "markers.csv").exists()
    assert not (beside / "cluster_types.csv").exists()  # labels against themselves say nothing


def test_flags_have_their_effect(cli, caplog, place):
    folder = place / "out"
    known = place / "known.csv"
    known.write_text("type,gene\n" + "".join(f"T{t},gene-{g}\n" for t, g in ((0, 1), (0, 2), (1, 15), (2, 30))))
    code, _, _ = cli(
        *("--output", folder, "--method", "t-test", "--n-genes", "7"),
        *("--groups", "0", "2", "--format", "svg", "--dpi", "40", "--volcano", "--marker-genes", known),
        *("--min-in-group-fraction", "0.9", "--max-out-group-fraction", "1", "--min-fold-change", "0.5"),
    )
    assert code == 0 and "4 of its 4 markers are in the data" in caplog.text
    top = pd.read_csv(folder / "top_markers.csv", dtype={"group": str})
    assert set(top["group"]) == {"0", "2"} and top["rank"].max() >= 7
    assert (top.loc[top["passes_filter"], "pct_nz_group"] > 0.9).all()
    assert {f"{stem}.svg" for stem in (*FIGURES, "volcano")} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.png")) and "<svg" in (folder / "volcano.svg").read_text()[:1000]
    names = pd.read_csv(folder / "cluster_names.csv", dtype={"cluster": str}).set_index("cluster")
    types = pd.read_csv(folder / "cluster_types.csv", dtype={"cluster": str}).set_index("cluster")
    assert list(names["name"]) == [f"T{name[-1]}" for name in types["known_type"]] and (names["margin"] > 0).all()
    code, _, _ = cli("--config", folder / "markers.yaml", "--format", "png", "--output", folder)
    assert code == 0 and not list(folder.glob("*.svg"))
    assert pd.read_csv(folder / "top_markers.csv", dtype={"group": str}).equals(top)


def test_dpi_is_that_of_the_files(cli, place):
    sizes = []
    for dpi in (50, 100):
        cli("--dpi", dpi, "--output", place / f"out{dpi}")
        sizes.append(matplotlib.image.imread(place / f"out{dpi}" / "ranking.png").shape[0])
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.03)


def test_a_new_run_removes_markers_of_the_old_one(cli, capsys, place, folder):
    cli()
    assert (folder / "report.html").exists()
    run("cells", capsys, "--dataset", place / "cells.h5ad", *FAST, "--no-figures")
    left = {path.name for path in folder.iterdir()}
    assert left == set(files.RESULTS) and not left & set(files.OF_GENES)


def test_report_of_a_run_and_a_run_without_figures(cli, capsys, caplog, tmp_path):
    simulate().write_h5ad(tmp_path / "cells.h5ad")
    given = ["--dataset", tmp_path / "cells.h5ad", *FAST, "--output", tmp_path / "out"]
    code, out, _ = run("cells", capsys, *given, "--report")
    assert code == 0 and (tmp_path / "out" / "report.html").exists() and "top genes" in out
    first = pd.read_csv(tmp_path / "out" / "markers.csv")
    run("cells", capsys, *given, "--no-figures")
    code, _, _ = cli("--dataset", tmp_path / "out", "--output", tmp_path / "out")
    assert code == 0 and "UMAP of 120 cells" in caplog.text
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "markers.csv"), first)


@pytest.mark.parametrize("sections", [False, True])
def test_tissue(cli, capsys, tmp_path, sections):
    tissue = layered_tissue(n_spots=300, n_genes=60)
    if sections:
        tissue.obs["library_id"] = np.where(np.arange(300) % 2, "one", "two")
    tissue.write_h5ad(tmp_path / "tissue.h5ad")
    home.set_home(tmp_path)
    small = ["--epochs", 5, "--hidden", 16, "--n-pcs", 10]
    assert run("tissue", capsys, "--dataset", tmp_path / "tissue.h5ad", *small)[0] == 0
    code, out, _ = cli("--task", "ST")
    folder = tmp_path / "results" / "ST" / "tissue"
    assert code == 0 and {"tissue_clusters.png", "tissue_markers.png"} <= {path.name for path in folder.iterdir()}
    page = Page(folder / "report.html")
    assert "300 spots" in page.words and "PAGA" in page.words and "refine_neighbors" in page.words


def test_any_spatial_data_by_its_labels(cli, tmp_path):
    home.set_home(tmp_path)
    code, _, _ = cli("--task", "ST", "--dataset", "demo", "--labels", "ground_truth")
    assert code == 0 and (tmp_path / "results" / "ST" / "demo_by_ground_truth" / "tissue_clusters.png").exists()


def test_labels_in_an_annotated_file(cli, caplog, tmp_path):
    adata = simulate()
    adata.obs["scrcl"] = pd.Categorical(adata.obs["cell_type1"].str[-1])
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(120, 2))
    adata.write_h5ad(tmp_path / "mine.h5ad")
    home.set_home(tmp_path)
    code, _, _ = cli("--dataset", tmp_path / "mine.h5ad")
    assert code == 0 and "UMAP of" not in caplog.text and "obs['scrcl']" in caplog.text
    page = Page(tmp_path / "results" / "SC" / "mine_by_scrcl" / "report.html")
    assert "the data set's own obsm['X_umap']" in page.words


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--task", "ST"], "no finished run in .*; run `scrcl tissue` first"),
        (["--dataset", "nothing"], "no data set 'nothing'"),
        (["--dataset", "{place}/new.h5ad"], "no finished run of .*new.h5ad; run `scrcl cells --dataset"),
        (["--labels", "nowhere.csv"], "neither a file nor an obs column; the columns are cell_type1"),
        (["--labels", "{place}/other.csv"], "of the 3 rows of .*other.csv.* the 120 cells .'x' there, 'cell-0' here"),
        (["--labels", "{place}/wide.csv"], "does not say which column holds the labels; name one of a, b"),
        (["--labels", "{place}/wide.csv", "--label-column", "c"], "has no column 'c'; name one of a, b"),
        (["--labels", "{place}/ones.csv"], "All cells are of one cluster, 'one'"),
        (["--labels", "{place}/unique.csv"], "120 different values for 120 cells"),
        (["--labels", "{place}/empty.csv"], "None of the 120 cells has a label"),
        (["--label-column", "a"], "--labels; add that"),
        (["--labels", "cell_type1", "--label-column", "a"], "but the labels are obs.*; leave it out"),
        (["--labels", "x" * 300], "neither a file nor an obs column"),
        (["--dataset", "{place}/elsewhere/cells.h5ad"], "no data set"),
        (["--groups", "17"], "no cluster '17' to test; there are 0, 1, 2"),
        (["--layer", "counts"], "--layer has no effect on a finished run"),
        (["--values", "lognorm"], "--values has no effect on a finished run"),
        (["--marker-genes", "nowhere.csv"], "--marker-genes nowhere.csv is not a file"),
        (["--method", "logreg", "--volcano"], "--volcano draws p-values"),
        (["--method", "anova"], "invalid choice"),
        (["--n-genes", "0"], "--n-genes must be above 0"),
        (["--min-in-group-fraction", "50"], "--min-in-group-fraction must be at most 1, not 50"),
        (["--gene-key", "symbols"], "no var column 'symbols'"),
        (["--label-key", "nothing"], "no obs column 'nothing'"),
        (["--dpi", "100000"], "--dpi must be at most 1200"),
        (["--config", "paper"], "settings file paper cannot be read"),
        (["--hops", "1"], "no flag --hops .*; --help lists all flags"),
    ],
)  # fmt: skip
def test_one_sentence_and_exit_code_2(cli, place, argv, says):
    simulate().write_h5ad(place / "new.h5ad")
    names = [f"cell-{i}" for i in range(120)]
    pd.DataFrame({"barcode": ["x", "y", "z"], "label": list("aab")}).to_csv(place / "other.csv", index=False)
    pd.DataFrame({"a": ["p"] * 120, "b": ["q"] * 120}, index=names).to_csv(place / "wide.csv")
    pd.DataFrame({"label": ["one"] * 120}, index=names).to_csv(place / "ones.csv")
    pd.DataFrame({"label": names}, index=names).to_csv(place / "unique.csv")
    pd.DataFrame({"label": [None] * 120}, index=names).to_csv(place / "empty.csv")
    before = set(place.rglob("*"))
    code, _, err = cli(*(text.format(place=place) for text in argv))
    assert code == 2 and err.splitlines()[-1].startswith("Error: ") and "Traceback" not in err
    assert re.search(says, err), err
    assert set(place.rglob("*")) == before


def test_files_of_others_are_never_overwritten(cli, place):
    folder = place / "theirs"
    folder.mkdir()
    (folder / "markers.csv").write_text("mine")
    code, _, err = cli("--output", folder)
    assert code == 2 and re.search("theirs .* markers.csv.* earlier run.*; choose another with --output", err)
    assert (folder / "markers.csv").read_text() == "mine"


def test_a_damaged_run(cli, folder):
    (folder / "config.yaml").write_text("settings: {}")
    code, _, err = cli()
    assert code == 2 and "cannot be read back" in err
    (folder / "result.h5ad").unlink()
    assert "no finished run" in cli()[2]


def test_known_types_change_neither_genes_nor_figures(cli, folder):
    cli()
    with_types = (folder / "markers.csv").read_bytes()
    cli("--label-key", "none")
    assert (folder / "markers.csv").read_bytes() == with_types and not (folder / "cluster_types.csv").exists()
    assert yaml.safe_load((folder / "markers.yaml").read_text())["settings"]["label_key"] == "none"
    assert isinstance(ad.read_h5ad(folder / "result.h5ad"), ad.AnnData)


def test_earlier_figures_do_not_stand_beside_newer_tables(cli, monkeypatch, folder):
    cli()

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ranking, "_draw", fails)
    assert cli("--n-genes", "3")[0] == 130
    assert (folder / "markers.csv").exists() and not (folder / "report.html").exists()
    assert not (folder / "dotplot.png").exists() and (folder / "umap.png").exists() and not list(folder.glob(".unf*"))


def test_inputs_are_never_overwritten(cli, folder):
    (folder / "markers.csv").write_text("type,gene\nA,gene-1\n")
    code, _, err = cli("--marker-genes", folder / "markers.csv")
    assert code == 2 and "would overwrite the input" in err and "gene-1" in (folder / "markers.csv").read_text()


def test_dollar_signs_are_no_formulas(cli, monkeypatch, place):
    adata = simulate()
    adata.obs["mine"] = pd.Categorical(adata.obs["cell_type1"].str.replace("type ", r"$\\frac$"))
    adata.var_names = [rf"a$\foo$ {i}" for i in range(80)]
    adata.write_h5ad(place / "odd.h5ad")
    monkeypatch.setitem(matplotlib.rcParams, "text.parse_math", True)
    assert cli("--dataset", place / "odd.h5ad", "--labels", "mine")[0] == 0


def test_sections_and_known_domains_may_have_any_name():
    tissue = layered_tissue(n_spots=300, n_genes=60)
    tissue.obs["cluster"] = np.where(tissue.obsm["spatial"][:, 0] < np.median(tissue.obsm["spatial"][:, 0]), "s1", "s2")
    tissue.obs.loc[tissue.obs["cluster"] == "s2", "ground_truth"] = None
    tissue.obs["mine"] = np.where(tissue.obs["cluster"] == "s1", None, np.arange(300) % 3)
    tissue.obs_names.name = "cluster"
    rest = (MarkerSettings(task="ST", dataset="demo"), None, "ST", "counts", "PCs", ())
    found = labelled._labelled(tissue, (tissue.obs["mine"].rename("mine"), "a table", False), *rest)
    assert found.known is None and found.cells.n_obs == (tissue.obs["mine"].notna()).sum()
    whole = layered_tissue(n_spots=300, n_genes=60)
    whole.obs["library_id"] = np.where(np.arange(300) % 2, "one", "two")
    labels = (whole.obs["library_id"].rename("ground_truth"), "mine.csv", False)
    again = labelled._labelled(whole, labels, *rest)
    assert again.known is not None and set(again.sections) == {"one", "two"}


@pytest.fixture
def at_home(place, monkeypatch) -> Path:
    """The home folder of this user, with data and results in it."""
    monkeypatch.setenv("HOME", str(place))
    return place


def test_nothing_that_is_passed_on_names_the_user(cli, capsys, at_home, folder):
    given = ["--dataset", at_home / "cells.h5ad", *FAST, "--output", at_home / "out", "--report"]
    assert run("cells", capsys, *given)[0] == cli()[0] == 0
    for written in (at_home / "out", folder):
        for name in ("report.html", "markers.yaml"):
            text = (written / name).read_text()
            assert str(at_home) not in text and "~/" in text
    page = Page(at_home / "out" / "report.html")
    assert "~/cells.h5ad" in page.words and "~/out/labels.csv" in page.words
    facts = yaml.safe_load((folder / "markers.yaml").read_text())
    assert facts["settings"]["dataset"] == "~/results/SC/cells"
    assert list(facts["provenance"]["sha256"]) == [
        f"~/results/SC/cells/{name}" for name in ("result.h5ad", "labels.csv")
    ]


def test_a_home_behind_a_link_is_not_named(cli, monkeypatch, tmp_path_factory, place, folder):
    """As on many clusters, where whole paths lead elsewhere than $HOME says."""
    link = tmp_path_factory.mktemp("homes") / "user"
    link.symlink_to(place)
    monkeypatch.setenv("HOME", str(link))
    home.set_home(link)
    assert cli()[0] == 0
    for name in ("report.html", "markers.yaml"):
        text = (folder / name).read_text()
        assert str(place) not in text and str(link) not in text and "~/results/SC/cells" in text, name


def test_a_table_of_labels_does_not_name_the_user(cli, at_home):
    simulate().obs["cell_type1"].rename_axis("barcode").to_csv(at_home / "mine.csv")
    assert cli("--labels", at_home / "mine.csv", "--output", at_home / "out")[0] == 0
    written = {name: (at_home / "out" / name).read_text() for name in ("markers.yaml", "report.html")}
    assert all("~/mine.csv" in text for text in written.values())
    assert not [name for name, text in written.items() if str(at_home) in text]


@pytest.mark.parametrize("flag", ["--labels", "--marker-genes"])
def test_settings_without_the_users_name_are_read_back(cli, at_home, flag):
    """markers.yaml writes the home folder as ~, which --config must understand."""
    simulate().obs["cell_type1"].rename_axis("barcode").to_csv(at_home / "labels.csv")
    (at_home / "genes.csv").write_text("type,gene\n" + "".join(f"T{g // 14},gene-{g}\n" for g in range(40)))
    table = at_home / {"--labels": "labels.csv", "--marker-genes": "genes.csv"}[flag]
    assert cli("--dataset", "cells", flag, table, "--output", at_home / "out")[0] == 0
    first = (at_home / "out" / "top_markers.csv").read_bytes()
    code, _, err = cli("--config", at_home / "out" / "markers.yaml", "--output", at_home / "again")
    assert code == 0, err
    assert (at_home / "again" / "top_markers.csv").read_bytes() == first


@pytest.mark.parametrize(("watched", "quiet"), [(False, False), (True, False), (True, True)])
def test_a_progress_bar_is_for_those_who_watch(cli, monkeypatch, place, watched, quiet):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched, raising=False)
    code, _, err = cli(*["--quiet"] * quiet)
    assert code == 0 and ("figures: " in err and "\r" in err) == (watched and not quiet)


def test_no_progress_bar_in_a_file(place):
    words = [sys.executable, "-m", "scrcl", "markers", "--dpi", "20"]
    done = subprocess.run(words, capture_output=True, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and b"\r" not in done.stderr and b"figures: " not in done.stderr
    assert (place / "results" / "SC" / "cells" / "report.html").exists()


def test_markers_of_other_data_are_replaced_only_when_asked(cli, place):
    for seed, patient in enumerate("AB"):
        (place / patient).mkdir()
        simulate(seed=seed).write_h5ad(place / patient / "adata.h5ad")
    argv = ("--labels", "cell_type1")
    assert cli(place / "A" / "adata.h5ad", *argv)[0] == 0
    out = place / "results" / "SC" / "adata_by_cell_type1"
    before = (out / "markers.csv").read_bytes()
    code, _, err = cli(place / "B" / "adata.h5ad", *argv)
    assert code == 2 and f"and these are of {place / 'B' / 'adata.h5ad'}; add --overwrite" in err
    assert f"{out} holds the markers of" in err and (out / "markers.csv").read_bytes() == before
    assert cli(place / "A" / "adata.h5ad", *argv)[0] == 0
    assert cli(place / "B" / "adata.h5ad", *argv, "--overwrite")[0] == 0
    assert (out / "markers.csv").read_bytes() != before


@pytest.mark.parametrize("base", [2, 10])
def test_fold_changes_of_any_base_of_logarithms(cli, place, base):
    adata = simulate()
    natural = np.log1p(adata.X.toarray() / adata.X.sum(1) * 1e4)
    tables = []
    for name, values in (("e", natural), (f"log{base}", natural / np.log(base))):
        ad.AnnData(np.asarray(values), obs=adata.obs, var=adata.var).write_h5ad(place / f"{name}.h5ad")
        assert cli(place / f"{name}.h5ad", "--labels", "cell_type1", "--output", place / name)[0] == 0
        tables.append(pd.read_csv(place / name / "markers.csv").set_index(["group", "names"])["logfoldchanges"])
    assert np.allclose(tables[0], tables[1][tables[0].index], atol=1e-4)


def test_symbols_of_raw_and_a_marker_file(cli, place, caplog):
    """Counts in .raw, whose var lacks the symbols that var has."""
    adata = simulate()
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    adata.raw = adata.copy()
    adata.var["hgnc_symbol"] = [f"SYM{chr(65 + i % 26)}{i}" for i in range(adata.n_vars)]
    adata.X = adata.X.toarray() - 1
    adata.write_h5ad(place / "ids.h5ad")
    (place / "known.csv").write_text("type;gene\nfirst;SYMA0\nsecond;symo14\n")
    argv = ("--labels", "cell_type1", "--marker-genes", place / "known.csv", "--output", place / "out")
    assert cli(place / "ids.h5ad", *argv)[0] == 0
    assert "known.csv: 2 of its 2 markers are in the data" in caplog.text
    assert pd.read_csv(place / "out" / "markers.csv")["names"].str.startswith("SYM").all()
