"""Find out whether an HDF5 file can be read at all, in a process that may crash.

On some damaged files the HDF5 library crashes, or never comes to an end, and takes Python with it. So a child process
first reads what a file says about itself, and its texts. That is quick whatever the size of the file, and it is where
the crashes happen. The values are left to the caller, since HDF5 reports damage in them.

python hdf5.py FILE SECONDS     # exits with 0 or 3, unless it crashes or is killed after SECONDS of computing
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import h5py

SECONDS = 20  # limit on computing time, which a slow disk does not use up
REPORTED = 3  # exit code when HDF5 reports damage
FILTERS = {307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32015: "zstd", 32026: "blosc2"}
PATIENCE = 1800  # seconds of wall-clock time, for systems that cannot limit computing time


def damage(path: Path) -> str | None:
    """Say how reading an HDF5 file ends badly, for people to read.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    A phrase; None for a file that can be read, or whose damage HDF5 itself reports.
    """
    state = path.stat()
    return _damage(path, state.st_size, state.st_mtime_ns)


def names(path: Path) -> frozenset[str]:
    """Return the names at the top of an HDF5 file, by which formats are told; none for any other or damaged file."""
    if not path.is_file() or not h5py.is_hdf5(path) or damage(path):
        return frozenset()
    try:
        with h5py.File(path) as file:
            # h5py gives a name that is no UTF-8 as bytes
            return frozenset(name if isinstance(name, str) else name.decode(errors="replace") for name in file)
    except Exception:  # h5py raises many types for damaged files
        return frozenset()


def missing_filters(item: h5py.Group | h5py.Dataset) -> list[str]:
    """Return the names of the compressions in a group or data set that this h5py cannot undo."""
    found: dict[str, None] = {}

    def look(name: str, part: h5py.Group | h5py.Dataset) -> None:
        if isinstance(part, h5py.Dataset):
            how = part.id.get_create_plist()
            ids = [how.get_filter(i)[0] for i in range(how.get_nfilters())]
            found.update({FILTERS.get(one, f"filter {one}"): None for one in ids if not h5py.h5z.filter_avail(one)})

    look("", item)
    if isinstance(item, h5py.Group):
        item.visititems(look)
    return list(found)


@lru_cache(maxsize=16)
def _damage(path: Path, size: int, changed: int) -> str | None:
    """Return `damage` of a file of this size and time of change."""
    command = [sys.executable or "", "-P", __file__, str(path), str(SECONDS)]
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE).returncode
    except subprocess.TimeoutExpired:
        code = -signal.SIGTERM
    except OSError:  # Python runs inside another program, such as R, and cannot be started on its own
        code = 1
    if code in (0, REPORTED):
        return None
    if code == 1:  # Python itself failed, which says nothing about the file
        logging.getLogger("scrcl").warning("Whether %s can be read without a crash could not be found out.", path)
        return None
    never = -code in (signal.SIGTERM, *(getattr(signal, name, None) for name in ("SIGXCPU", "SIGKILL")))
    return "reading it never comes to an end" if never else f"reading it crashes the HDF5 library, code {code}"


def read_all_but_values(path: str) -> None:
    """Visit every group and data set, and read their attributes and their texts of variable length."""

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        dict(item.attrs)
        if isinstance(item, h5py.Dataset) and h5py.check_vlen_dtype(item.dtype) is not None:
            item[()]

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)


def _limit(seconds: int) -> None:
    """Limit the computing time of this process, and let it write no core dump."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit(int(sys.argv[2]))
    try:
        read_all_but_values(sys.argv[1])
    except Exception:
        sys.exit(REPORTED)  # the caller will meet the same error and report it
