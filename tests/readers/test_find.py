"""Data sets found by path or by name, and what is said of those that are not there."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from conftest import simulate, write_visium

import scrcl
from scrcl.disk import home
from scrcl.messages import UserError
from scrcl.readers import h5ad, source, visium
from scrcl.readers.find import dataset_name, find
from scrcl.readers.simulated import layered_tissue


@pytest.fixture
def cells():
    """The folder of the data sets of cells, with one that is called here."""
    folder = home.data_folder("SC")
    folder.mkdir(parents=True)
    simulate(20, 10).write_h5ad(folder / "here.h5ad")
    return folder


@pytest.fixture
def tissues():
    """The folder of the data sets of tissues, with a DLPFC slice and a folder with one h5ad file."""
    folder, tissue = home.data_folder("ST"), layered_tissue(n_spots=60, n_genes=20)
    write_visium(tissue, folder / "DLPFC" / "151673")
    (folder / "Mouse_Embryo_E9.5").mkdir()
    tissue.write_h5ad(folder / "Mouse_Embryo_E9.5" / "E9.5_E1S1.MOSTA.h5ad")
    return folder


def test_cells_by_name_and_by_path(cells, monkeypatch):
    assert find("here", "SC") == find("here.h5ad", "SC") == (cells / "here.h5ad", h5ad)
    assert find(str(cells / "here.h5ad"), "SC") == (cells / "here.h5ad", h5ad)
    monkeypatch.setenv("HOME", str(cells))
    assert find("~/here.h5ad", "SC").path == cells / "here.h5ad"
    assert find(scrcl.CellSettings().dataset, "SC") is None


def test_missing_files_say_what_there_is(cells):
    with pytest.raises(UserError, match="There is no data set 'gone': .*scdata holds here.* --list` shows"):
        find("gone", "SC")
    with pytest.raises(UserError, match=r"There is no data set 'hree'\W+did you mean here\?"):
        find("hree", "SC")
    with pytest.raises(UserError, match="fetch Zeisel` fetches it"):
        find("Zeisel", "SC")
    with pytest.raises(UserError, match="fetch Zeisel` fetches it"):
        find("Zeisel.h5ad", "SC")
    with pytest.raises(UserError, match="no data set"):
        find("x" * 300, "SC")
    with pytest.raises(UserError, match="no data set"):
        find("a\0b", "SC")
    (cells / "here.h5ad").unlink()
    with pytest.raises(UserError, match="scdata holds no data yet"):
        find("gone", "SC")


def test_tissues_by_name_and_by_path(tissues):
    assert find("151673", "ST") == (tissues / "DLPFC" / "151673", visium)
    assert find(str(tissues / "DLPFC" / "151673"), "ST") == (tissues / "DLPFC" / "151673", visium)
    path, reader = find("Mouse_Embryo_E9.5", "ST")
    assert path.name == "E9.5_E1S1.MOSTA.h5ad" and reader is h5ad
    assert find("demo", "ST") is None


def test_missing_tissues_say_what_there_is(tissues):
    with pytest.raises(UserError, match="fetch 151507` fetches it, or says how"):
        find("151507", "ST")
    with pytest.raises(UserError, match="'mine'.*stdata holds 151673, Mouse_Embryo_E9.5"):
        find("mine", "ST")
    with pytest.raises(UserError, match=r"Put one of these in place(.|\n)*stdata holds 151673, Mouse_Embryo_E9.5"):
        find("", "ST")


def test_what_is_of_no_format_is_said(tissues):
    (tissues / "other").mkdir()
    (tissues / "other" / "notes.doc").touch()
    with pytest.raises(UserError, match="other cannot be read: it is none of Visium .* h5ad.* holds notes.doc"):
        find("other", "ST")


def test_a_name_without_its_ending(cells):
    (cells / "here.h5ad").rename(cells / "there.h5")
    assert find("there", "SC").path == cells / "there.h5"


@pytest.mark.parametrize(("dataset", "task"), [("demo", "ST"), (scrcl.CellSettings().dataset, "SC")])
def test_data_without_a_file_do_not_become_the_results_of_an_earlier_run(dataset, task, tmp_path, monkeypatch):
    """As after `--demo --output demo`: the folder of that name holds one h5ad file, which is the result."""
    (tmp_path / dataset).mkdir()
    simulate(20, 10).write_h5ad(tmp_path / dataset / "result.h5ad")
    for name in ("labels.csv", "config.yaml", "metrics.json"):
        (tmp_path / dataset / name).touch()
    monkeypatch.chdir(tmp_path)
    assert find(dataset, task) is None


def test_the_results_of_an_earlier_run_are_not_the_data_set_of_that_name(cells, tmp_path, monkeypatch):
    """As after `here --output here`."""
    (tmp_path / "here").mkdir()
    simulate(20, 10).write_h5ad(tmp_path / "here" / "result.h5ad")
    for name in ("labels.csv", "config.yaml", "metrics.json"):
        (tmp_path / "here" / name).touch()
    monkeypatch.chdir(tmp_path)
    assert find("here", "SC").path == cells / "here.h5ad"


def test_the_simulated_tissue_is_no_file_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "demo").write_text("notes")
    monkeypatch.chdir(tmp_path)
    assert find("demo", "ST") is None


def test_names_of_results(tmp_path):
    assert dataset_name("/a/b/Zeisel.h5ad") == "Zeisel"
    assert dataset_name("Zeisel") == "Zeisel"
    assert dataset_name("with.dot.h5ad") == "with.dot"
    assert dataset_name("/a/151673/outs/binned_outputs/square_008um") == "151673"
    (tmp_path / "mine" / "outs").mkdir(parents=True)
    assert dataset_name(str(tmp_path / "mine" / "outs" / ".." / "outs")) == "mine"
    assert dataset_name(str(tmp_path / "mine" / "..")) == tmp_path.name


def test_what_a_source_tells_of_itself(cells, tissues):
    found = source("here", "SC")
    assert (found.name, found.path, found.files) == ("here", cells / "here.h5ad", (cells / "here.h5ad",))
    assert found.read().shape == (20, 10)
    found, root = source("151673", "ST"), tissues / "DLPFC" / "151673"
    assert (found.name, found.path) == ("151673", root)
    inner = "filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv"
    assert found.files == tuple(root / name for name in inner)
    table = root / "metadata.csv"
    pd.DataFrame({"barcode": ["spot-00001"], "layer_guess": ["L1"]}).to_csv(table, index=False)
    assert source("151673", "ST").files[-1] == source("151673", "ST", str(table)).files[-1] == table
    assert table not in source("151673", "ST", "none").files


def test_data_without_a_file():
    found = source("demo", "ST")
    assert (found.path, found.files) == (None, ()) and "ground_truth" in found.read().obs
    found = source("pbmc68k_reduced", "SC")
    assert (found.path, found.files) == (None, ()) and found.read().obs["cell_type"].nunique() == 10
    with pytest.raises(UserError, match="has its own annotation; leave --annotation out"):
        source("demo", "ST", "mine.csv")


def test_reading_is_of_cells_or_of_tissue(cells, tissues):
    assert scrcl.read("here").shape == scrcl.read(cells / "here.h5ad").shape == (20, 10)
    assert scrcl.read("151673").uns["spatial"].keys() == {"151673"}
    assert scrcl.read("demo").n_obs == 1600 and scrcl.read("pbmc68k_reduced").n_obs == 700
    table = cells / "table.csv"
    pd.DataFrame({"barcode": ["spot-00001"], "region": ["L1"]}).to_csv(table, index=False)
    assert scrcl.read("151673", annotation=table).obs["region"].notna().sum() == 1
    with pytest.raises(UserError, match="There is no data set 'gone'"):
        scrcl.read("gone")
    shutil.rmtree(tissues / "DLPFC" / "151673" / "spatial")
    assert "spatial" not in scrcl.read("151673").obsm  # a 10x matrix is left


def test_no_name_for_cells_speaks_of_cells():
    with pytest.raises(UserError, match="name a file, or one in .*scdata") as caught:
        find("", "SC")
    assert "runST" not in str(caught.value) and "Visium" not in str(caught.value)
