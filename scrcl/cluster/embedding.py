"""What is clustered: the trained embeddings, the PCs, or both beside each other."""

from __future__ import annotations

import numpy as np

from scrcl.method.training import Embedded


def embedding(found: Embedded, pcs: np.ndarray, choice: str, order: np.ndarray | None = None) -> np.ndarray:
    """What is clustered, [N, d] float32.

    'encoder' is [E1 | E2], 'refined' [Z1 | Z2], as in the paper; 'pcs' are the PCs alone. 'joint' and 'joint-refined' are either
    of the first two beside the PCs (for spots, PCs of the neighbourhood), the trained half and the PCs each centred and
    scaled to a total variance of 1: the PCs bring back how much a cell expresses, and what the graph has smoothed
    away of rare types. In 'joint' the rows of E are shortened (shortened_rows); 'joint-or-pcs' is 'joint' here. order: that of the cells in found, None for that of the PCs.
    """
    if choice == "pcs":
        return pcs
    points = found.refined if choice in ("refined", "joint-refined") else found.encoder
    if choice in ("joint", "joint-or-pcs"):
        points = shortened_rows(points, found.lengths)
    if order is not None:
        in_order = np.empty_like(points)
        in_order[order] = points
        points = in_order  # what was shortened is freed
    if choice.startswith("joint"):
        return np.hstack([unit_variance(points), unit_variance(pcs)])
    return points


def shortened_rows(encoder: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[E1 | E2], [N, 2H], with rows of E shorter where those of H were: H / sqrt(|H|^2 + median |H|^2) in place of H / |H|.

    The encoders see centred values. Where most cells are of one type, the centre lies in it: its cells have short rows that point
    anywhere, and at unit length they spread over the whole sphere. lengths: [N, 2], |H1| and |H2|.
    """
    squares = lengths.astype(np.float64) ** 2
    half = np.maximum(np.median(squares, axis=0), np.finfo(np.float64).tiny)
    share = np.sqrt(squares / (squares + half)).astype(encoder.dtype)
    return (encoder.reshape(len(encoder), 2, -1) * share[:, :, None]).reshape(encoder.shape)


def unit_variance(points: np.ndarray) -> np.ndarray:
    """Centred, with variances of the columns that sum to 1; float32."""
    centred = points - points.mean(axis=0)
    blocks = np.array_split(centred, -(-len(centred) // 100_000))  # a block's squares at a time, not all
    lengths = np.concatenate([(block**2).sum(axis=1, dtype=np.float64) for block in blocks])
    centred /= max(np.sqrt(lengths.mean()), np.finfo(np.float32).tiny)
    return centred.astype(np.float32, copy=False)
