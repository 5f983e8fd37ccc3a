"""Fetch published data sets, to where runSC.py and runST.py look for them.

python datasets/fetch.py --list                    # which there are
python datasets/fetch.py Baron_human1              # then: python runSC.py --dataset Baron_human1
python datasets/fetch.py 151673 151674             # then: python runST.py --dataset 151673
python datasets/fetch.py Zeisel --folder /data     # to /data/scdata

What is there and whole is not fetched again; an interrupted download goes on where it stopped. Partial downloads
and archives are kept in downloads/, which may be removed at any time; by checksums.json it is known later whether
a file has changed.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import anndata as ad
import filelock
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

import download
import sources
from config import Parser
from download import Changed, Downloads, Refused, Unwritable
from sources import Checksums, Remote, Source
from utils import UserError, format_table, log, one_line, run_script, sha256

DOWNLOADS = "downloads"  # in the folder: partial downloads, archives, tables that several sets are made from


def build_parser() -> Parser:
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets to fetch")
    parser.add_argument("--list", action="store_true", help="show all data sets, and which are there")
    parser.add_argument(
        "--checksums", action="store_true", help="with --list: read all files, to see whether any has changed"
    )
    parser.add_argument(
        "--folder", type=Path, default=sources.FOLDER, help="holds scdata/ and stdata/ (default: %(default)s)"
    )
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    if arguments.list:
        print(listing(arguments.folder, arguments.checksums))
        return
    if arguments.checksums:
        raise UserError("--checksums belongs to --list; fetching a data set that is there checks it anyway.")
    if not arguments.names:
        raise UserError("No data set was named; --list shows which there are.")
    require_known(arguments.names)
    try:
        print(fetch_all(list(dict.fromkeys(arguments.names)), arguments.folder))
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C and the like
            log.info(
                "\nWhat has come is kept in %s; the same command goes on from there.", arguments.folder / DOWNLOADS
            )
        raise


def require_known(names: Sequence[str]) -> None:
    """Raise UserError for a name that is not in the registry, with those that resemble it."""
    known = list(sources.known())
    for name in names:
        if name not in known:
            lower = {one.lower(): one for one in known}
            close = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
            hint = f"is it {' or '.join(close)}? " if close else ""
            raise UserError(f"There is no data set {name!r} to fetch; {hint}--list shows all of them.")


def listing(folder: Path, checksums: bool) -> str:
    """A table of all data sets. checksums: read those that are there from end to end."""
    rows = [
        [name, source.task, _way(source), source.origin, source.verified, sources.status(name, folder, checksums)]
        for name, source in sources.registry().items()
    ]
    return format_table(["data set", "task", "how", "from", "addresses verified", f"in {folder}"], rows)


def _way(source: Source) -> str:
    if not source.files:
        return "by hand"
    return "download, annotation by hand" if source.note else "download"


def fetch_all(names: Sequence[str], folder: Path) -> str:
    """Fetch data sets; a table of what became of each.

    A set that fails does not keep the others from being fetched. Raises UserError at the end if
    one has failed, and at once where nothing can be written.
    """
    downloads, rows, failed = Downloads(folder / DOWNLOADS), [], []
    for name in names:
        source = sources.registry()[name]
        try:
            outcome = "fetched" if fetch(source, folder, downloads) else "there already"
        except Unwritable:
            raise
        except UserError as error:
            if len(names) == 1:
                raise
            log.error("%s: %s", name, error)
            failed.append(name)
            continue
        rows.append([name, outcome, str(source.folder(folder) / source.required()[-1])])
        if to_do := source.to_do(folder):
            log.warning("%s: %s.", name, to_do)
    table = format_table(["data set", "outcome", "where"], rows)
    if failed:
        if rows:
            print(table)
        raise UserError(f"{len(failed)} of {len(names)} data sets are not there: {', '.join(failed)}; see above why.")
    return table


def fetch(source: Source, folder: Path, downloads: Downloads) -> bool:
    """Put the files of a data set in place, as far as they are not there; False where all are.

    Raises UserError where that cannot be done, saying how to do it by hand.
    """
    lacking = _lacking(source, folder)
    if not lacking:
        return False
    if not source.files:
        raise UserError(f"{source.name} can only be downloaded by hand: {source.by_hand(folder)}.")
    with _locked(downloads.folder), download.sentence_on_failure(folder):
        downloads.tidy()
        lacking = _lacking(source, folder)  # another process may have fetched them meanwhile
        try:
            _put_in_place(source, folder, downloads, lacking)
        except Unwritable:
            raise
        except UserError as error:
            raise UserError(f"{error} By hand: {source.by_hand(folder)}.") from error
        finally:
            with suppress(OSError):
                downloads.tidy()
    return True


def _lacking(source: Source, folder: Path) -> list[str]:
    """The files of a set that are not there, or not as they should be; the latter are said."""
    record, where = Checksums(folder), source.folder(folder)
    there = [file for file in source.products() if (where / file).exists()]
    faults = {file: record.fault(where / file, checksums=True) for file in there}
    for file, fault in faults.items():
        if fault:
            log.warning("%s %s; it will be kept as %s.changed.", where / file, fault, Path(file).name)
    return [file for file in source.products() if file not in there or faults[file]]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder of downloads, and keep it for this process alone."""
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    with download.sentence_on_failure(folder), suppress(filelock.Timeout):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    if not lock.is_locked:
        raise UserError(
            f"Another process is fetching to {folder.parent}; wait for its end, or choose another --folder."
        )
    try:
        yield
    finally:
        lock.release()


