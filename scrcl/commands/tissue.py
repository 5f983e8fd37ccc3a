"""The command that finds spatial domains: `python runST.py`, `scrcl tissue`."""

from __future__ import annotations

from collections.abc import Sequence

from scrcl import plot, readers
from scrcl.commands import files
from scrcl.commands.flags import parse
from scrcl.commands.script import loading
from scrcl.readers import formats
from scrcl.recipes import TissueSettings

USAGE = """Find spatial domains in tissue.

{prog} --demo                             # a small simulated tissue
{prog} --dataset 151673                   # datasets/stdata/DLPFC/151673, a Visium folder
{prog} path/to/outs                       # a folder of Visium, Xenium, CosMx, ...; annotation is not needed
{prog} my_spots.h5ad                      # obsm['spatial'], or x and y in obs
{prog} --dataset 151673 --config paper    # the published settings"""


def main(argv: Sequence[str], prog: str) -> None:
    """Read the flags, find the data, and run."""
    words = {"formats": formats.in_words(), "drawings": ", ".join(plot.names("ST"))}
    demo = "run on a small simulated tissue; needs no data"
    settings = parse(TissueSettings, argv, prog, USAGE.format(prog=prog), words, demo=demo)
    if files.another_look(settings.dataset, settings.merge, settings.split):
        with loading():
            from scrcl.commands import again

        again.run(settings)
        return
    source = readers.source(settings.dataset, "ST", settings.annotation)
    with loading():  # loads torch and scanpy, which wrong flags and missing files need not wait for
        from scrcl.commands.run import run

    run(settings, source)
