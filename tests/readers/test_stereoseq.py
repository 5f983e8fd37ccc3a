"""GEF files of Stereo-seq, written with the records that STOmics' geftools writes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from scrcl.messages import UserError
from scrcl.readers import source, stereoseq
from scrcl.readers.find import find

# Per gene, in the order of the file: x, y, count of every DNB that has it
DNBS = {"Actb": [(100, 200, 1), (149, 249, 2), (150, 200, 4)], "Gfap": [(120, 210, 8), (150, 249, 16)]}
NAMES = {"old": ["gene"], "new": ["geneID", "geneName"]}  # geftools wrote ids and names from format version 4 on


def square_records(size: int) -> dict[str, list[tuple[int, int, int]]]:
    """The counts of squares: sums over their DNBs, by hand for the sizes used here."""
    if size == 50:
        return {"Actb": [(100, 200, 3), (150, 200, 4)], "Gfap": [(100, 200, 8), (150, 200, 16)]}
    if size == 100:
        return {"Actb": [(100, 200, 7)], "Gfap": [(100, 200, 24)]}
    return DNBS


def write_squares(path, sizes=(1, 50, 100), kind: str = "old") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for size in sizes:
            genes = square_records(size)
            records = [record for own in genes.values() for record in own]
            types = [("x", "<i4"), ("y", "<i4"), ("count", "u1")]
            file[f"geneExp/bin{size}/expression"] = np.array(records, dtype=types)
            starts = np.cumsum([0, *map(len, genes.values())])
            rows = [
                ((f"ENS{name}",) if kind == "new" else ()) + (name, starts[i], len(own))
                for i, (name, own) in enumerate(genes.items())
            ]
            columns = [*((name, "S64") for name in NAMES[kind]), ("offset", "<u4"), ("count", "<u4")]
            file[f"geneExp/bin{size}/gene"] = np.array(rows, dtype=columns)
            file[f"wholeExp/bin{size}"] = np.zeros((2, 2), dtype="<u2")


def write_cells(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = "id x y offset geneCount expCount dnbCount area cellTypeID clusterID".split()
    types = [(name, "<u4" if name in ("id", "offset") else "<i4" if name in "xy" else "<u2") for name in columns]
    cells = [
        (11, 105, 205, 0, 2, 7, 5, 60, 0, 1),
        (12, 155, 215, 2, 1, 3, 4, 50, 0, 2),
        (15, 1, 2, 3, 0, 0, 1, 9, 0, 0),
    ]
    genes = [(b"Actb", 0, 2, 5, 3), (b"Gfap", 2, 1, 5, 5)]
    gene_types = [
        ("geneName", "S64"),
        ("offset", "<u4"),
        ("cellCount", "<u4"),
        ("expCount", "<u4"),
        ("maxMIDcount", "u1"),
    ]
    with h5py.File(path, "w") as file:
        file["cellBin/cell"] = np.array(cells, dtype=types)
        file["cellBin/gene"] = np.array(genes, dtype=gene_types)
        file["cellBin/cellExp"] = np.array([(0, 2), (1, 5), (0, 3)], dtype=[("geneID", "<u4"), ("count", "<u2")])


def assert_squares(adata) -> None:
    assert list(adata.obs_names) == ["100_200", "150_200"] and list(adata.var_names) == ["Actb", "Gfap"]
    assert adata.X.toarray().tolist() == [[3, 8], [4, 16]] and adata.X.dtype == np.float32 and adata.X.format == "csr"
    assert adata.obsm["spatial"].tolist() == [[100, 200], [150, 200]] and adata.obsm["spatial"].dtype == np.float64


@pytest.mark.parametrize("kind", ["old", "new"])
@pytest.mark.parametrize("sizes", [(1, 50, 100), (50,), (1,), (1, 100)])
def test_squares_of_50(tmp_path, kind, sizes, caplog):
    caplog.set_level("INFO")
    write_squares(tmp_path / "SS2.tissue.gef", sizes, kind)
    adata = source(str(tmp_path / "SS2.tissue.gef"), "ST").read()
    assert_squares(adata)
    assert "gene_ids" not in adata.var if kind == "old" else list(adata.var["gene_ids"]) == ["ENSActb", "ENSGfap"]
    assert ("They are joined to squares of 50 x 50 DNBs (25 um)" in caplog.text) == (50 not in sizes)


def test_the_nearest_squares_where_50_cannot_be_made(tmp_path, caplog):
    caplog.set_level("INFO")
    write_squares(tmp_path / "SS2.gef", (100,))
    adata = source(str(tmp_path / "SS2.gef"), "ST").read()
    assert adata.X.toarray().tolist() == [[7, 24]] and adata.obsm["spatial"].tolist() == [[100, 200]]
    assert "SS2.gef has squares of 100 DNBs a side: those of 100 are read." in caplog.text


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_cells(tmp_path, task):
    write_cells(tmp_path / "any name")
    found = source(str(tmp_path / "any name"), task)
    adata = found.read()
    assert list(adata.obs_names) == ["11", "12", "15"] and list(adata.var_names) == ["Actb", "Gfap"]
    assert adata.X.toarray().tolist() == [[2, 5], [3, 0], [0, 0]] and adata.X.dtype == np.float32
    assert adata.obsm["spatial"].tolist() == [[105, 205], [155, 215], [1, 2]]
    assert list(adata.obs) == ["geneCount", "expCount", "dnbCount", "area", "cellTypeID", "clusterID"]
    assert found.files == (tmp_path / "any name",)


def test_folders_of_saw(tmp_path):
    inner = tmp_path / "SAW8" / "outs" / "feature_expression"
    write_cells(inner / "SS2.cellbin.gef")
    assert source(str(tmp_path / "SAW8"), "SC").read().n_obs == 3
    write_squares(inner / "SS2.tissue.gef")
    write_squares(inner / "SS2.raw.gef", (1,))
    found = source(str(tmp_path / "SAW8"), "ST")
    assert_squares(found.read())
    assert found.files == (inner / "SS2.tissue.gef",)
    write_squares(tmp_path / "SAW5" / "result" / "04.tissuecut" / "SS2.tissue.gef")
    assert_squares(source(str(tmp_path / "SAW5"), "ST").read())


def test_several_chips(tmp_path):
    for chip in ("GSM2_B", "GSM1_A"):
        write_cells(tmp_path / f"{chip}.adjusted.cellbin.gef")
    adata = source(str(tmp_path), "SC").read()
    assert list(adata.obs["library_id"]) == ["GSM1_A"] * 3 + ["GSM2_B"] * 3 and adata.obs_names[0] == "11-GSM1_A"


@pytest.mark.parametrize("damage", ["offset", "geneID"])
def test_damaged_cells(tmp_path, damage):
    write_cells(tmp_path / "x.gef")
    with h5py.File(tmp_path / "x.gef", "r+") as file:
        item = file["cellBin/cell" if damage == "offset" else "cellBin/cellExp"]
        item[damage] = np.full(3, 99, dtype=np.uint32)
    with pytest.raises(UserError, match="cannot be read as GEF .its counts do not belong to its cells and genes"):
        source(str(tmp_path / "x.gef"), "ST").read()


def test_damaged_files_and_other_files(tmp_path):
    (tmp_path / "chip").mkdir()
    (tmp_path / "chip" / "SS2.tissue.gef").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="SS2.tissue.gef cannot be read as GEF"):
        source(str(tmp_path / "chip"), "ST").read()
    with h5py.File(tmp_path / "chip" / "SS2.tissue.gef", "w") as file:
        file["other"] = 1
    with pytest.raises(UserError, match="it has neither /cellBin nor /geneExp"):
        source(str(tmp_path / "chip"), "ST").read()
    write_squares(tmp_path / "short.gef", (50,))
    with h5py.File(tmp_path / "short.gef", "r+") as file:
        genes = file["geneExp/bin50/gene"]
        genes["count"] = np.array([1, 1], dtype=np.uint32)
    with pytest.raises(UserError, match="its counts do not belong"):
        source(str(tmp_path / "short.gef"), "ST").read()
    assert stereoseq.locate(tmp_path / "short.gef") == find(str(tmp_path / "short.gef"), "ST").path
    (tmp_path / "empty").mkdir()
    assert stereoseq.locate(tmp_path / "empty") is None
