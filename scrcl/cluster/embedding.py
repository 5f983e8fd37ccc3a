"""Choose what is clustered: the trained embeddings, the PCs, or both joined."""

from __future__ import annotations

import numpy as np

from scrcl.method.training import Embedded


def embedding(found: Embedded, pcs: np.ndarray, choice: str, order: np.ndarray | None = None) -> np.ndarray:
    """Return what is clustered, [N, d] float32.

    Parameters
    ----------
    found
        The trained embeddings.
    pcs
        [N, d], the PCs; for spots, the means of the PCs over the neighbourhood.
    choice
        'encoder' is [E1 | E2], and 'refined' is [Z1 | Z2], as in the paper. 'pcs' is the PCs alone. 'joint' and
        'joint-refined' join either of the first two with the PCs, each half centred and scaled to a total variance of
        1. The PCs bring back how much a cell expresses, and the differences of rare types that the graph has smoothed
        away. In 'joint' the rows of E are shortened (`shortened_rows`). 'joint-or-pcs' and 'views' mean
        'joint' here.
    order
        [N], the order of the cells in `found`; None when it is the order of `pcs`.
    """
    if choice == "pcs":
        return pcs
    points = found.refined if choice in ("refined", "joint-refined") else found.encoder
    if choice in ("encoder", "refined"):
        return in_order_of_cells(points, order)
    return beside_pcs(points, pcs, None if choice == "joint-refined" else found.lengths, order)


def beside_pcs(
    points: np.ndarray, pcs: np.ndarray, lengths: np.ndarray | None = None, order: np.ndarray | None = None
) -> np.ndarray:
    """Return points beside the PCs, each half centred and scaled to a total variance of 1, [N, d] float32.

    Everything is done in the array that is returned, since with a million cells each copy takes 2 GiB.

    Parameters
    ----------
    points
        [N, d], in the order of training.
    pcs
        [N, d], in the order of the cells.
    lengths
        [N, 2], in the order of training, by which the rows of [E1 | E2] are shortened; None to leave them.
    order
        [N], the cell of each row in training; None where it is the order of the cells.
    """
    width = points.shape[1]
    joined = np.empty((len(pcs), width + pcs.shape[1]), dtype=np.float32)
    left, right = joined[:, :width], joined[:, width:]
    left[slice(None) if order is None else order], right[:] = points, pcs
    if lengths is not None:
        _shorten(left, in_order_of_cells(lengths, order))
    for half in (left, right):
        to_unit_variance(half)
    return joined


def in_order_of_cells(points: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Return rows that are in the order of training in the order of the cells; as they are where `order` is None.

    Parameters
    ----------
    points
        [N, d].
    order
        [N], the cell of each row.
    """
    if order is None:
        return points
    in_order = np.empty_like(points)
    in_order[order] = points
    return in_order


def shortened_rows(encoder: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Shorten the rows of E where the rows of H were short: H / sqrt(|H|^2 + median |H|^2) instead of H / |H|.

    The encoders see centred values. If most cells are of one type, the centre lies within it. The cells of that type
    then have short rows that point anywhere, and at unit length they would spread over the whole sphere.

    Parameters
    ----------
    encoder
        [N, 2H], [E1 | E2].
    lengths
        [N, 2], |H1| and |H2|.

    Returns
    -------
    [N, 2H], of the type of `encoder`.
    """
    short = encoder.copy()
    _shorten(short, lengths)
    return short


def _shorten(encoder: np.ndarray, lengths: np.ndarray) -> None:
    """Do in place what `shortened_rows` does."""
    squares = lengths.astype(np.float64) ** 2
    # E is H / |H|, so this factor turns it into H / sqrt(|H|^2 + median |H|^2).
    half = np.maximum(np.median(squares, axis=0), np.finfo(np.float64).tiny)
    share = np.sqrt(squares / (squares + half)).astype(encoder.dtype)
    for of_view, own in zip(np.split(encoder, 2, axis=1), share.T):  # parts of the same memory
        of_view *= own[:, None]


def to_unit_variance(points: np.ndarray) -> None:
    """Centre the columns and scale them all by one factor, in place, so that their variances sum to 1.

    Parameters
    ----------
    points
        [N, d].
    """
    points -= points.mean(axis=0)
    blocks = np.array_split(points, -(-len(points) // 100_000))  # bounds the memory that the squares take
    lengths = np.concatenate([(block**2).sum(axis=1, dtype=np.float64) for block in blocks])
    points /= max(np.sqrt(lengths.mean()), np.finfo(np.float32).tiny)
