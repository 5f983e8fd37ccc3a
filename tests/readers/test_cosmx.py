"""Flat files of CosMx, written as NanoString documents them: exprMat_file and metadata_file."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from scrcl.messages import UserError
from scrcl.readers import cosmx, source

COUNTS = """fov,cell_ID,AATK,ABL1,NegPrb1
1,0,9,9,9
1,1,1,0,0
1,2,0,2,0
2,0,9,9,9
2,1,3,0,4
"""
PLACES = """fov,cell_ID,Area,CenterX_local_px,CenterY_local_px,CenterX_global_px,CenterY_global_px,Mean.DAPI
2,1,300,5,6,1005,2006,33
1,1,100,1,2,1,2002,11
1,2,200,3,4,3,2004,22
"""


def write(folder, slide: str = "Lung5_Rep1", counts: str = COUNTS, places: str = PLACES, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("exprMat_file", counts), ("metadata_file", places)):
        path = folder / f"{slide}_{name}.csv{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


@pytest.mark.parametrize("task", ["SC", "ST"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_slide(tmp_path, task, packed, caplog):
    caplog.set_level("INFO")
    write(tmp_path, packed=packed)
    found = source(str(tmp_path), task)
    adata = found.read()
    assert list(adata.obs_names) == ["1_1", "2_1", "1_2"] and list(adata.var_names) == ["AATK", "ABL1", "NegPrb1"]
    assert adata.X.toarray().tolist() == [[1, 0, 0], [0, 2, 0], [3, 0, 4]]
    assert adata.X.dtype == np.float32 and adata.X.format == "csr"
    assert adata.obsm["spatial"].tolist() == [[1, 2002], [3, 2004], [1005, 2006]]
    assert list(adata.obs["fov"].cat.categories) == ["1", "2"] and list(adata.obs["fov"]) == ["1", "1", "2"]
    assert list(adata.obs["Mean.DAPI"]) == [11, 22, 33] and "library_id" not in adata.obs
    assert "2 of 5 cells are not in Lung5_Rep1_metadata_file.csv" in caplog.text and len(found.files) == 2


def test_two_slides_in_files_of_their_own(tmp_path):
    for slide in ("Lung6", "Lung12"):
        write(tmp_path, slide)
    adata = source(str(tmp_path), "ST").read()
    assert list(adata.obs["library_id"]) == ["Lung6"] * 3 + ["Lung12"] * 3
    assert list(adata.obs_names[2:4]) == ["1_2-Lung6", "1_1-Lung12"] and adata.obsm["spatial"].dtype == np.float64
    assert list(adata.obs["fov"].astype(str)) == ["1", "1", "2"] * 2


def test_two_slides_in_the_same_files(tmp_path):
    counts = "fov,cell_ID,slide_ID,AATK\n1,1,1,5\n1,1,2,6\n1,1,3,7\n"
    head = "fov,cell_ID,cell,slide_ID,CenterX_global_px,CenterY_global_px\n"
    write(tmp_path, counts=counts, places=head + "1,1,c_2_1_1,2,20,21\n1,1,c_1_1_1,1,10,11\n")
    adata = source(str(tmp_path), "ST").read()
    assert list(adata.obs_names) == ["1_1_1", "1_1_2"] and adata.X.toarray().tolist() == [[5], [6]]
    assert list(adata.obs["library_id"]) == ["1", "2"] and adata.obsm["spatial"].tolist() == [[10, 11], [20, 21]]
    assert list(adata.obs["cell"]) == ["c_1_1_1", "c_2_1_1"]
    write(tmp_path, counts=counts.replace("2,6", "3,6"), places=head + "1,1,c_3_1_1,3,20,21\n")
    with pytest.raises(UserError, match="has a cell of one fov more than once"):
        source(str(tmp_path), "ST").read()


def test_bad_tables(tmp_path):
    write(tmp_path, places=PLACES.replace("CenterX_global_px", "x"))
    with pytest.raises(UserError, match="metadata_file.csv has no column CenterX_global_px"):
        source(str(tmp_path), "ST").read()
    write(tmp_path, places=PLACES.replace("cell_ID", "id"))
    with pytest.raises(UserError, match="must both have a column cell_ID"):
        source(str(tmp_path), "ST").read()
    (tmp_path / "Lung5_Rep1_metadata_file.csv").unlink()
    assert cosmx.locate(tmp_path) is None
