"""Tables of known domains: joined by barcode, or refused."""

from __future__ import annotations

import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import write_visium

from scrcl.contents.places import coordinates
from scrcl.messages import UserError
from scrcl.readers import source
from scrcl.readers.annotation import join_annotation
from scrcl.readers.simulated import layered_tissue


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=60, n_genes=20)


@pytest.fixture
def folder(tissue, tmp_path):
    return write_visium(tissue, tmp_path / "sample")


def read(folder, annotation: str = "auto") -> ad.AnnData:
    return source(str(folder), "ST", annotation).read()


def labelled(tissue: ad.AnnData) -> pd.DataFrame:
    """Layers by barcode, in another order than the spots, for some of them, and for one that is not there."""
    table = pd.DataFrame({"barcode": tissue.obs_names, "layer_guess": [f"L{i % 3}" for i in range(tissue.n_obs)]})
    extra = pd.DataFrame({"barcode": ["elsewhere"], "layer_guess": ["L9"]})
    return pd.concat([table[:5:-1], extra], ignore_index=True)


@pytest.mark.parametrize("form", ["tsv", "csv", "row names", "barcode last"])
def test_annotation_is_joined_by_barcode(folder, tissue, form):
    table = labelled(tissue)
    if form == "row names":  # as R writes them: one name less in the header than columns
        table.set_index("barcode").to_csv(folder / "metadata.tsv", sep="\t", index_label=False)
    elif form == "barcode last":
        table[["layer_guess", "barcode"]].to_csv(folder / "metadata.tsv", sep="\t", index=False)
    else:
        table.to_csv(folder / f"metadata.{form}", sep="\t" if form == "tsv" else ",", index=False)
    found = read(folder).obs["layer_guess"]
    assert found.isna().sum() == 6 and found.iloc[:6].isna().all()
    assert list(found.iloc[6:]) == [f"L{i % 3}" for i in range(6, tissue.n_obs)]


def test_annotation_by_path_beside_outs_and_none_at_all(folder, tissue, tmp_path):
    table = tmp_path / "mine.csv.gz"
    labelled(tissue).to_csv(table, index=False)
    assert "layer_guess" in read(folder, str(table)).obs
    shutil.copytree(folder, tmp_path / "run" / "outs")
    labelled(tissue).to_csv(tmp_path / "run" / "metadata.tsv", sep="\t", index=False)
    assert "layer_guess" in read(tmp_path / "run").obs and "layer_guess" in read(tmp_path / "run" / "outs").obs
    assert "layer_guess" not in read(tmp_path / "run", "none").obs


def test_annotation_without_barcodes_goes_by_row_and_says_so(folder, tissue, caplog):
    pd.DataFrame({"layer_guess": ["a", "b"] * 30}).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    assert list(read(folder).obs["layer_guess"]) == ["a", "b"] * 30
    assert "no barcodes" in caplog.text


def test_annotation_of_another_sample_is_refused(folder, tissue):
    table = labelled(tissue).assign(barcode=[f"other-{i}" for i in range(55)])
    table.to_csv(folder / "metadata.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="Too few of the 55 rows.*60 spots.*'other-0' there, 'spot-00000' here"):
        read(folder)
    table.drop(columns="barcode").to_csv(folder / "metadata.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="Too few of the 55 rows"):
        read(folder)


def test_annotation_of_several_slides_is_refused(folder, tissue):
    """Slides share their barcodes, so which row is meant would be a guess; the same row twice is none."""
    table = labelled(tissue)
    table.to_csv(folder / "metadata.tsv", sep="\t", index=False)
    once = read(folder).obs["layer_guess"]
    pd.concat([table, table]).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    assert read(folder).obs["layer_guess"].equals(once)
    pd.concat([table, table.assign(layer_guess="L7")]).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="more than once; keep only the rows"):
        read(folder)


def test_numbers_are_not_taken_for_barcodes_by_chance(tissue, tmp_path):
    """Names 0, 1, ... are AnnData's own; a column of small numbers has some of them in common."""
    tissue.obs_names = [str(i) for i in range(tissue.n_obs)]
    labels = [f"L{i % 3}" for i in range(tissue.n_obs)]
    pd.DataFrame({"annotation": labels, "size": np.arange(tissue.n_obs) % 9}).to_csv(tmp_path / "t.csv", index=False)
    join_annotation(tissue, tmp_path / "t.csv")
    assert list(tissue.obs["annotation"]) == labels
    numbered = pd.DataFrame({"cell": range(59, -1, -1), "region": labels})
    numbered.to_csv(tmp_path / "t.csv", index=False)
    join_annotation(tissue, tmp_path / "t.csv")
    assert list(tissue.obs["region"]) == labels[::-1]


def test_row_numbers_are_no_barcodes(folder, tissue, caplog):
    pd.DataFrame({"layer_guess": ["a", "b"] * 30}).to_csv(folder / "metadata.tsv", sep="\t")
    assert list(read(folder).obs["layer_guess"]) == ["a", "b"] * 30 and "no barcodes" in caplog.text


def test_annotation_keeps_what_obs_has_of_spots_that_it_does_not_name(tissue, tmp_path):
    tissue.obs[["x", "y"]] = tissue.obsm.pop("spatial")
    part = tissue.obs[["x", "y"]][:20].assign(annotation="L1", discard=True)
    part.to_csv(tmp_path / "t.csv", index_label="cell")
    before = coordinates(tissue)
    join_annotation(tissue, tmp_path / "t.csv")
    assert np.array_equal(coordinates(tissue), before)
    assert tissue.obs["annotation"].notna().sum() == 20
    tissue.write_h5ad(tmp_path / "can_be_written.h5ad")
