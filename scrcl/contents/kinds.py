"""Tell what expression values are, from the values alone: counts, logarithms, other amounts, or something unusable."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

ValueKind = Literal[
    "counts", "log1p of counts", "fractional amounts", "log-normalised", "scaled", "not finite", "empty"
]
NATURAL = float(np.e)
BASES = (NATURAL, 2.0, 10.0)  # of logarithms
LARGEST_LOG = 25  # log2 of a million is 20
# exp(14): beyond it, float32 no longer tells one whole number from the next
LARGEST_EXPONENT = 14
SAMPLE = 2000  # cells looked at closely
FEWEST_VALUES = 5  # of a cell whose ratios are looked at
LARGEST_RATIO = 50
SAME_SUM = 0.05  # sd of the logarithms of the cells' sums, up to which they are taken for equal
CLEARLY_LESS = 3  # the factor by which sums must differ less with one base than with the others
THREEFOLD = float(np.log(3))
FEW_COUNTS = 2  # the most that amounts of single counts typically are


class Kind(NamedTuple):
    """What values are.

    Attributes
    ----------
    name
        In words.
    base
        Of logarithms, the base; None where it cannot be told.
    """

    name: ValueKind
    base: float | None = None


def value_kind(matrix: sparse.csr_matrix) -> ValueKind:
    """Return in words what the values are, see `Evidence`.

    Parameters
    ----------
    matrix
        [N, G] float32, without explicit zeros.
    """
    evidence = Evidence(matrix.shape[0])
    evidence.add(matrix)
    return evidence.kind().name


class Evidence:
    """Collect what tells the kind of values, block by block; the order and size of blocks make no difference.

    Negative values mean scaling. Whole numbers are counts. Fractions above 25 are amounts: TPM, RPKM, counts corrected
    for ambient RNA. Smaller fractions are amounts or logarithms, which is told by what cells would look like if the
    logarithms were undone. These are signs of logarithms, in this order:

    - all values become whole numbers: log1p of counts;
    - in most cells, all values become multiples of the smallest one, as counts divided by one number per cell are;
    - all cells have the same sum, as after normalisation.

    Without these signs, as for a selection of genes from TPM, normalised cells would still differ little in their sums,
    and have less of each gene the more genes they have. Amounts that were not normalised are the other way round; and
    where none is above 25, most of them are about one count.

    Parameters
    ----------
    n_cells
        N, the number of cells in all blocks.
    """

    def __init__(self, n_cells: int) -> None:
        self._sample = np.unique(np.linspace(0, max(n_cells - 1, 0), min(n_cells, SAMPLE)).astype(np.int64))
        self._cells: list[np.ndarray] = []  # one row per cell of the sample, see _look_at
        self._finite = self._whole = True
        self._empty, self._negative = True, False
        self._largest = 0.0
        self._whole_without_log = dict.fromkeys(BASES, True)

    def add(self, matrix: sparse.csr_matrix, start: int = 0) -> None:
        """Look at one block.

        Parameters
        ----------
        matrix
            [block, G] float32, without explicit zeros.
        start
            The number of its first cell.
        """
        values = matrix.data
        if values.size == 0:
            return
        self._empty = False
        self._finite &= bool(np.isfinite(values).all())
        if not self._finite:
            return
        self._negative |= bool((values < 0).any())
        self._whole &= bool((values == np.rint(values)).all())
        self._largest = max(self._largest, float(values.max()))
        if self._negative or self._largest > LARGEST_LOG:
            return
        for base in BASES:  # the first values usually tell, which saves the logarithms of all others
            self._whole_without_log[base] &= _are_whole(undone(values[:SAMPLE], base))
            if self._whole_without_log[base]:
                self._whole_without_log[base] = _are_whole(undone(values, base))
        for cell in self._sample[(self._sample >= start) & (self._sample < start + matrix.shape[0])] - start:
            own = values[matrix.indptr[cell] : matrix.indptr[cell + 1]].astype(np.float64)
            if own.size:
                self._cells.append(_look_at(own))

    def join(self, later: Evidence) -> None:
        """Add what was found in blocks that come later."""
        self._cells += later._cells
        self._finite &= later._finite
        self._whole &= later._whole
        self._empty &= later._empty
        self._negative |= later._negative
        self._largest = max(self._largest, later._largest)
        for base in BASES:
            self._whole_without_log[base] &= later._whole_without_log[base]

    def still_possible(self) -> tuple[float | None, ...]:
        """Return None, for values as they are, and the bases whose logarithms of counts all values so far may be."""
        tried = not self._negative and self._largest <= LARGEST_LOG and self._finite
        return (None, *(base for base, whole in self._whole_without_log.items() if whole and tried))

    def kind(self) -> Kind:
        """Return what the values of all blocks are."""
        if self._empty:
            return Kind("empty")
        if not self._finite:
            return Kind("not finite")
        if self._negative:
            return Kind("scaled")
        if self._whole:
            return Kind("counts")
        if self._largest > LARGEST_LOG:
            return Kind("fractional amounts")
        base = next((base for base, whole in self._whole_without_log.items() if whole), None)
        if base is not None:
            return Kind("log1p of counts", base)
        return self._amounts_or_logarithms()

    def _amounts_or_logarithms(self) -> Kind:
        """Tell fractions up to 25."""
        cells = np.array(self._cells)
        n_genes, sums, typical = cells[:, :3].T
        undone_sums, multiples = cells[:, 3:6], cells[:, 6:]
        shares = np.nan_to_num([_mean(multiples[:, i]) for i in range(len(BASES))])
        if shares.max() > 0.5:
            return Kind("log-normalised", BASES[int(shares.argmax())])
        spread, *spreads = np.log(np.column_stack([sums, undone_sums])).std(axis=0)
        least, second, _ = sorted(spreads)
        if least < min(SAME_SUM, spread, second / CLEARLY_LESS):
            return Kind("log-normalised", BASES[int(np.argmin(spreads))])
        if spread < 1e-3 and len(cells) > 1:  # shares of a cell
            return Kind("fractional amounts")
        few_counts = np.median(typical) <= FEW_COUNTS
        more_with_more_genes = _correlation(n_genes, sums / n_genes) > 0
        amounts = few_counts and (more_with_more_genes or spreads[0] > THREEFOLD)
        return Kind("fractional amounts" if amounts else "log-normalised")


def undone(logarithms: np.ndarray, base: float) -> np.ndarray:
    """Return base^x - 1 in float64, for exponents up to the precision of float32."""
    return np.expm1(np.minimum(logarithms.astype(np.float64) * np.log(base), LARGEST_EXPONENT))


def counts_of(logarithms: np.ndarray, base: float = NATURAL) -> np.ndarray:
    """Return the counts whose log1p is given."""
    return np.rint(np.expm1(logarithms * np.log(base)))


def _are_whole(values: np.ndarray) -> bool:
    """Return whether all values are whole numbers, but for the error that logarithms in float32 leave."""
    # The error of float32 logarithms grows with the count they stand for.
    return bool((np.abs(values - np.rint(values)) <= np.minimum(1e-5 * values + 1e-5, 0.1)).all())


def _look_at(values: np.ndarray) -> np.ndarray:
    """Return what one cell's values tell.

    They are the number of values, their sum and median, and for every base their sum without the logarithm and whether
    all are multiples of the smallest without it (NaN where there are too few to tell).
    """
    without = [np.expm1(values * np.log(base)) for base in BASES]
    return np.array(
        [values.size, values.sum(), np.median(values), *(own.sum() for own in without), *map(_are_multiples, without)]
    )


def _are_multiples(values: np.ndarray) -> float:
    """Return 1 where all values are multiples of the smallest, 0 where not, NaN where there are too few to tell."""
    ratios = values / values.min()
    ratios = ratios[ratios < LARGEST_RATIO]
    if len(ratios) < FEWEST_VALUES or np.ptp(ratios) < 0.5:  # all alike
        return np.nan
    return float((np.abs(ratios - np.rint(ratios)) < 2e-3 * ratios).all())


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, or NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's correlation, or 0 where one of the two does not vary."""
    from scipy.stats import rankdata

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
