"""Data sets that are made from what was published; Baron's and the slices' are in test_fetch.py."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.io

from scrcl.messages import UserError
from scrcl.published.conversions import make
from scrcl.published.registry import registry

BLOCKS = {"inner": {"cells": 2, "classes": ["neuron"]}, "outer": {"cells": 3, "classes": ["neuron", "glia"]}}
SMALL = registry()["Zeisel_4000genes"]._replace(options={"blocks": BLOCKS})


def inputs(folder: Path, values: np.ndarray, classes: list[str]) -> dict[str, Path]:
    names = np.empty((len(classes), 2), dtype=object)
    names[:, 0], names[:, 1] = classes, [f"{name}1" for name in classes]
    paths = {name: folder / name for name in ("zeisel_data.mat", "zeisel_names.mat")}
    scipy.io.savemat(paths["zeisel_data.mat"], {"zeisel_data": values.T})
    scipy.io.savemat(paths["zeisel_names.mat"], {"zeisel_names": names})
    return paths


def test_zeisel(tmp_path):
    counts = np.random.default_rng(0).integers(0, 3000, (5, 4))
    classes = ["neuron", "neuron", "glia", "neuron", "glia"]
    make(SMALL, inputs(tmp_path, np.log1p(counts), classes), tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    assert adata.X.dtype == np.float32 and np.array_equal(adata.X.toarray(), counts)
    assert list(adata.obs["cell_type1"]) == ["inner"] * 2 + ["outer"] * 3
    assert list(adata.obs["level1class"]) == classes and list(adata.obs["level2class"])[2] == "glia1"


@pytest.mark.parametrize(
    ("values", "classes", "words"),
    [
        (np.zeros((5, 2)), ["glia"] * 5, "Cell 0 is of the class 'glia', which does not fit the type 'inner'"),
        (np.zeros((4, 2)), ["neuron"] * 4, "4 cells with 4 classes where 5 were expected"),
        (np.full((5, 2), 0.5), ["neuron"] * 5, "not logarithms of counts"),
    ],
)
def test_zeisel_that_is_another(tmp_path, values, classes, words):
    with pytest.raises(UserError, match=words):
        make(SMALL, inputs(tmp_path, values, classes), tmp_path / "x.h5ad")


def test_tables_that_no_conversion_understands(tmp_path):
    paths = inputs(tmp_path, np.zeros((5, 2)), ["neuron"] * 5)
    paths["zeisel_names.mat"].write_bytes(b"something else")
    with pytest.raises(UserError, match="Zeisel_4000genes cannot be made from what was downloaded"):
        make(SMALL, paths, tmp_path / "x.h5ad")
