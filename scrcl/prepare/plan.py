"""How many cells at a time, so that training fits into the memory it may take. A function of sizes alone: the same data, the same plan."""

from __future__ import annotations

from typing import NamedTuple

from scrcl.messages import UserError

ALL_AT_ONCE_UP_TO = (
    1.75  # GiB of a step, without --max-memory: 50,000 cells of 2,000 genes. Beyond, blocks are faster as well
)
BLOCKS = (4096, 2048, 1024, 512, 256, 128)
FIXED = 1.0  # GiB of Python and its libraries
# Measured at H = 256: how many arrays [cells, H] a step holds at its peak, all cells at once and in blocks
ARRAYS, ARRAYS_IN_BLOCKS = 19, 11.5
ARRAYS_REFINED = (
    6  # arrays [cells, K'] beside them: Z1 and Z2 or their gradients, the gene encoder's weights and Adam's moments
)
USUAL_WIDTH = 20  # K' where it is the number of clusters, which is not known yet
ARRAYS_OF_A_BLOCK = 30  # what a block makes, at most
BYTES_PER_EDGE = 24  # of A + I and of A_hat, 32-bit indices, and of A
COPIES = 3  # of the stored values: log-normalised, counts and scaled


class Plan(NamedTuple):
    """block: cells at a time, 0 for all with dense values; gib: memory that the run is expected to take."""

    block: int
    gib: float

    def in_words(self) -> str:
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
    """All cells at once where that fits, else the largest block that does.

    n_stored: values other than 0 of [n_cells, n_genes]; refined_width: K', 0 for the number of clusters; max_memory: GiB, 0 for no limit.
    Raises UserError where even the smallest block needs more.
    """
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
        f"--max-memory {max_memory:g} is too little: {n_cells} cells x {n_genes} genes at --hidden {hidden} need about {found.gib:.1f} GiB."
    )
