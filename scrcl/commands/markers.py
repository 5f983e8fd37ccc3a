"""The command that goes from labels to biology: `python draw_DEGs.py`, `scrcl markers`."""

from __future__ import annotations

from collections.abc import Sequence

from scrcl import plot
from scrcl.commands.flags import parse
from scrcl.commands.script import loading
from scrcl.genes.settings import MarkerSettings

USAGE = """Rank the marker genes of clusters, draw them, and write a report.

{prog}                                              # the latest finished run on cells
{prog} --task ST                                    # the latest finished run on tissue
{prog} --dataset Zeisel                             # the run of that name
{prog} --dataset my_cells.h5ad --labels leiden      # any data set by an obs column
{prog} --dataset my_cells.h5ad --labels mine.csv    # or by a table with barcodes
{prog} --marker-genes builtin                       # name clusters by common types; or a csv of your own"""


def main(argv: Sequence[str], prog: str) -> None:
    """Read the flags, and rank."""
    words = {"drawings": ", ".join(plot.GENE_FIGURES)}
    settings = parse(MarkerSettings, argv, prog, USAGE.format(prog=prog), words)
    with loading():  # loads scanpy, which wrong flags need not wait for
        from scrcl.commands.ranking import run

    run(settings)
