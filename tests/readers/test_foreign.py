"""What is said of files and folders that no reader takes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import simulate

from scrcl.messages import UserError
from scrcl.readers.find import find

R_OBJECT = b"X\n\x00\x00\x00\x03\x00\x04\x03\x00"
R_WORKSPACE = b"RDX3\nX\n\x00\x00\x00\x03"


def said(path) -> str:
    """What is said of a path: one sentence, for cells as for tissue."""
    with pytest.raises(UserError) as caught:
        find(str(path), "SC")
    with pytest.raises(UserError) as of_tissue:
        find(str(path), "ST")
    message = str(caught.value)
    assert message == str(of_tissue.value) and "\n" not in message and message.endswith(".")
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; download or copy it again"),
        (b"\x89PNG\r\n\x1a\n", "is an image; name the file of counts"),
        (b"II*\x00\x08\x00", "is an image; name the file of counts"),
        (b"%PDF-1.7", "is a PDF"),
        (b"PAR1\x15\x04", "is a parquet table; pandas.read_parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel file; save the sheet as csv"),
        (b"@read1\nACGT\n+\nIIII\n", r"holds reads \(fastq\); first make a matrix of counts of them"),
        (gzip.compress(b"@read1\nACGT\n+\nIIII\n", mtime=0), r"holds reads \(fastq\); first make a matrix"),
        (gzip.compress(b"BAM\x01\x00\x00", mtime=0), "holds aligned reads; first make a matrix"),
        (
            b"%%MatrixMarket matrix coordinate integer general\n3 2 0\n",
            "is a matrix without names; put its barcodes.tsv",
        ),
        (b"\x80\x05\x95", "is a pickle of Python, which may run any code"),
        (b"<!DOCTYPE html><html>", "is a web page, so its download went wrong"),
        (b"version https://git-lfs.github.com/spec/v1\n", "only points to a file that Git LFS keeps"),
        (b"barcode\ttype\nAAAC\tT cell\n", "is a text file, but no table of numbers"),
        (gzip.compress(b"a,1,2,3\n" * 9, mtime=0)[:9], "is a packed file that is damaged or empty"),
        (b"\x00\x01\x02\x03", "cannot be read: it is none of Visium .*, h5ad, .* and tables of numbers"),
    ],
)
def test_files_by_their_content(content, says, tmp_path):
    (tmp_path / "in").write_bytes(content)
    found = said(tmp_path / "in")
    assert pd.Series([found]).str.contains(says)[0], found


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_files_of_r_come_with_the_line_that_converts_them(pack, tmp_path):
    path = tmp_path / "my cells.rds"
    path.write_bytes(pack(R_OBJECT))
    new = tmp_path / "my cells.h5ad"
    assert f'in R, anndataR::write_h5ad(readRDS("{path}"), "{new}") writes a Seurat or Single' in said(path)
    path.write_bytes(pack(R_WORKSPACE))
    assert f'load("{path}") names the objects in it, and anndataR::write_h5ad(NAME, "{new}")' in said(path)


def test_hdf5_of_other_content(tmp_path):
    path = tmp_path / "in.h5Seurat"
    with h5py.File(path, "w") as file:
        file.create_group("assays")
        file.create_group("meta.data")
    assert f'SeuratDisk::Convert("{path}", dest = "h5ad") writes {tmp_path / "in.h5ad"}, which can be read' in said(
        path
    )
    for name in ("other.h5", "other.h5ad"):
        with h5py.File(tmp_path / name, "w") as file:
            file["X"], file["Y"] = [1], [2]
        assert "is an HDF5 file of other content, with X, Y at its top" in said(tmp_path / name)
    simulate(5, 5).write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "in.h5ad.gz").write_bytes(gzip.compress((tmp_path / "in.h5ad").read_bytes()))
    assert "is a packed HDF5 file; unpack it" in said(tmp_path / "in.h5ad.gz")


def test_archives(tmp_path):
    pd.DataFrame({"gene": ["A"]}).to_csv(tmp_path / "a.csv")
    for name, inside, says in (
        ("in.zip", "a.csv", "is an archive with a.csv; unpack it"),
        ("in.xlsx", "xl/workbook.xml", "is an Excel file; save the sheet as csv"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.write(tmp_path / "a.csv", inside)
        assert says in said(tmp_path / name)
    np.savez(tmp_path / "in.npz", x=[1])
    assert "holds arrays of numpy" in said(tmp_path / "in.npz")
    for mode, name in (("w", "in.tar"), ("w:gz", "in.tgz")):
        with tarfile.open(tmp_path / name, mode) as file:
            file.add(tmp_path / "a.csv", "a.csv")
        assert "is a tar archive; unpack it" in said(tmp_path / name)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "in.zip").read_bytes()[:40])
    assert "is a zip archive that is damaged" in said(tmp_path / "cut.zip")


def test_folders(tmp_path):
    assert "is an empty folder" in said(tmp_path)
    for i in range(8):
        (tmp_path / f"{i}.doc").write_bytes(b"\x00")
    assert "and holds 0.doc, 1.doc, 2.doc, 3.doc, 4.doc, 5.doc, ...; name the file" in said(tmp_path)
    simulate(5, 5).to_df().to_csv(tmp_path / "a.csv")
    assert f"is a folder with a file that can be read (a.csv); name the file, as in {tmp_path / 'a.csv'}" in said(
        tmp_path
    )
    for name in "ab":
        simulate(5, 5).write_h5ad(tmp_path / f"{name}.h5ad")
    assert "is a folder with several data sets (a.h5ad, b.h5ad); name the file" in said(tmp_path)
    for name in ("zarr.json", "images"):
        (tmp_path / "other.zarr" / name).mkdir(parents=True)
    assert "is a zarr store of other content (images, zarr.json)" in said(tmp_path / "other.zarr")
