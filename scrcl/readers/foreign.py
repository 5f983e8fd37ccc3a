"""Say what a file or folder is that no reader takes, and how to convert it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from scrcl.readers import formats
from scrcl.readers.packed import PACKERS, first_bytes, first_content
from scrcl.settings import without_ending

SHOWN = 6  # names that a message lists
LOOKED_AT = 30  # entries of a folder that are tried
HDF5 = b"\x89HDF\r\n\x1a\n"
R_OBJECT = re.compile(rb"(X\n\x00\x00\x00|A\n[23]\n|B\n[\x02\x03]\x00\x00\x00)")  # the start of readRDS's files
R_WORKSPACE = re.compile(rb"RD[XAB][23]\n")  # the start of load's files
READS = "first make a matrix of counts of them, for instance with Cell Ranger, STARsolo or alevin-fry"
UNPACK = "unpack it, and name the file or folder that comes out"
MAGIC: dict[tuple[bytes, ...], str] = {  # how files begin once they are unpacked, what they are, and what to do
    (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"II+\x00", b"MM\x00*"): "is an image; name the file of counts",
    (b"%PDF",): "is a PDF; name the file of counts",
    (b"BAM\x01", b"CRAM"): f"holds aligned reads; {READS}",
    (b"%%MatrixMarket",): "is a matrix without names; put its barcodes.tsv and its features.tsv or genes.tsv beside it",
    (b"\xd0\xcf\x11\xe0",): "is an old Excel file; save the sheet as csv, and name that file",
    (b"PAR1",): "is a parquet table; pandas.read_parquet(...).to_csv(...) writes it as csv, which can be read",
    (b"Rar!", b"7z\xbc\xaf"): f"is an archive; {UNPACK}",
    (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"): (
        "is a pickle of Python, which may run any code; if you trust it, write an h5ad file from it"
    ),
    (b"<!DOCTYPE", b"<!doctype", b"<html"): "is a web page, so its download went wrong; download the file again",
    (b"version https://git-lfs",): "only points to a file that Git LFS keeps; fetch that with `git lfs pull`",
}


def what_it_is(path: Path) -> str:
    """Return one sentence that says what a path is, and what to do about it.

    Parameters
    ----------
    path
        A file or folder that no format fits.
    """
    from scrcl.disk import hdf5  # needs h5py, which is not loaded before there is something to read

    if path.is_dir():
        return f"{path} {_folder(path)}."
    if not path.is_file():
        return f"{path} is neither a file nor a folder; name one that is."
    if path.stat().st_size == 0:
        return f"{path} is empty; download or copy it again."
    if names := hdf5.names(path):
        return f"{path} {_hdf5(path, names)}."
    content = first_content(path)
    found = _packed(path, content) or _r(path, content) or _archive(path, content) or _content(content)
    return f"{path} {found or _none_of_them()}."


def _none_of_them() -> str:
    """Return what is said of something unknown."""
    return f"cannot be read: it is none of {formats.in_words()}"


def _some(names: list[str]) -> str:
    """Return a list of names that is not too long."""
    return ", ".join([*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])])


def _folder(path: Path) -> str:
    """Say what a folder holds; one with several data sets asks for a name."""
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if not inside:
        return "is an empty folder; name one that holds data"
    names = [entry.name for entry in inside]
    if {"zarr.json", ".zgroup"} & {entry.name for entry in path.iterdir()}:
        return f"is a zarr store of other content ({_some(names)}); name one that holds an AnnData"
    own = [entry.name for entry in inside if entry.suffix == ".h5ad"]
    found = own or [entry.name for entry in inside[:LOOKED_AT] if entry.is_file() and formats.locate(entry)]
    if found:
        what = "several data sets" if len(found) > 1 else "a file that can be read"
        return f"is a folder with {what} ({_some(found)}); name the file, as in {path / found[0]}"
    return f"{_none_of_them()}, and holds {_some(names)}; name the file or folder of the counts"


def _hdf5(path: Path, names: frozenset[str]) -> str:
    """Say what an HDF5 file is."""
    if {"assays", "meta.data"} <= names:
        new = path.with_suffix(".h5ad")
        return (
            f'is an h5Seurat file; in R, SeuratDisk::Convert("{path}", dest = "h5ad") writes {new}, which can be read'
        )
    return (
        f"is an HDF5 file of other content, with {_some(sorted(names))} at its top; h5ad has obs and var there, and a "
        "10x matrix has matrix or a genome"
    )


def _packed(path: Path, content: bytes) -> str | None:
    """Say that a packed file is damaged or holds HDF5, or return None for any other file."""
    start = first_bytes(path)
    if not start.startswith(tuple(PACKERS)):
        return None
    if not content:
        return "is a packed file that is damaged or empty; download or copy it again"
    if content.startswith(HDF5):
        return "is a packed HDF5 file; unpack it, and name the file that comes out"
    return None


def _r(path: Path, content: bytes) -> str | None:
    """Say how to convert a file of R, or return None for any other file."""
    new = path.with_name(f"{without_ending(path.stem)}.h5ad")
    if R_WORKSPACE.match(content):
        return (
            f'is a workspace of R; in R, load("{path}") names the objects in it, and anndataR::write_h5ad(NAME, '
            f'"{new}") writes a Seurat or SingleCellExperiment object as a file that can be read'
        )
    if R_OBJECT.match(content):
        return (
            f'is an object of R; in R, anndataR::write_h5ad(readRDS("{path}"), "{new}") writes a Seurat or '
            "SingleCellExperiment object as a file that can be read"
        )
    return None


def _archive(path: Path, content: bytes) -> str | None:
    """Say what an archive holds, or return None for any other file."""
    if content[257:262] == b"ustar":
        return f"is a tar archive; {UNPACK}"
    if not content.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile):
        return "is a zip archive that is damaged; download or copy it again"
    if any(name.startswith("xl/") for name in names):
        return "is an Excel file; save the sheet as csv, and name that file"
    if all(name.endswith(".npy") for name in names):
        return "holds arrays of numpy, without the names of cells and genes; write an h5ad file from them"
    return f"is an archive with {_some(names)}; {UNPACK}"


def _content(content: bytes) -> str | None:
    """Say what a file is by how its content begins, or return None when that tells nothing."""
    for starts, what in MAGIC.items():
        if content.startswith(starts):
            return what
    lines = content.split(b"\n")
    if content.startswith(b"@") and len(lines) > 2 and lines[2].startswith(b"+"):
        return f"holds reads (fastq); {READS}"
    if content and b"\0" not in content:
        return (
            "is a text file, but no table of numbers; a matrix has a line per gene or cell, a name at its start, and "
            "numbers in at least three columns"
        )
    return None