def _put_in_place(source: Source, folder: Path, downloads: Downloads, lacking: Sequence[str]) -> None:
    """Download what the lacking files need, make what is to be made, and only then move them, one by one."""
    record, where = Checksums(folder), source.folder(folder)
    make_needed = any(file in lacking for file in source.makes)
    with tempfile.TemporaryDirectory(dir=downloads.folder) as name:
        scratch = Path(name)
        inputs: dict[str, Path] = {}
        moves: list[tuple[Path, str]] = []
        for file in source.files:
            places = {member: to for member, to in file.members().items() if to is not None}
            if set(places.values()) & set(lacking) or (not places and make_needed):
                found = _download(file, downloads, record, scratch)
            else:
                found = {member: where / to for member, to in places.items()}
            inputs |= {Path(member).name: path for member, path in found.items()}
            moves += [(found[member], to) for member, to in places.items() if to in lacking and member in found]
        if make_needed:
            moves = [*_make(source, inputs, scratch), *moves]
        for path, to in moves:
            download.install(path, where / to)
            record.add_file(where / to)


def _download(file: Remote, downloads: Downloads, record: Checksums, scratch: Path) -> dict[str, Path]:
    """What comes of a file, by its names in Remote.members; nothing if it is optional and refused."""
    try:
        path = _get(file, downloads, record)
    except Refused as error:
        if not file.optional:
            raise
        log.warning("%s The set can be used without it.", error)
        return {}
    if not file.unpack:
        return {name: path for name in file.members()}
    unpacked = download.unpack(path, file.unpack, scratch)
    for name, member in unpacked.items():
        _require_sound(member, f"{name} in {file.url}")
    return unpacked


def _get(file: Remote, downloads: Downloads, record: Checksums) -> Path:
    """The downloaded file, of the checksum that is known or was recorded at the first download."""
    before = record.of_address(file.url)
    try:
        path = downloads.get(file.url, file.sha256 or before)
    except Changed as error:
        if file.sha256:
            raise
        raise Changed(
            f"{error} That is the sha256 of the first download; if you trust the new file, remove the line with "
            f"its address from {record.path}."
        ) from error
    _require_sound(path, file.url)
    if not (file.sha256 or before):
        record.add_address(file.url, sha256(path))
    return path


def _require_sound(path: Path, address: str) -> None:
    """Raise Refused, and remove the file, where a server gave something else, such as a page that says sorry."""
    fault = sources.fault(path)
    if fault:
        path.unlink(missing_ok=True)
        raise Refused(f"What comes from {address} {fault}; the address may have changed, or ask for a login.")


def _make(source: Source, inputs: Mapping[str, Path], scratch: Path) -> list[tuple[Path, str]]:
    """Make a set's own file in scratch; its path, and where it belongs."""
    assert source.make is not None
    (to,) = source.makes
    path = scratch / f"made-{Path(to).name}"
    try:
        CONVERSIONS[source.make](inputs, path, **source.options)
    except (UserError, OSError):
        raise
    except Exception as error:  # pandas, scipy and h5py raise many types for damaged files
        raise UserError(
            f"{source.name} cannot be made from what was downloaded ({one_line(error)}); "
            f"remove {scratch.parent} and try again."
        ) from error
    return [(path, to)]


