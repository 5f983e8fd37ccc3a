"""MERSCOPE folders, written as Vizgen documents them: cell_by_gene.csv and cell_metadata.csv."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from scrcl.messages import UserError
from scrcl.readers import merscope, source

CELLS = ["110883424764611924400221639916314253469", "110883424764611924400221639916314253470", "7"]
COUNTS = "cell,Oxgr1,Gpr4,Blank-1\n" + "".join(f"{cell},{i}.0,{2 * i}.0,0.0\n" for i, cell in enumerate(CELLS))
PLACES = {CELLS[1]: (20.5, 200.25), CELLS[0]: (10.5, 100.25), CELLS[2]: (30.5, 300.25)}


def write(folder, before: str = "", after: str = "", first: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{before}cell_by_gene{after}.csv").write_text(COUNTS)
    lines = [f"{first},fov,volume,center_x,center_y", *(f"{cell},3,512.5,{x},{y}" for cell, (x, y) in PLACES.items())]
    (folder / f"{before}cell_metadata{after}.csv").write_text("\n".join(lines))
    (folder / f"{before}detected_transcripts{after}.csv").write_text("not read")


@pytest.mark.parametrize("task", ["SC", "ST"])
@pytest.mark.parametrize(("before", "after"), [("", ""), ("BrainReceptorShowcase_Slice1_", "_S1R1"), ("GSM1_", "")])
@pytest.mark.parametrize("first", ["", "EntityID"])
def test_a_region(tmp_path, task, before, after, first):
    write(tmp_path, before, after, first)
    found = source(str(tmp_path), task)
    adata = found.read()
    assert list(adata.obs_names) == CELLS and list(adata.var_names) == ["Oxgr1", "Gpr4", "Blank-1"]
    assert adata.X.toarray().tolist() == [[0, 0, 0], [1, 2, 0], [2, 4, 0]]
    assert adata.X.dtype == np.float32 and adata.X.format == "csr"
    assert adata.obsm["spatial"].tolist() == [[10.5, 100.25], [20.5, 200.25], [30.5, 300.25]]
    assert list(adata.obs["volume"]) == [512.5] * 3 and len(found.files) == 2


def test_packed_tables_read_block_by_block(tmp_path, monkeypatch):
    write(tmp_path)
    for name in ("cell_by_gene.csv", "cell_metadata.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    monkeypatch.setattr("scrcl.readers.wide_table.VALUES_AT_A_TIME", 8)  # two of the three cells
    adata = source(str(tmp_path), "ST").read()
    assert adata.X.toarray().tolist() == [[0, 0, 0], [1, 2, 0], [2, 4, 0]] and list(adata.obs_names) == CELLS


def test_the_regions_of_a_run(tmp_path):
    for name in ("region_0", "region_1"):
        write(tmp_path / name)
    (tmp_path / "region_2").mkdir()
    adata = source(str(tmp_path), "ST").read()
    assert list(adata.obs["library_id"]) == ["region_0"] * 3 + ["region_1"] * 3
    assert adata.obs_names[3] == f"{CELLS[0]}-region_1" and adata.obsm["spatial"].shape == (6, 2)


def test_bad_tables(tmp_path):
    write(tmp_path)
    (tmp_path / "cell_by_gene.csv").write_text(COUNTS.replace("2.0", "two"))
    with pytest.raises(UserError, match="cell_by_gene.csv cannot be read as a table of counts"):
        source(str(tmp_path), "ST").read()
    (tmp_path / "cell_by_gene.csv").write_text("")
    with pytest.raises(UserError, match="cannot be read as a table of counts"):
        source(str(tmp_path), "ST").read()
    (tmp_path / "cell_by_gene.csv").unlink()
    assert merscope.locate(tmp_path) is None


def test_the_same_as_spatialdata_io_reads(tmp_path):
    sdio = pytest.importorskip("spatialdata_io")
    write(tmp_path, first="EntityID")
    head, second, first, third = (tmp_path / "cell_metadata.csv").read_text().splitlines()
    (tmp_path / "cell_metadata.csv").write_text("\n".join([head, first, second, third]))  # it wants the order of counts
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "micron_to_mosaic_pixel_transform.csv").write_text("9 0 0\n0 9 0\n0 0 1\n")
    off = dict.fromkeys(("transcripts", "cells_boundaries", "mosaic_images"), False)
    theirs = sdio.merscope(tmp_path, **off).tables["table"]
    ours = source(str(tmp_path), "ST").read()
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert np.array_equal(ours[:, theirs.var_names].X.toarray(), np.asarray(theirs.X))
    assert np.array_equal(ours.obsm["spatial"], theirs.obsm["spatial"])
