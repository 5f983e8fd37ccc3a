"""Choose how many cells training takes at a time, so that it fits into the memory it may use.

The plan depends on sizes alone, so the same data always give the same plan.
"""

from __future__ import annotations

from typing import NamedTuple

from scrcl.messages import UserError

# GiB of a training step without --max-memory, as for 50,000 cells of 2,000 genes. Beyond that, blocks are also faster.
ALL_AT_ONCE_UP_TO = 1.75
BLOCKS = (4096, 2048, 1024, 512, 256, 128)
FIXED = 1.0  # GiB of Python and its libraries
# Measured at H = 256: how many arrays [cells, H] a step holds at its peak, with all cells at once and in blocks.
ARRAYS, ARRAYS_IN_BLOCKS = 19, 11.5
# Further arrays [cells, K']: Z1 and Z2 or their gradients, the gene encoder's weights and Adam's moments.
ARRAYS_REFINED = 6
USUAL_WIDTH = 20  # guess for K' when it will be the number of clusters, which is not known yet
ARRAYS_OF_A_BLOCK = 30  # most arrays [block, H] that one block needs
BYTES_PER_EDGE = 24  # for A + I and A_hat, with 32-bit indices, and for A
COPIES = 3  # of the stored values: log-normalised, counts and scaled


class Plan(NamedTuple):
    """How many cells training works on at a time, and the memory this needs.

    Attributes
    ----------
    block
        Cells at a time; 0 for all cells with dense values.
    gib
        Memory that the run is expected to take, in GiB.
    """

    block: int
    gib: float

    def in_words(self) -> str:
        """Return the plan as a phrase, for people to read."""
        how = f"{self.block} cells at a time, values kept sparse" if self.block else "all cells at once"
        return f"{how}; about {self.gib:.1f} GiB of memory"


def plan(
    n_cells: int,
    n_genes: int,
    n_stored: int,
    n_neighbors: int,
    hidden: int,
    refined_width: int = 0,
    max_memory: float = 0.0,
) -> Plan:
    """Return a plan that takes all cells at once if that fits, else the largest block that does.

    Parameters
    ----------
    n_cells, n_genes
        N and G.
    n_stored
        How many of the [N, G] values are not 0.
    n_neighbors
        Neighbours per cell in the cell graph.
    hidden, refined_width
        H and K' of the network; 0 for K' means the number of clusters.
    max_memory
        GiB; 0 for no limit.

    Raises
    ------
    UserError
        When even the smallest block needs more than max_memory.
    """
    # A symmetric graph has one to two times n_neighbors edges per cell; 1.5 times is assumed.
    kept = FIXED * 2**30 + 8.0 * COPIES * n_stored + BYTES_PER_EDGE * 1.5 * n_neighbors * n_cells
    refined = ARRAYS_REFINED * (refined_width or USUAL_WIDTH)
    at_once = 4.0 * n_cells * (2 * n_genes + ARRAYS * hidden + refined)
    if (at_once <= ALL_AT_ONCE_UP_TO * 2**30) if max_memory == 0 else (kept + at_once <= max_memory * 2**30):
        return Plan(0, (kept + at_once) / 2**30)
    for block in BLOCKS:
        in_blocks = 4.0 * (
            n_cells * (ARRAYS_IN_BLOCKS * hidden + refined) + block * (n_genes + ARRAYS_OF_A_BLOCK * hidden)
        )
        found = Plan(block, (kept + in_blocks) / 2**30)
        if max_memory == 0 or found.gib <= max_memory:
            return found
    raise UserError(
        f"--max-memory {max_memory:g} is too little: {n_cells} cells x {n_genes} genes at --hidden {hidden} "
        f"need about {found.gib:.1f} GiB."
    )