def baron(inputs: Mapping[str, Path], target: Path) -> None:
    """Counts of donor 1 of Baron 2016 as h5ad, cells x genes.

    inputs: Baron_H1_Data.csv, genes x cells with their names, Baron_H1_Gene_Ann.csv and
    Baron_H1_Labels.csv. Raises UserError where they do not fit together.
    """
    genes = _second_column(inputs["Baron_H1_Gene_Ann.csv"])
    types = _second_column(inputs["Baron_H1_Labels.csv"])
    blocks: list[sparse.csr_matrix] = []
    rows: list[str] = []
    # In blocks of genes: dense, the table is four times as large as the set is in memory.
    for block in pd.read_csv(inputs["Baron_H1_Data.csv"], index_col=0, chunksize=1000, keep_default_na=False):
        blocks.append(sparse.csr_matrix(block.to_numpy(dtype=np.float32)))
        rows += map(str, block.index)
    counts = sparse.vstack(blocks).T.tocsr()
    if rows != genes or counts.shape[0] != len(types):
        raise UserError(
            f"The tables of {target.stem.removeprefix('made-')} do not fit together: {counts.shape[0]} cells and "
            f"{len(types)} labels, {len(rows)} genes and {len(genes)} names of genes."
        )
    _write(counts, pd.Index(block.columns, dtype=object), pd.Index(genes), {"cell_type1": types}, target)


def _second_column(path: Path) -> list[str]:
    """Of a table that R wrote: its first column are row numbers."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).iloc[:, 1].tolist()


def zeisel(inputs: Mapping[str, Path], target: Path, blocks: Mapping[str, Mapping[str, Any]]) -> None:
    """Counts of Zeisel 2015 as h5ad, cells x genes, which have no names.

    inputs: zeisel_data.mat, genes x cells as ln(1 + count), and zeisel_names.mat, each cell's class
    and subclass. blocks: the cell types in the order of the cells, each with its number
    of 'cells' and the 'classes' that they may have. Raises UserError where a cell has another.
    """
    values = scipy.io.loadmat(inputs["zeisel_data.mat"])["zeisel_data"].T
    names = [[str(name[0]) for name in row] for row in scipy.io.loadmat(inputs["zeisel_names.mat"])["zeisel_names"]]
    classes, subclasses = map(list, zip(*names))
    types = [kind for kind, block in blocks.items() for _ in range(block["cells"])]
    if not len(types) == len(classes) == len(values):
        raise UserError(f"There are {len(values)} cells with {len(classes)} classes where {len(types)} were expected.")
    for cell, (kind, found) in enumerate(zip(types, classes)):
        if found not in blocks[kind]["classes"]:
            raise UserError(
                f"Cell {cell} is of the class {found!r}, which does not fit the type {kind!r} of its place."
            )
    counts = np.rint(np.expm1(values))
    if not np.allclose(np.log1p(counts), values, atol=1e-6):
        raise UserError(f"The values in {inputs['zeisel_data.mat'].name} are not logarithms of counts.")
    cells, genes = (pd.Index([f"{what}_{i}" for i in range(n)]) for what, n in zip(("cell", "gene"), counts.shape))
    labels = {"cell_type1": types, "level1class": classes, "level2class": subclasses}
    _write(sparse.csr_matrix(counts, dtype=np.float32), cells, genes, labels, target)


def layers(inputs: Mapping[str, Path], target: Path, sample: str) -> None:
    """The known layers of a slice, in the order of its matrix, as columns barcode and layer_guess; empty where unknown.

    inputs: barcode_level_layer_map.tsv, lines of barcode, sample and layer, and SAMPLE_filtered_feature_bc_matrix.h5.
    Raises UserError where no spot of the slice has a layer.
    """
    path = inputs["barcode_level_layer_map.tsv"]
    table = pd.read_csv(path, sep="\t", header=None, names=["barcode", "sample", "layer"], dtype=str)
    known = table[table["sample"] == sample].drop_duplicates("barcode").set_index("barcode")["layer"]
    with h5py.File(inputs[f"{sample}_filtered_feature_bc_matrix.h5"]) as file:
        barcodes = file["matrix/barcodes"].asstr()[:]
    found = known.reindex(barcodes)
    if found.isna().all():
        raise UserError(f"No spot of the slice {sample} has a layer in {path}; remove that file and try again.")
    found.rename("layer_guess").to_csv(target, sep="\t", index_label="barcode")


CONVERSIONS: dict[str, Callable[..., None]] = {"baron": baron, "zeisel": zeisel, "layers": layers}


def _write(
    counts: sparse.csr_matrix, cells: pd.Index, genes: pd.Index, labels: Mapping[str, Any], target: Path
) -> None:
    """labels: a text per cell, under each of their names."""
    obs = pd.DataFrame({name: np.asarray(values, dtype=object) for name, values in labels.items()}, index=cells)
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(target, compression="gzip")


if __name__ == "__main__":
    sys.exit(run_script(main))
