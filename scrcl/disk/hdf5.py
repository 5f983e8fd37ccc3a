"""Whether an HDF5 file can be read at all, found out in a process that may crash.

The HDF5 library crashes, or never comes to an end, on some damaged files, and takes Python with it. So a child first
reads what a file says about itself, and its texts: what is quick to read whatever the size, and where that happens. Values are left to the
caller, whom HDF5 tells about damage in them.

python hdf5.py FILE     # ends with 0 unless it crashes; in 20 s of computing, or is killed
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import h5py

SECONDS = 20  # of computing; a slow disk does not count
REPORTED = 3  # exit code where HDF5 reports damage
PATIENCE = 1800  # seconds on the clock, where the system cannot limit computing


def damage(path: Path) -> str | None:
    """In words, how reading the HDF5 file at path ends badly; None for one that can be read, or whose damage HDF5 reports."""
    command = [sys.executable or "", "-P", __file__, str(path), str(SECONDS)]
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE).returncode
    except subprocess.TimeoutExpired:
        code = -signal.SIGTERM
    except OSError:  # Python is inside another program, as in R, and cannot be started by itself
        code = 1
    if code in (0, REPORTED):
        return None
    if code == 1:  # Python itself
        logging.getLogger("scrcl").warning("Whether %s can be read without a crash could not be found out.", path)
        return None
    never = -code in (signal.SIGTERM, *(getattr(signal, name, None) for name in ("SIGXCPU", "SIGKILL")))
    return "reading it never comes to an end" if never else f"reading it crashes the HDF5 library, code {code}"


def read_all_but_values(path: str) -> None:
    """Visit every group and data set, and read attributes and texts of variable length."""

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        dict(item.attrs)
        if isinstance(item, h5py.Dataset) and h5py.check_vlen_dtype(item.dtype) is not None:
            item[()]

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)


def _limit(seconds: int) -> None:
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
        sys.exit(REPORTED)  # the caller will meet the same error and say it
