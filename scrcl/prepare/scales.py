"""Describe spots by themselves and by the means over neighbourhoods of several sizes."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scrcl.contents.places import section_members
from scrcl.prepare import graphs, halving
from scrcl.runtime import limited_threads

RINGS = (6, 18)  # spots in the first ring of a hexagonal grid, and in two
WIDE = 1 / 25  # of the spots of a section: the finer the spots, the more of them make up a domain
DIMS = 50  # components that are kept
PATCHES = 2_500  # of fewer than twice as many spots in a section each is counted, of more whole patches
ROWS = 50_000  # spots whose patches are looked up at a time
TINY = np.finfo(np.float32).tiny


def at_scales(
    points: np.ndarray,
    places: np.ndarray,
    sections: np.ndarray | None = None,
    *,
    rings: tuple[int, ...] = RINGS,
    wide: bool = True,
) -> np.ndarray:
    """Return the leading components of points beside their means over neighbourhoods of several sizes.

    A spot has 6 spots in its first ring and 18 in two, on Visium's grid and about so elsewhere. Where `WIDE` of a
    section is more than that, the mean over so many spots is added. Each scale has the same total variance.

    Parameters
    ----------
    points
        [N, d].
    places
        [N, 2 or 3], the positions of the spots.
    sections
        [N], the section of each spot; None for a single section.
    rings
        How many nearest spots each mean is taken over, besides the wide one.
    wide
        Whether the wide mean may be added.

    Returns
    -------
    [N, up to DIMS] float32.
    """
    scales = [points, *(graphs.neighbour_mean(points, graphs.nearest_spots(places, k, sections)) for k in rings)]
    if wide and max(map(len, section_members(sections, len(points)))) * WIDE > RINGS[-1]:
        scales.append(wide_mean(points, places, sections))
    centred = [scale - scale.mean(axis=0) for scale in scales]
    side_by_side = np.hstack([scale / max(np.sqrt(scale.var(axis=0).sum()), TINY) for scale in centred])
    pca = PCA(min(DIMS, *side_by_side.shape), svd_solver="covariance_eigh")
    with limited_threads(1):  # so that the order of sums does not depend on the number of threads
        return pca.fit_transform(side_by_side.astype(np.float64)).astype(np.float32)


def wide_mean(points: np.ndarray, places: np.ndarray, sections: np.ndarray | None = None) -> np.ndarray:
    """Return the mean over each spot and the nearest spots that make up `WIDE` of its section, or two rings if more.

    Time and memory grow linearly with the spots. Of many spots, the mean is that of the nearest patches of tissue,
    which hold about as many spots.

    Parameters
    ----------
    points, places, sections
        As for `at_scales`.

    Returns
    -------
    [N, d], in the type of points.
    """
    means = np.empty_like(points)
    for member in section_members(sections, len(points)):
        means[member] = _wide_mean_of_section(points[member].astype(np.float64), places[member])
    return means


def _wide_mean_of_section(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return `wide_mean` of the spots of one section."""
    n = len(points)
    patches = halving.parts(places.astype(np.float64), max(1, n // PATCHES))
    in_order, sizes = np.concatenate(patches), np.array([len(patch) for patch in patches])
    starts = np.cumsum(sizes) - sizes
    sums = np.add.reduceat(points[in_order], starts)
    centres = np.add.reduceat(places[in_order].astype(np.float64), starts) / sizes[:, None]
    # The patch that a spot is in comes on top, as the spot itself does where patches are single spots.
    k = min(1 + round(max(WIDE * n, RINGS[-1]) / sizes.mean()), len(patches))
    index = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(centres)
    means = np.empty_like(points)
    for start in range(0, n, ROWS):
        near = index.kneighbors_graph(places[start : start + ROWS])
        means[start : start + ROWS] = (near @ sums) / (near @ sizes)[:, None]
    return means
