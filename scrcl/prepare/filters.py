"""Leave out cells with few counts, few genes, or many mitochondrial counts, where a user asks for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scrcl.contents.kinds import ValueKind
from scrcl.messages import UserError, log

TOP = 30  # the cell of this rank shows how much a cell holds; the largest may be doublets
NEARLY_EMPTY = 0.01  # share of that cell's amount
USUAL = 0.1  # share of it from which droplets count as cells, as in Cell Ranger 2


class Filter(NamedTuple):
    """What a cell needs in order to be used.

    Attributes
    ----------
    min_counts, min_genes
        The least sum of its values, and the least number of genes with a value.
    max_mito
        The largest share of mitochondrial genes in its sum, in per cent.
    """

    min_counts: float = 0
    min_genes: int = 0
    max_mito: float = 100

    def keep(self, kind: ValueKind, totals: np.ndarray, n_genes: np.ndarray, mito: np.ndarray) -> np.ndarray:
        """Return which cells are used: those with any value that pass the filter. Log how many do not.

        Parameters
        ----------
        kind
            What the values are.
        totals, n_genes, mito
            [N], the sum of each cell's values, how many there are, and the sum of the mitochondrial ones; no logarithms
            unless `kind` says so.

        Raises
        ------
        UserError
            When a limit has no effect on values of this kind.
        """
        filled = n_genes > 0
        self._require_effect(kind, mito)
        if kind != "log-normalised" and not self.min_counts:
            warn_of_droplets(totals[filled])
        shares = 100 * np.divide(mito, totals, out=np.zeros(len(totals)), where=totals > 0)
        reasons = {
            "have no counts at all": ~filled,
            f"have fewer than {self.min_counts:g} counts": filled & (totals < self.min_counts),
            f"have fewer than {self.min_genes} genes": filled & (n_genes < self.min_genes),
            f"have more than {self.max_mito:g} % mitochondrial counts": filled & (shares > self.max_mito),
        }
        for reason, cells in reasons.items():
            if cells.any():
                log.info("%d of %d cells %s: left out, without a label.", cells.sum(), len(cells), reason)
        return ~np.any(list(reasons.values()), axis=0)

    def _require_effect(self, kind: ValueKind, mito: np.ndarray) -> None:
        """Raise UserError for limits that have no effect."""
        if kind == "log-normalised" and (self.min_counts or self.max_mito < 100):
            flag = "--min-counts" if self.min_counts else "--max-mito"
            raise UserError(f"{flag} needs counts, and the values are log-normalised; leave it out, or give counts.")
        if self.max_mito < 100 and not mito.any():
            raise UserError("--max-mito has no effect: no gene's name begins with MT- or mt-; leave it out.")


def warn_of_droplets(totals: np.ndarray) -> None:
    """Warn where most barcodes are nearly empty, as in a matrix that was not filtered for cells.

    Parameters
    ----------
    totals
        The sum of the values of every cell that has any.
    """
    if len(totals) < TOP:
        return
    rank = min(TOP, max(1, len(totals) // 20))
    full = float(np.partition(totals, -rank)[-rank])
    empty = int((totals < NEARLY_EMPTY * full).sum())
    if empty <= len(totals) / 2:
        return
    limit = float(f"{USUAL * full:.1g}")
    log.warning(
        "These look like unfiltered droplets: %d of %d barcodes hold under %.0f counts, where full ones hold %.0f. "
        "They make clusters of their own; --min-counts %.0f leaves them out.",
        empty,
        len(totals),
        NEARLY_EMPTY * full,
        full,
        limit,
    )
