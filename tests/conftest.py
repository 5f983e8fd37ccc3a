"""Shared small data, and commands run as a user runs them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scrcl.commands import script
from scrcl.disk import home

ROOT = Path(__file__).parents[1]
FAST = ["--epochs", 5, "--seed", 5, "--hidden", 16, "--n-top-genes", 60, "--n-pcs", 10]


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory) -> Iterator[Path]:
    """A new folder as the one that holds datasets/ and results/, for each test that does not set another."""
    folder = tmp_path_factory.mktemp("home")
    home.set_home(folder)
    yield folder
    home.set_home(Path())


@pytest.fixture(scope="module")
def server():
    """Starts processes that have all modules imported already."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_survival", "test_processes"])
    yield context
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def run(command: str, capsys: Any, *argv: object, at: Path | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `scrcl COMMAND argv`, with datasets/ and results/ in `at`."""
    if at is not None:
        home.set_home(at)
    return script.run(command, [str(word) for word in argv], f"scrcl {command}"), *capsys.readouterr()


def simulate(n_cells: int = 120, n_genes: int = 80, n_types: int = 3, seed: int = 0) -> ad.AnnData:
    """Negative binomial counts of well separated types, each with its own marker genes."""
    rng = np.random.default_rng(seed)
    types = np.arange(n_cells) % n_types
    mean = np.full((n_types, n_genes), 0.5)
    for i, genes in enumerate(np.array_split(np.arange(n_genes // 2), n_types)):
        mean[i, genes] = 6
    mean = mean[types] * rng.gamma(8, 1 / 8, (n_cells, 1))
    counts = rng.negative_binomial(2, 2 / (2 + mean))
    counts[:, 0] += 1  # no empty cell by accident
    obs = pd.DataFrame({"cell_type1": [f"type {t}" for t in types]}, index=[f"cell-{i}" for i in range(n_cells)])
    var = pd.DataFrame(index=[f"gene-{i}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def counts() -> ad.AnnData:
    return simulate()


@pytest.fixture
def fast() -> dict:
    """Settings of a run that takes a second."""
    return {"epochs": 8, "seeds": [5], "hidden": 16, "n_top_genes": 60, "n_pcs": 10, "figures": False}


def write_matrix(adata: ad.AnnData, path: Path) -> None:
    """adata's X as filtered_feature_bc_matrix.h5 in the layout of Space Ranger (genes x spots, compressed columns)."""
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(adata.X, name)
        group["shape"] = np.array(adata.shape[::-1], dtype=np.int32)
        group["barcodes"] = np.array(adata.obs_names, dtype="S")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i}" for i in range(adata.n_vars)], dtype="S")
        features["name"] = np.array(adata.var_names, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * adata.n_vars, dtype="S")
        features["genome"] = np.array(["GRCh38"] * adata.n_vars, dtype="S")


def position_table(adata: ad.AnnData) -> pd.DataFrame:
    """A Space Ranger table of positions: the spots in reverse order, and one off the tissue that has no counts."""
    places = np.rint(adata.obsm["spatial"]).astype(int)
    table = pd.DataFrame(
        {
            "barcode": adata.obs_names,
            "in_tissue": 1,
            "array_row": adata.obs["array_row"].to_numpy(),
            "array_col": adata.obs["array_col"].to_numpy(),
            "pxl_row_in_fullres": places[:, 1],
            "pxl_col_in_fullres": places[:, 0],
        }
    )
    off = table.iloc[:1].assign(barcode="off-tissue", in_tissue=0)
    return pd.concat([table[::-1], off], ignore_index=True)


def write_visium(adata: ad.AnnData, folder: Path) -> Path:
    """A Visium folder as Space Ranger 2 writes it, with both images; returns it."""
    (folder / "spatial").mkdir(parents=True)
    write_matrix(adata, folder / "filtered_feature_bc_matrix.h5")
    position_table(adata).to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    factors = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.05, "spot_diameter_fullres": 60.0}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    for name, side in (("hires", 120), ("lowres", 60)):
        image = np.linspace(0, 1, side * side * 3).reshape(side, side, 3)
        matplotlib.image.imsave(folder / "spatial" / f"tissue_{name}_image.png", image)
    return folder
