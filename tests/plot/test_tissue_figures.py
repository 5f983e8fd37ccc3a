"""Figures of tissue: domains on it, its images, and how domains are related."""

from __future__ import annotations

import anndata as ad
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from conftest import write_visium

from scrcl import plot
from scrcl.analysis import analyse
from scrcl.plot import style
from scrcl.plot.layout import add_umap
from scrcl.plot.style import Scene
from scrcl.plot.tissue import paga_graphs, tissue_image
from scrcl.readers import visium
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import TissueSettings

FACTS = {"label_key": "", "params": {"seeds": [5]}}  # of a run without known domains, as far as figures read them


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=300, n_genes=60)


@pytest.mark.parametrize("n_domains", [3, 40, 120])
def test_a_figure_of_any_number_of_domains(n_domains, tmp_path):
    rng = np.random.default_rng(0)
    labels = pd.Categorical([str(i) for i in rng.integers(0, n_domains, 500)], [str(i) for i in range(n_domains)])
    obs = pd.DataFrame({"scrcl": labels}, index=[f"spot-{i}" for i in range(500)])
    cells = ad.AnnData(obs=obs, obsm={"spatial": rng.random((500, 3))}, uns={"scrcl": FACTS})
    style.save(plot.domains(cells), tmp_path / "domains.png")
    assert matplotlib.image.imread(tmp_path / "domains.png").std() > 0


def test_every_section_has_a_row(tissue):
    both = ad.concat({"s1": tissue, "s2": tissue}, label="slide", index_unique="-")
    settings = TissueSettings(epochs=5, seeds=[5], hidden=16, n_pcs=10, section_key="slide")
    panels = plot.domains(analyse(both, settings).cells).axes
    titles = [axes.get_title() for axes in panels if axes.get_title()]
    assert titles == ["s1, scRCL", "s1, given: ground_truth", "s2, scRCL", "s2, given: ground_truth"]


@pytest.mark.parametrize(
    "library",
    [None, 3, {"images": {}}, {"images": {"hires": None}, "scalefactors": {"tissue_hires_scalef": 1}}]
    + [
        {"images": {"hires": np.zeros(shape)}, "scalefactors": {"tissue_hires_scalef": scale}}
        for shape, scale in (((3, 9, 9), 1), ((0, 9), 1), ((9, 9, 2), 1), ((9,), 1), ((9, 9), 0), ((9, 9), np.nan))
    ],
)
def test_anything_in_uns_spatial_is_survived(library):
    assert tissue_image({"spatial": {"a": library}}, None) is None


def test_a_section_has_its_own_image_or_none():
    one = {"images": {"lowres": np.ones((4, 4))}, "scalefactors": {"tissue_lowres_scalef": 1}}
    assert tissue_image({"spatial": {"a": one}}, "b") is None
    assert tissue_image({"spatial": {"a": one}}, "a").diameter is None
    assert tissue_image({"spatial": {"a": one, "b": one}}, None) is None
    assert tissue_image({}, None) is None and tissue_image({"spatial": None}, None) is None


def test_the_better_image_lies_under_the_spots(tissue, tmp_path):
    adata = visium.read(write_visium(tissue, tmp_path / "v"), "v")
    assert tissue_image(adata.uns, None).scale == 0.1
    (tmp_path / "v" / "spatial" / "tissue_hires_image.png").unlink()
    image = tissue_image(visium.read(tmp_path / "v", "v").uns, None)
    assert image.scale == 0.05 and image.diameter == 60 and image.pixels.shape == (60, 60, 4)


def test_paga_without_an_edge_between_groups(tmp_path):
    """Two groups far apart: scanpy's PAGA has nothing to show, and must not cost the other figures."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["0", "1"], 60)
    points = rng.normal(size=(120, 3)) + 100 * (labels == "1")[:, None]
    obs = pd.DataFrame({"scrcl": pd.Categorical(labels)}, index=[f"spot-{i}" for i in range(120)])
    cells = ad.AnnData(obs=obs, obsm={"X_scrcl": points}, uns={"scrcl": FACTS})
    add_umap(cells)
    assert paga_graphs(Scene(cells)) == {}
    for name in ("paga", "paga_compare"):
        style.save(getattr(plot, name)(cells), tmp_path / f"{name}.png")


def test_paga_by_domain_and_by_given_domain(tissue):
    cells = analyse(tissue, TissueSettings(epochs=5, seeds=[5], hidden=16, n_pcs=10)).cells
    add_umap(cells)
    before = cells.copy()
    graphs = paga_graphs(Scene(cells))
    assert list(graphs) == ["scRCL", "given: ground_truth"]
    assert graphs["given: ground_truth"].n_obs == tissue.obs["ground_truth"].notna().sum()
    assert [axes.get_title() for axes in plot.paga(cells).axes] == ["PAGA, scRCL", "PAGA, given: ground_truth"]
    assert len(plot.paga_compare(cells).axes) >= 4
    # One seed of tissue is a vote of many partitions, whose agreement is shown.
    assert "agreement" in [axes.get_title() for axes in plot.umap(cells).axes]
    assert repr(cells) == repr(before) and cells.obs.equals(before.obs)
