"""The command that finds cell types: `python runSC.py`, `scrcl cells`."""

from __future__ import annotations

from collections.abc import Sequence

from scrcl import plot, readers
from scrcl.commands import files
from scrcl.commands.flags import parse
from scrcl.commands.script import loading
from scrcl.readers import formats
from scrcl.recipes import CellSettings

STAYS_ON_DISK = 1e-9  # GiB, less than any values take
USAGE = """Find cell types in scRNA-seq data.

{prog}                                    # a small real set that comes with scanpy
{prog} my_cells.h5ad                      # labels are not needed
{prog} --dataset Zeisel                   # datasets/scdata/Zeisel.h5ad
{prog} --dataset Zeisel --config paper    # the published settings"""


def main(argv: Sequence[str], prog: str) -> None:
    """Read the flags, find the data, and run."""
    words = {"formats": formats.in_words(), "drawings": ", ".join(plot.names("SC"))}
    settings = parse(CellSettings, argv, prog, USAGE.format(prog=prog), words)
    if settings.map_onto == "none" and files.another_look(settings.dataset, settings.merge, settings.split):
        with loading():
            from scrcl.commands import again

        again.run(settings)
        return
    limit: float | None = settings.max_memory if settings.dask_scheduler == "none" else STAYS_ON_DISK
    if settings.map_onto != "none":
        limit = None  # new cells are read into memory
    source = readers.source(settings.dataset, "SC", max_memory=limit)
    if settings.map_onto != "none":
        with loading():
            from scrcl.commands import onto

        onto.run(settings, source)
        return
    with loading():  # loads torch and scanpy, which wrong flags and missing files need not wait for
        from scrcl.commands.run import run

    run(settings, source)
