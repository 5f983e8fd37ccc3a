"""Fetch published data sets, to where the other commands look for them.

{prog} --list                    # which there are
{prog} Baron_human1              # single cells, to datasets/scdata
{prog} 151673 151674             # tissue, to datasets/stdata
{prog} Zeisel --folder /data     # to /data/scdata

What is there and whole is not fetched again. An interrupted download goes on where it stopped. Partial downloads
and archives are kept in downloads/, which may be removed at any time. By checksums.json it is known later whether
a file has changed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from scrcl.commands.flags import Parser
from scrcl.disk import home
from scrcl.disk.interrupts import Terminated
from scrcl.messages import UserError, did_you_mean, format_table, log
from scrcl.published import download, registry
from scrcl.published.download import Changed, Refused, Unwritable
from scrcl.published.registry import Checksums, DataSet, Remote

DOWNLOADS = "downloads"  # in the folder: partial downloads, archives, tables that several sets are made from


def main(argv: Sequence[str], prog: str) -> None:
    """Fetch the data sets that a command line names, or list all of them."""
    parser = Parser(prog, (__doc__ or "").format(prog=prog))
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets to fetch")
    parser.add_argument("--list", action="store_true", help="show all data sets, and which are there")
    parser.add_argument(
        "--checksums", action="store_true", help="with --list: read all files, to see whether any has changed"
    )
    parser.add_argument(
        "--folder", type=Path, default=home.datasets(), help="holds scdata/ and stdata/ (default: %(default)s)"
    )
    flags = parser.parse(argv)
    if flags.list:
        print(listing(flags.folder, flags.checksums))
        return
    if flags.checksums:
        raise UserError("--checksums belongs to --list; fetching a data set that is there checks it anyway.")
    if not flags.names:
        raise UserError("No data set was named; --list shows which there are.")
    for name in flags.names:
        if name not in registry.known():
            near = did_you_mean(name, registry.known(), n=3)
            raise UserError(f"There is no data set {name!r} to fetch{near}; --list shows all of them.")
    try:
        print(fetch_all(list(dict.fromkeys(flags.names)), flags.folder))
    except (KeyboardInterrupt, Terminated):
        log.info("\nWhat has come is kept in %s; the same command goes on from there.", flags.folder / DOWNLOADS)
        raise


def listing(folder: Path, checksums: bool) -> str:
    """A table of all data sets.

    Parameters
    ----------
    folder
        The folder of all data sets.
    checksums
        Read those that are there from end to end.
    """
    rows = [
        [name, entry.task, _way(entry), entry.origin, entry.verified or "no", registry.status(name, folder, checksums)]
        for name, entry in registry.registry().items()
    ]
    return format_table(["data set", "task", "how", "from", "addresses verified", f"in {folder}"], rows)


def _way(data_set: DataSet) -> str:
    download_too = "download, annotation by hand" if data_set.note else "download"
    return download_too if data_set.files else "by hand"


def fetch_all(names: Sequence[str], folder: Path) -> str:
    """Fetch data sets. One that fails does not keep the others from being fetched.

    Returns
    -------
    A table of what became of each.

    Raises
    ------
    UserError
        At the end if one has failed, and at once where nothing can be written.
    """
    rows, failed = [], []
    for name in names:
        data_set = registry.registry()[name]
        try:
            outcome = "fetched" if fetch(data_set, folder) else "there already"
        except UserError as error:
            if len(names) == 1 or isinstance(error, Unwritable):
                raise
            log.error("%s: %s", name, error)
            failed.append(name)
            continue
        rows.append([name, outcome, str(data_set.folder(folder) / data_set.required()[-1])])
        if to_do := data_set.to_do(folder):
            log.warning("%s: %s.", name, to_do)
    table = format_table(["data set", "outcome", "where"], rows)
    if failed:
        if rows:
            print(table)
        raise UserError(f"{len(failed)} of {len(names)} data sets are not there: {', '.join(failed)}; see above why.")
    return table


def fetch(data_set: DataSet, folder: Path) -> bool:
    """Put the files of a data set in place, as far as they are not there; False where all are.

    Raises
    ------
    UserError
        Where that cannot be done, saying how to do it by hand.
    """
    if not _lacking(data_set, folder):
        return False
    if not data_set.files:
        raise UserError(f"{data_set.name} can only be downloaded by hand: {data_set.by_hand(folder)}.")
    with download.sentence_on_failure(folder), _alone(folder / DOWNLOADS):
        lacking = _lacking(data_set, folder)  # another process may have fetched them meanwhile
        for file, fault in lacking.items():
            if fault:
                path = data_set.folder(folder) / file
                log.warning("%s %s; it will be kept as %s.changed.", path, fault, path.name)
        try:
            _put_in_place(data_set, folder, lacking)
        except UserError as error:
            raise UserError(f"{error} By hand: {data_set.by_hand(folder)}.") from error
    return True


def _lacking(data_set: DataSet, folder: Path) -> dict[str, str]:
    """The files that are not there, or not as they should be, and what is wrong with the latter."""
    record, where = Checksums(folder), data_set.folder(folder)
    lacking = {}
    for file in data_set.products():
        fault = record.fault(where / file, checksums=True) if (where / file).exists() else ""
        if fault is not None:
            lacking[file] = fault
    return lacking


@contextmanager
def _alone(downloads: Path) -> Iterator[None]:
    """Make the folder of downloads, keep it for this process, and remove what a killed one left."""
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(downloads / ".lock", timeout=0):
            for left_over in list(downloads.rglob("tmp????????")):  # tempfile's names
                if left_over.is_dir():
                    shutil.rmtree(left_over)
                else:
                    left_over.unlink(missing_ok=True)
            yield
    except filelock.Timeout:
        raise UserError(
            f"Another process is fetching to {downloads.parent}; wait for its end, or choose another --folder."
        ) from None


def _put_in_place(data_set: DataSet, folder: Path, lacking: Mapping[str, str]) -> None:
    """Download what the lacking files need, make what is to be made, and only then move them, one by one."""
    record, where = Checksums(folder), data_set.folder(folder)
    make_needed = data_set.makes in lacking
    with tempfile.TemporaryDirectory(dir=folder / DOWNLOADS) as scratch:
        inputs: dict[str, Path] = {}
        moves: dict[str, Path] = {}
        for remote in data_set.files:
            places = {name: to for name, to in remote.places().items() if to is not None}
            if lacking.keys() & places.values() or (not places and make_needed):
                found = _obtain(remote, folder, record, Path(scratch))
            else:
                found = {name: where / to for name, to in places.items()}
            inputs |= {Path(name).name: path for name, path in found.items()}
            moves |= {to: found[name] for name, to in places.items() if to in lacking and name in found}
        if make_needed:
            from scrcl.published import conversions

            made = Path(scratch, "made")
            conversions.make(data_set, inputs, made)
            moves = {data_set.makes: made} | moves  # the last file in place makes the set readable
        for to, path in moves.items():
            download.install(path, where / to)
            record.add_file(where / to)


def _obtain(remote: Remote, folder: Path, record: Checksums, scratch: Path) -> dict[str, Path]:
    """What comes of a remote file, by its names in `places`; nothing if it is optional and refused."""
    before = record.of_address(remote.url)
    try:
        path = download.download(remote.url, folder / DOWNLOADS, remote.sha256 or before)
        _require_sound(path, remote.url)
    except Changed as error:
        if remote.sha256:
            raise
        raise UserError(
            f"{error} That is the sha256 of the first download; if you trust the new file, remove the line with "
            f"its address from {record.path}."
        ) from error
    except Refused as error:
        if not remote.optional:
            raise
        log.warning("%s The set can be used without it.", error)
        return {}
    if remote.unpack:
        found = download.unpack(path, list(remote.unpack), scratch)
    else:
        found = {name: path for name in remote.places()}
    for name, member in found.items():
        _require_sound(member, f"{name} in {remote.url}")
    if not (remote.sha256 or before):
        record.add_address(remote.url, path)
    return found


def _require_sound(path: Path, address: str) -> None:
    """Raise Refused, and remove the file, where a server gave something else, such as a page that says sorry."""
    fault = registry.fault(path)
    if fault:
        path.unlink(missing_ok=True)
        raise Refused(f"What comes from {address} {fault}; the address may have changed, or ask for a login.")
