"""Whether this machine is ready: versions, device, memory, what can be written, and which data sets are there.

{prog}               # exit code 2 where something is wrong that a run would stumble over
{prog} --checksums   # read every data set from end to end
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from scrcl.commands.flags import Parser
from scrcl.disk import home
from scrcl.messages import UserError, format_table, one_line, without_home
from scrcl.published import registry
from scrcl.version import VERSION

PROJECT = Path(__file__).parents[2] / "pyproject.toml"  # there in a checkout alone
LITTLE_MEMORY, LITTLE_DISK = 4.0, 1.0  # GiB free, below which large data will not fit


class Finding(NamedTuple):
    """What was looked at, what was found, and what is wrong with it ('' for nothing)."""

    what: str
    found: str
    wrong: str = ""


def main(argv: Sequence[str], prog: str) -> None:
    """Look at everything that a run needs, and print what was found."""
    parser = Parser(prog, (__doc__ or "").format(prog=prog))
    parser.add_argument("--checksums", action="store_true", help="read every data set from end to end")
    found = examine(parser.parse(argv).checksums)
    for title, findings in found.items():
        rows = [[f.what, f.found, f"<- {f.wrong}" if f.wrong else ""] for f in findings]
        print(format_table([title, "", ""], rows), end="\n\n")
    wrong = [finding.what for findings in found.values() for finding in findings if finding.wrong]
    if wrong:
        raise UserError(f"{len(wrong)} of these need attention: {', '.join(wrong)}.")
    print("Nothing is wrong.")


def examine(checksums: bool) -> dict[str, list[Finding]]:
    """All findings, under headings.

    Parameters
    ----------
    checksums
        Read the data sets from end to end.
    """
    return {
        "This machine": list(machine()),
        "Packages": list(packages()),
        "Folders": list(folders()),
        "Published data sets": list(data_sets(checksums)),
    }


def machine() -> Iterator[Finding]:
    """System, Python, device, threads, BLAS and memory."""
    import psutil
    import torch
    from threadpoolctl import threadpool_info

    yield Finding("scRCL", VERSION)
    old = sys.version_info < (3, 11)
    yield Finding("Python", f"{platform.python_version()}, {platform.platform()}", "3.11 is needed" if old else "")
    yield Finding("device", _device())
    yield Finding("CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    for pool in threadpool_info():
        library = f"{pool['internal_api']} {pool['version'] or ''}".strip()
        yield Finding(pool["user_api"], f"{library}, {pool['num_threads']} threads")
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    little = "little: close other programs" if free < LITTLE_MEMORY else ""
    yield Finding("memory", f"{free:.1f} of {memory.total / 2**30:.1f} GiB free", little)


def _device() -> str:
    import torch

    from scrcl.runtime import find_device

    device = find_device("auto")
    if device.type != "cuda":
        return "cpu (torch sees no CUDA card)"
    free, total = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def packages() -> Iterator[Finding]:
    """Whether the packages that this software needs are installed, of a version that it allows."""
    from packaging.requirements import Requirement

    advice = f"pip install {'-r requirements.txt' if PROJECT.exists() else '--upgrade scrcl'}"
    for line in _required():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue  # of an extra, or of another system
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(requirement.name, "not installed", advice)
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        yield Finding(requirement.name, installed, "" if fits else f"{requirement.specifier} is needed: {advice}")


def _required() -> list[str]:
    """What pyproject.toml requires in a checkout, and else what the installed package does."""
    if PROJECT.exists():
        return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    try:
        return metadata.requires("scrcl") or []
    except metadata.PackageNotFoundError:
        return ["scrcl"]  # a copy of its folder alone, which nothing tells the needs of


def folders() -> Iterator[Finding]:
    """Whether results, data and temporary files can be written, and how much fits."""
    for path in (home.results(), home.data_folder("SC"), home.data_folder("ST"), Path(tempfile.gettempdir())):
        path = path.absolute()
        what = without_home(str(path))
        nearest = next(place for place in (path, *path.parents) if place.exists())
        try:
            with tempfile.TemporaryFile(dir=nearest) as file:
                file.write(b"x")
                file.flush()
            free = shutil.disk_usage(nearest).free / 2**30
            state = "writable" if nearest == path else "not there yet, can be made"
            yield Finding(what, f"{state}, {free:.1f} GiB free", "little space" if free < LITTLE_DISK else "")
        except OSError as error:
            yield Finding(what, "not writable", error.strerror or without_home(one_line(error)))


def data_sets(checksums: bool) -> Iterator[Finding]:
    """Which published data sets are there and whole.

    Parameters
    ----------
    checksums
        Read them from end to end.
    """
    for name, task in registry.known().items():
        status = registry.status(name, home.datasets(), checksums)
        yield Finding(f"{task} {name}", status, f"{registry.command(name)} replaces it" if status == "damaged" else "")
