"""Choose how many cells training takes at a time, so that it fits into the memory it may use.

The plan depends on sizes alone, and on the memory of the card if there is one, so the same data always give the same
plan on a machine.
"""

from __future__ import annotations

from typing import NamedTuple

from scrcl.messages import UserError

# GiB of a training step without --max-memory, as for 50,000 cells of 2,000 genes. Beyond that, blocks are also faster.
ALL_AT_ONCE_UP_TO = 1.75
BLOCKS = (4096, 2048, 1024, 512, 256, 128)
CARD_BLOCKS = (2**18, 2**16, 2**14)  # a card waits for the host in smaller ones
CARD_SHARE = 0.8  # of a card's memory; the rest is for its libraries, and for what the plan cannot foresee
FIXED = 1.0  # GiB of Python and its libraries
# Measured at H = 256: how many arrays [cells, H] a step holds at its peak, with all cells at once and in blocks.
ARRAYS, ARRAYS_IN_BLOCKS = 19, 11.5
# Further arrays [cells, K']: Z1 and Z2 or their gradients, the gene encoder's weights and Adam's moments.
ARRAYS_REFINED = 6
USUAL_WIDTH = 20  # guess for K' when it will be the number of clusters, which is not known yet
ARRAYS_OF_A_BLOCK = 30  # most arrays [block, H] that one block needs
BYTES_PER_EDGE = 24  # for A + I and A_hat, with 32-bit indices, and for A
COPIES = 3  # of all stored values: as read, counts and log-normalised; or, read from disk, the last two and scaled


class Plan(NamedTuple):
    """How many cells training works on at a time, and the memory this needs.

    Attributes
    ----------
    block
        Cells at a time, with sparse values; 0 for all cells at once.
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
    card_memory: float = 0.0,
) -> Plan:
    """Return a plan that takes all cells at once if that fits, else the largest block that does.

    On a card, a block may hold all cells: then their values are sparse in the memory of the host, and are made dense on
    the card once.

    Parameters
    ----------
    n_cells, n_genes
        N and G.
    n_stored
        How many values of all genes are stored in memory.
    n_neighbors
        Neighbours per cell in the cell graph.
    hidden, refined_width
        H and K' of the network; 0 for K' means the number of clusters.
    max_memory
        GiB; 0 for no limit.
    card_memory
        GiB of the card that trains, or of all cards that do; 0 for a CPU.

    Raises
    ------
    UserError
        When even the smallest block needs more than max_memory, or than the card has.
    """
    limit = min([gib for gib in (max_memory, CARD_SHARE * card_memory) if gib], default=0.0)
    blocks = [block for block in (n_cells, *CARD_BLOCKS) if BLOCKS[0] < block <= n_cells] if card_memory else []
    # A symmetric graph has one to two times n_neighbors edges per cell; 1.5 times is assumed.
    kept = FIXED * 2**30 + 8.0 * COPIES * n_stored + BYTES_PER_EDGE * 1.5 * n_neighbors * n_cells
    refined = ARRAYS_REFINED * (refined_width or USUAL_WIDTH)
    at_once = 4.0 * n_cells * (2 * n_genes + ARRAYS * hidden + refined)
    if (at_once <= ALL_AT_ONCE_UP_TO * 2**30) if max_memory == 0 else (kept + at_once <= limit * 2**30):
        return Plan(0, (kept + at_once) / 2**30)
    for block in (*blocks, *BLOCKS):
        of_cells = ARRAYS if block == n_cells else ARRAYS_IN_BLOCKS
        of_block = 0 if block == n_cells else ARRAYS_OF_A_BLOCK
        arrays = 4.0 * (n_cells * (of_cells * hidden + refined) + block * (n_genes + of_block * hidden))
        found = Plan(block, (kept + arrays) / 2**30)
        if limit == 0 or found.gib <= limit:
            return found
    if limit == max_memory:
        what, remedy = f"--max-memory {max_memory:g} is", ""
    else:
        what, remedy = f"The card's memory of {card_memory:.0f} GiB is", "; use --device cpu"
    raise UserError(
        f"{what} too little: {n_cells} cells x {n_genes} genes at --hidden {hidden} "
        f"need about {found.gib:.1f} GiB{remedy}."
    )
