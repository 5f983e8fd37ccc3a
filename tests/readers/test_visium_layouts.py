"""Visium as others pass it on: flat folders of GEO, several sections, raw matrices, and the cells of Space Ranger 4.

Names of files are those of GSE144240 (GSM4284316) and of 10x's documentation of Space Ranger 4.
"""

from __future__ import annotations

import gzip
import json
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from conftest import write_matrix, write_visium

from scrcl.messages import UserError
from scrcl.readers import source, visium
from scrcl.readers.simulated import layered_tissue

BESIDE = ("tissue_positions.csv", "scalefactors_json.json", "tissue_hires_image.png", "tissue_lowres_image.png")


@pytest.fixture
def tissue() -> ad.AnnData:
    return layered_tissue(n_spots=60, n_genes=20)


def read(folder) -> ad.AnnData:
    return source(str(folder), "ST").read()


def assert_same(adata: ad.AnnData, tissue: ad.AnnData) -> None:
    assert list(adata.obs_names) == list(tissue.obs_names)
    assert np.array_equal(adata[:, tissue.var_names].X.toarray(), tissue.X.toarray())
    assert np.array_equal(adata.obsm["spatial"], np.rint(tissue.obsm["spatial"]))
    assert adata.X.format == "csr" and adata.X.dtype == np.float32 and adata.obsm["spatial"].dtype == np.float64


def pack(path, target) -> None:
    target.write_bytes(gzip.compress(path.read_bytes()))


