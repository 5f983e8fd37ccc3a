"""Whatever the input, a run ends with labels or with one sentence: no traceback, no hang, nothing silently wrong."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from conftest import position_table, run, simulate, write_visium
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from odd import odd_anndata, write_damaged

from scrcl.analysis import analyse
from scrcl.annotate import annotate
from scrcl.commands import results, script
from scrcl.disk import hdf5
from scrcl.keys import Keys
from scrcl.messages import UserError
from scrcl.plot import style
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import RECIPES
from scrcl.result import Result, summary

CASES = int(os.environ.get("SCRCL_CASES", 40))  # of each of six kinds; docs/RELIABILITY.md is of 400

MANY = settings(
    max_examples=CASES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def require_sound(result: Result, adata: ad.AnnData) -> None:
    """Labels for every cell with counts, in the input's order, finite numbers, not more clusters than asked for."""
    labels = result.labels
    assert labels.index.equals(adata.obs_names)
    used = labels.index.isin(result.cells.obs_names)
    assert labels[used].notna().all().all() and labels[~used].isna().all().all()
    numbers = pd.to_numeric(labels["scrcl"].dropna())
    assert numbers.between(0, result.n_clusters - 1).all()
    several = len(result.seeds) > 1
    assert result.confidence[used].between(0, 1).all() if several else result.confidence.isna().all()
    assert result.confidence[~used].isna().all()
    assert np.isfinite(result.cells.obsm["X_scrcl"]).all() and np.isfinite(result.cells.X.data).all()
    assert adata.obs["scrcl"].astype(object).equals(labels["scrcl"].astype(object))
    for scores in result.scores.values():
        assert all(-1 <= scores[name] <= 1 for name in ("ACC", "NMI", "ARI", "F1"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["SC", "ST"])
@MANY
@given(drawn=st.data())
def test_odd_anndata(task, drawn, tmp_path):
    odd = odd_anndata(lambda options: drawn.draw(st.sampled_from(options)), task)
    before = repr(odd.adata)
    try:
        result = analyse(odd.adata, RECIPES[task](**odd.settings))
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        event("one sentence")
    else:
        event("labels")
        assert repr(odd.adata) == before
        annotate(odd.adata, result, Keys())
        require_sound(result, odd.adata)
        for adata in (odd.adata, result.cells):
            style.add_colours(style.Scene(adata))
            assert len(adata.uns["scrcl_colors"]) == adata.obs["scrcl"].nunique()
        results.write(result, tmp_path, None)
        assert summary(result) and ad.read_h5ad(tmp_path / "result.h5ad").n_obs == result.cells.n_obs


# Files with bytes changed, through the whole command

QUICK = "--epochs 2 --seed 1 --hidden 8 --n-top-genes 60 --n-pcs 10 --n-clusters 3 --no-figures".split()


def run_on(command: str, path: Path, out: Path) -> None:
    """Run a command in this process; its end must be results that read_run takes, or one sentence."""
    told = io.StringIO()
    argv = ["--dataset", str(path), *QUICK, "--output", str(out)]
    with redirect_stdout(told), redirect_stderr(told):
        code = script.run(command, argv, f"scrcl {command}")
    last = told.getvalue().strip().splitlines()[-1]
    event("labels" if code == 0 else "one sentence")
    if code == 0:
        assert results.read_run(out) is not None
        labels = pd.read_csv(out / "labels.csv", dtype=str)["scrcl"]
        assert labels.dropna().isin(["0", "1", "2"]).all() and labels.notna().any()
    else:
        assert code == 2 and last.startswith("Error: ") and not (out / "labels.csv").exists(), told.getvalue()
    shutil.rmtree(out, ignore_errors=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Sound files in every format that is read, by the name of the format."""
    folder = tmp_path_factory.mktemp("whole")
    cells, spots = simulate(60, 60), layered_tissue(n_spots=120, n_genes=60)
    cells.obsm["spatial"] = np.random.default_rng(0).random((60, 2))
    cells.obs["kind"] = pd.Categorical(cells.obs["cell_type1"])
    cells.write_h5ad(folder / "plain.h5ad")
    cells.write_h5ad(folder / "gzip.h5ad", compression="gzip")
    write_visium(spots, folder / "visium")
    spots.obs[["ground_truth"]].to_csv(folder / "visium" / "metadata.tsv", sep="\t", index_label="barcode")
    shutil.copytree(folder / "visium", folder / "mtx")
    write_mtx(spots, folder / "mtx")
    return folder


def write_mtx(adata: ad.AnnData, folder: Path) -> None:
    """The matrix as Cell Ranger's folder of three packed texts, the positions as parquet, in place of h5 and csv."""
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    matrix = folder / "filtered_feature_bc_matrix"
    matrix.mkdir()
    genes = [f"ENSG{i}\t{name}\tGene Expression" for i, name in enumerate(adata.var_names)]
    for name, lines in (("barcodes", adata.obs_names), ("features", genes)):
        with gzip.open(matrix / f"{name}.tsv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    with gzip.open(matrix / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, adata.X.T.astype(int))
    table = position_table(adata)
    (folder / "spatial" / "tissue_positions.csv").unlink()
    table.to_parquet(folder / "spatial" / "tissue_positions.parquet")


@pytest.fixture
def quick_end(monkeypatch):
    """Reading that does not end is ended after 2 s of computing."""
    monkeypatch.setattr(hdf5, "SECONDS", 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["plain", "gzip"])
@MANY
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_h5ad(kind, seed, whole, quick_end, tmp_path):
    write_damaged(whole / f"{kind}.h5ad", tmp_path / "in.h5ad", random.Random(seed))
    run_on("cells" if seed % 2 else "tissue", tmp_path / "in.h5ad", tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["visium", "mtx"])
@MANY
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_visium(kind, seed, whole, quick_end, tmp_path):
    rng = random.Random(seed)
    files = sorted(path for path in (whole / kind).rglob("*") if path.is_file())
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    shutil.copytree(whole / kind, tmp_path / "in")
    for path in rng.sample(files, rng.choice((1, 1, 1, 2))):
        write_damaged(path, tmp_path / "in" / path.relative_to(whole / kind), rng)
    run_on("tissue", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("command", ["cells", "tissue", "markers"])
@pytest.mark.parametrize("part", ["X/indices", "X/indptr", "layers/counts/indptr", "raw/X/indices"])
def test_indices_that_point_outside(command, part, whole, capsys, tmp_path):
    """scipy crashes on them, and takes Python with it."""
    adata = ad.read_h5ad(whole / "plain.h5ad")
    adata.raw, adata.layers["counts"], adata.obs["scrcl"] = adata.copy(), adata.X.copy(), "a"
    adata.write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        file[part][20] = 2_000_000_000
    code, _, err = run(command, capsys, "--dataset", tmp_path / "in.h5ad")
    assert code == 2 and "is damaged" in err
