"""Whether this machine and folder are ready: versions, device, memory, what can be written, and which data sets are there.

python doctor.py               # exit code 2 where something is wrong that a run would stumble over
python doctor.py --checksums   # read every data set from end to end
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from packaging.requirements import Requirement
from threadpoolctl import threadpool_info

import results
import sources
from config import Parser
from utils import VERSION, UserError, find_device, format_table, one_line, run_script

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
LITTLE_MEMORY, LITTLE_DISK = 4.0, 1.0  # GiB free, below which large data will not fit


class Finding(NamedTuple):
    """What was looked at, what was found, and what is wrong with it ('' for nothing)."""

    what: str
    found: str
    wrong: str = ""


def requirements(path: Path = REQUIREMENTS) -> Iterator[Finding]:
    """The packages of requirements.txt: installed, and of a version that it allows."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "not installed", "pip install -r requirements.txt")
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        yield Finding(
            requirement.name,
            installed,
            "" if fits else f"{requirement.specifier} is needed: pip install -r requirements.txt",
        )


def machine() -> Iterator[Finding]:
    """System, Python, device, threads, BLAS, memory."""
    yield Finding("scRCL", VERSION)
    old = sys.version_info < (3, 11)
    yield Finding("Python", f"{platform.python_version()}, {platform.platform()}", "3.11 is needed" if old else "")
    yield Finding("device", _device())
    yield Finding("CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    for pool in threadpool_info():
        yield Finding(
            pool["user_api"], f"{pool['internal_api']} {pool['version'] or ''}, {pool['num_threads']} threads"
        )
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    yield Finding(
        "memory",
        f"{free:.1f} of {memory.total / 2**30:.1f} GiB free",
        "little: close other programs" if free < LITTLE_MEMORY else "",
    )


def _device() -> str:
    device = find_device("auto")
    if device.type != "cuda":
        return "cpu (torch sees no CUDA card)"
    free, total = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def folders() -> Iterator[Finding]:
    """Whether results, data and temporary files can be written, and how much fits."""
    for path in (results.RESULTS, sources.FOLDER / "scdata", sources.FOLDER / "stdata", Path(tempfile.gettempdir())):
        try:
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"x")
                file.flush()
            free = shutil.disk_usage(path).free / 2**30
            yield Finding(str(path), f"writable, {free:.1f} GiB free", "little space" if free < LITTLE_DISK else "")
        except OSError as error:
            yield Finding(str(path), "not writable", error.strerror or one_line(error))


def data_sets(checksums: bool) -> Iterator[Finding]:
    """Which published data sets are there and whole. checksums: by reading them from end to end."""
    for name, task in sources.known().items():
        status = sources.status(name, sources.FOLDER, checksums)
        advice = {"damaged": f"{sources.command(name)} replaces it"}
        yield Finding(f"{task} {name}", status, advice.get(status, ""))


def examine(checksums: bool) -> dict[str, list[Finding]]:
    """All findings, under headings."""
    return {
        "This machine": list(machine()),
        "Packages of requirements.txt": list(requirements()),
        "Folders": list(folders()),
        "Published data sets": list(data_sets(checksums)),
    }


def main() -> None:
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checksums", action="store_true", help="read every data set from end to end")
    found = examine(parser.parse_args().checksums)
    for title, findings in found.items():
        print(
            format_table([title, "", ""], [[f.what, f.found, f"<- {f.wrong}" if f.wrong else ""] for f in findings]),
            end="\n\n",
        )
    wrong = [finding.what for findings in found.values() for finding in findings if finding.wrong]
    if wrong:
        raise UserError(f"{len(wrong)} of these need attention: {', '.join(wrong)}.")
    print("Nothing is wrong.")


if __name__ == "__main__":
    sys.exit(run_script(main))