def write_texts(tissue, folder, prefix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    features = "\n".join(f"ENSG{name}\t{name}\tGene Expression" for name in tissue.var_names)
    with gzip.open(folder / f"{prefix}matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, tissue.X.T.astype(int))
    (folder / f"{prefix}barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(tissue.obs_names).encode()))
    (folder / f"{prefix}features.tsv.gz").write_bytes(gzip.compress(features.encode()))


def flatten(sample, flat, prefix: str, packed: bool = True, texts: ad.AnnData | None = None) -> None:
    """The files of a Visium folder as GEO has them: in one folder, named after the sample, packed one by one."""
    flat.mkdir(exist_ok=True)
    if texts is None:
        name = "filtered_feature_bc_matrix.h5"
        shutil.copy(sample / name, flat / f"{prefix}{name}")
    else:
        write_texts(texts, flat, prefix)
    for name in BESIDE:
        path = sample / "spatial" / name
        if name == BESIDE[0]:  # as Space Ranger 1 has it
            name = "tissue_positions_list.csv"
            path = flat / "list"
            pd.read_csv(sample / "spatial" / BESIDE[0]).to_csv(path, header=False, index=False)
        if packed:
            pack(path, flat / f"{prefix}{name}.gz")
        else:
            shutil.copy(path, flat / f"{prefix}{name}")
    (flat / "list").unlink()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("as_texts", [True, False])
def test_one_flat_sample(tissue, tmp_path, packed, as_texts):
    sample, flat = write_visium(tissue, tmp_path / "sample"), tmp_path / "GSE144240"
    flatten(sample, flat, "GSM4284316_P2_ST_rep1_", packed, tissue if as_texts else None)
    adata = read(flat)
    assert_same(adata, tissue)
    assert "library_id" not in adata.obs and list(adata.obs["array_col"]) == list(tissue.obs["array_col"])
    library = adata.uns["spatial"]["GSE144240"]
    assert library["images"]["hires"].shape == (120, 120, 4) and library["images"]["hires"].dtype == np.uint8
    assert library["scalefactors"]["tissue_lowres_scalef"] == 0.05
    assert len(source(str(flat), "ST").files) == (4 if as_texts else 2)


def test_a_packed_matrix_and_packed_parquet(tissue, tmp_path):
    sample = write_visium(tissue, tmp_path / "sample")
    matrix, positions = sample / "filtered_feature_bc_matrix.h5", sample / "spatial" / "tissue_positions.csv"
    pd.read_csv(positions).to_parquet(tmp_path / "positions", index=False)
    pack(matrix, sample / "GSM1_filtered_feature_bc_matrix.h5.gz")
    pack(tmp_path / "positions", sample / "spatial" / "tissue_positions.parquet.gz")
    matrix.unlink()
    positions.unlink()
    assert_same(read(sample), tissue)
    (sample / "GSM1_filtered_feature_bc_matrix.h5.gz").write_bytes(gzip.compress(b"x" * 9999)[:-9])
    with pytest.raises(UserError, match="cannot be unpacked"):
        read(sample)


@pytest.mark.parametrize("where", ["", "spatial", "{}_spatial", "{}_spatial bare"])
def test_several_flat_samples_become_one(tissue, tmp_path, where, caplog):
    caplog.set_level("INFO")
    sample, flat = write_visium(tissue, tmp_path / "sample"), tmp_path / "flat"
    for name in ("GSM1_A", "GSM2_B"):
        flatten(sample, flat, f"{name}_")
        if where:
            inner = flat / where.split()[0].format(name)
            inner.mkdir(exist_ok=True)
            for path in list(flat.glob(f"{name}_*.gz")):
                path.rename(inner / (path.name.removeprefix(f"{name}_") if "bare" in where else path.name))
    adata = read(flat)
    assert list(adata.obs_names) == [f"{spot}-{name}" for name in ("GSM1_A", "GSM2_B") for spot in tissue.obs_names]
    assert list(adata.obs["library_id"].cat.categories) == ["GSM1_A", "GSM2_B"]
    assert list(adata.obs["library_id"]) == ["GSM1_A"] * 60 + ["GSM2_B"] * 60
    assert set(adata.uns["spatial"]) == {"GSM1_A", "GSM2_B"}
    assert adata.uns["spatial"]["GSM2_B"]["images"]["lowres"].shape == (60, 60, 4)
    assert_same(ad.AnnData(adata.X[60:], tissue.obs, adata.var, obsm={"spatial": adata.obsm["spatial"][60:]}), tissue)
    assert "holds 2 samples with 120 cells in all: GSM1_A, GSM2_B" in caplog.text


def test_a_folder_of_visium_folders_joins_the_genes_that_all_have(tissue, tmp_path, caplog):
    caplog.set_level("INFO")
    write_visium(tissue, tmp_path / "both" / "S10" / "outs")
    write_visium(tissue[:40, 5:].copy(), tmp_path / "both" / "S9")
    (tmp_path / "both" / "notes").mkdir()
    for folder in ("S10/outs", "S9"):  # ids that belong to the symbols, as in true files
        with h5py.File(tmp_path / "both" / folder / "filtered_feature_bc_matrix.h5", "r+") as file:
            file["matrix/features/id"][:] = file["matrix/features/name"][:]
    adata = read(tmp_path / "both")
    assert adata.shape == (100, 15) and list(adata.var_names) == list(tissue.var_names[5:])
    assert list(adata.obs["library_id"]) == ["S9"] * 40 + ["S10"] * 60
    assert np.array_equal(adata.X[40:].toarray(), tissue.X[:, 5:].toarray())
    assert "The samples differ in their genes: the 15 of 20 that all have are read." in caplog.text
    assert visium.locate(tmp_path / "both" / "notes") is None
    assert visium.locate(tmp_path / "both" / "S9") == tmp_path / "both" / "S9"
    shutil.rmtree(tmp_path / "both" / "S9")
    assert visium.locate(tmp_path / "both") is None  # one section is named itself


def test_samples_of_which_one_has_no_positions(tissue, tmp_path, caplog):
    sample, flat = write_visium(tissue, tmp_path / "sample"), tmp_path / "flat"
    for name in "ABC":
        flatten(sample, flat, f"{name}_")
    (flat / "B_tissue_positions_list.csv.gz").unlink()
    assert list(read(flat).obs["library_id"].cat.categories) == ["A", "C"]
    assert "The sample B in" in caplog.text and "has a matrix but no positions: left out" in caplog.text


@pytest.mark.parametrize("raw", ["raw_feature_bc_matrix.h5", "raw_feature_bc_matrix"])
def test_a_raw_matrix_is_read_where_there_is_no_other(tissue, tmp_path, raw):
    sample = write_visium(tissue, tmp_path / "sample")
    table = pd.read_csv(sample / "spatial" / "tissue_positions.csv")
    table.loc[table["barcode"].isin(tissue.obs_names[:20]), "in_tissue"] = 0
    table.to_csv(sample / "spatial" / "tissue_positions.csv", index=False)
    (sample / "filtered_feature_bc_matrix.h5").unlink()
    if raw.endswith(".h5"):
        write_matrix(tissue, sample / raw)
    else:
        write_texts(tissue, sample / raw, "")
    assert_same(read(sample), tissue[20:])
    write_matrix(tissue[30:], sample / "filtered_feature_bc_matrix.h5")
    assert_same(read(sample), tissue[30:])


def test_a_raw_matrix_of_probes_is_summed_to_genes(tmp_path):
    """The layout of 10x's raw_probe_bc_matrix.h5; probes 1 and 3 are of gene A, 2 of B, and 4 is left out by 10x."""
    counts = np.array([[1, 2, 4, 8], [0, 3, 0, 1], [5, 0, 6, 0]])
    (tmp_path / "spatial").mkdir()
    with h5py.File(tmp_path / "raw_probe_bc_matrix.h5", "w") as file:
        matrix = ad.AnnData(scipy.sparse.csr_matrix(counts))
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(matrix.X, name)
        file["matrix/shape"] = [4, 3]
        file["matrix/barcodes"] = [b"AAAC-1", b"AAAG-1", b"AAAT-1"]
        file["matrix/filtered_barcodes"] = [True, True, False]
        features = file.create_group("matrix/features")
        features["id"] = [b"E1|A|1", b"E2|B|2", b"E1|A|3", b"E3|C|4"]
        features["name"] = [b"A|1", b"B|2", b"A|3", b"C|4"]
        features["gene_id"] = [b"E1", b"E2", b"E1", b"E3"]
        features["gene_name"] = [b"A", b"B", b"A", b"C"]
        features["feature_type"] = [b"Gene Expression"] * 4
        features["genome"] = [b"GRCh38"] * 4
        features["probe_region"] = [b"spliced", b"none", b"unspliced", b"none"]
        features["filtered_probes"] = [True, True, True, False]
    positions = "AAAC-1,1,0,0,10,20\nAAAG-1,1,0,2,10,40\nAAAT-1,0,0,4,10,60\n"
    (tmp_path / "spatial" / "tissue_positions_list.csv").write_text(positions)
    adata = read(tmp_path)
    assert list(adata.obs_names) == ["AAAC-1", "AAAG-1"] and list(adata.var_names) == ["A", "B"]
    assert adata.X.toarray().tolist() == [[5, 2], [0, 3]] and adata.X.dtype == np.float32
    assert adata.obsm["spatial"].tolist() == [[20, 10], [40, 10]]
    assert list(adata.var["gene_ids"]) == ["E1", "E2"] and set(adata.var["feature_types"]) == {"Gene Expression"}


def test_what_is_still_packed_is_said(tissue, tmp_path):
    sample = write_visium(tissue, tmp_path / "sample")
    shutil.rmtree(sample / "spatial")
    assert visium.locate(sample) is None  # cells, as far as one can see
    (sample / "V1_Mouse_spatial.tar.gz").touch()
    with pytest.raises(UserError, match="V1_Mouse_spatial.tar.gz is still packed; unpack it"):
        read(sample)
    (tmp_path / "hd").mkdir()
    (tmp_path / "hd" / "Visium_HD_binned_outputs.tar.gz").touch()
    with pytest.raises(UserError, match="binned_outputs.tar.gz is still packed"):
        read(tmp_path / "hd")
    sample = write_visium(tissue, tmp_path / "other")
    (sample / "filtered_feature_bc_matrix.h5").rename(sample / "filtered_feature_bc_matrix.tar.gz")
    with pytest.raises(UserError, match="filtered_feature_bc_matrix.tar.gz is still packed"):
        read(sample)


CORNERS = {  # of cells 1 to 4, with the first corner repeated at the end as GeoJSON wants it
    1: [[0, 0], [4, 0], [4, 2], [0, 2], [0, 0]],
    2: [[10, 10], [13, 10], [10, 13], [10, 10]],
    3: [[100, 0], [100, 6], [106, 6], [106, 3], [103, 3], [103, 0], [100, 0]],  # an L of three squares
}
CENTRES = [[2, 1], [11, 11], [102.5, 3.5]]


def write_segmented(folder, counts) -> None:
    """Space Ranger 4's segmented_outputs: three cells with an outline, and one without."""
    (folder / "spatial").mkdir(parents=True)
    names = [f"cellid_{number:09d}-1" for number in (1, 2, 3, 7)]
    cells = ad.AnnData(scipy.sparse.csr_matrix(counts), obs=pd.DataFrame(index=names))
    write_matrix(cells, folder / "filtered_feature_cell_matrix.h5")
    outlines = [
        {"type": "Feature", "properties": {"cell_id": cell}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for cell, ring in reversed(CORNERS.items())
    ]
    outlines[0]["geometry"] = {"type": "MultiPolygon", "coordinates": [[CORNERS[1]], [CORNERS[3]]]}
    text = json.dumps({"type": "FeatureCollection", "features": outlines})
    (folder / "cell_segmentations.geojson").write_text(text)
    (folder / "graphclust_annotated_cell_segmentations.geojson").write_text("not read")
    (folder / "spatial" / "scalefactors_json.json").write_text('{"tissue_hires_scalef": 0.5}')


def test_the_cells_of_space_ranger_4(tissue, tmp_path, caplog):
    caplog.set_level("INFO")
    outs = tmp_path / "hd" / "outs"
    write_segmented(outs / "segmented_outputs", np.arange(8).reshape(4, 2))
    adata = read(tmp_path / "hd")
    assert list(adata.obs_names) == ["cellid_000000001-1", "cellid_000000002-1", "cellid_000000003-1"]
    assert np.allclose(adata.obsm["spatial"], CENTRES) and adata.X.toarray().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert adata.uns["spatial"]["hd"]["scalefactors"] == {"tissue_hires_scalef": 0.5} and adata.obs.empty
    assert "1 of 4 spots have no position" in caplog.text
    assert [path.name for path in source(str(tmp_path / "hd"), "ST").files] == [
        "filtered_feature_cell_matrix.h5",
        "cell_segmentations.geojson",
    ]
    write_visium(tissue, outs / "binned_outputs" / "square_008um")  # bins are read before cells
    assert_same(read(tmp_path / "hd"), tissue)
    assert read(outs / "segmented_outputs").n_obs == 3
    (outs / "segmented_outputs" / "cell_segmentations.geojson").write_text("{}")
    with pytest.raises(UserError, match="does not hold the outlines of cells"):
        read(outs / "segmented_outputs")


def test_two_lines_of_a_true_file_of_space_ranger_1(tmp_path):
    """Two lines of tests/_data/visium in squidpy: row, column, y, x."""
    lines = "AAACAAGTATCTCCCA-1,1,50,102,8513,9811\nAAACACCAATAACTGC-1,1,59,19,9605,4104\n"
    cells = ad.AnnData(
        scipy.sparse.csr_matrix(np.ones((2, 1))),
        obs=pd.DataFrame(index=["AAACAAGTATCTCCCA-1", "AAACACCAATAACTGC-1"]),
    )
    (tmp_path / "spatial").mkdir()
    (tmp_path / "spatial" / "tissue_positions_list.csv").write_text(lines)
    write_matrix(cells, tmp_path / "filtered_feature_bc_matrix.h5")
    adata = read(tmp_path)
    assert adata.obsm["spatial"].tolist() == [[9811, 8513], [4104, 9605]]
    assert adata.obs[["array_row", "array_col"]].to_numpy().tolist() == [[50, 102], [59, 19]]
