"""Find the positions of the spots in an AnnData, and the sections they belong to."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from scrcl.contents import values
from scrcl.keys import IN_TISSUE, LIBRARY, LOG1P, POSITION_COLUMNS, POSITIONS, SPATIAL
from scrcl.messages import UserError, log, one_line

# Distance between neighbouring columns and between neighbouring rows of Visium's grid, in units of the distance
# between neighbouring spots.
HEXAGONAL = np.array([1 / 2, np.sqrt(3) / 2])
FARTHEST = 1e100  # largest coordinate allowed: squares, and sums of squares, stay finite


def coordinates(adata: ad.AnnData) -> np.ndarray:
    """Return the positions of the spots in the data's own unit.

    Parameters
    ----------
    adata
        Spots x genes. Positions are read from obsm['spatial'] (or X_spatial, or spatial_fov), or else from x and y (or
        the like) in obs.

    Returns
    -------
    [N, 2 or 3] float64, NaN where a position is missing.

    Raises
    ------
    UserError
        When there are no coordinates, or they are not numbers, have another shape or are too large.
    """
    pair = next((pair for pair in POSITION_COLUMNS if set(pair) <= set(adata.obs)), None)
    try:
        places: dict[str, np.ndarray] = {key: _numbers(adata.obsm[key]) for key in POSITIONS if key in adata.obsm}
        if places:
            # CosMx readers keep two sets: positions within a field of view and positions on the slide. The slide is
            # wider.
            rivals: list[str] = [key for key in ("spatial", "spatial_fov") if key in places] or list(places)
            key = max(rivals, key=lambda key: _extent(places[key]))
            points = places[key]
        elif pair is not None:
            key = f"{pair[0]}, {pair[1]}"
            points = np.column_stack([adata.obs[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in pair])
            if pair == ("array_col", "array_row"):
                points = points * HEXAGONAL if _is_hexagonal(points) else points
        else:
            raise UserError(
                "The data have no coordinates: no obsm['spatial'], and no columns x and y (or the like) in obs; "
                "add adata.obsm['spatial'], or analyse them as cells, which need no positions."
            )
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The coordinates are not numbers ({one_line(error)}); correct adata.obsm['spatial'], or x and y in obs."
        ) from error
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise UserError(f"The coordinates in {key} have the shape {points.shape}; two or three columns are needed.")
    points = _flat(points, key)
    points = np.where(np.isfinite(points), points, np.nan)
    if (np.abs(points) > FARTHEST).any():
        raise UserError(
            f"The coordinates in {key} are beyond {FARTHEST:g}, too large to compute distances; correct them."
        )
    return points


def _numbers(places: Any) -> np.ndarray:
    """Return positions as float64; of a table, the columns of numbers, and x, y and z alone where it has them.

    Raises
    ------
    TypeError, ValueError
        When they are not numbers.
    """
    if isinstance(places, pd.DataFrame):
        by_lower = {str(name).lower(): name for name in reversed(list(places))}
        named = [by_lower[name] for name in "xyz" if name in by_lower]
        numeric = list(places.select_dtypes("number"))
        left_out = [str(name) for name in places if name not in (named if len(named) > 1 else numeric)]
        if left_out and len(numeric) > 1:
            places = places[named if len(named) > 1 else numeric]
            log.info("The columns %s of the positions are no coordinates: left out.", ", ".join(left_out))
        return places.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(places, dtype=np.float64)


def _flat(points: np.ndarray, key: str) -> np.ndarray:
    """Return the positions without a third column that is no coordinate, and say so where there is one or it is kept.

    A column that is the same everywhere, missing, or a running number from spot to spot is no coordinate.
    """
    if points.shape[1] == 2:
        return points
    third = points[:, 2]
    known = third[np.isfinite(third)]
    steps = np.diff(third)
    if known.size == 0 or np.ptp(known) == 0 or (len(steps) > 2 and (steps == steps[0]).all()):
        log.info("The third column of %s is no coordinate: left out.", key)
        return points[:, :2]
    log.info("Positions have three coordinates, from %s.", key)
    return points


def _is_hexagonal(points: np.ndarray) -> bool:
    """Return whether columns and rows are those of Visium's hexagonal grid.

    There, every other row has spots in even columns only.
    """
    parity = points[np.isfinite(points).all(axis=1)].sum(axis=1) % 2
    return len(parity) > 1 and bool((parity == parity[0]).all())


def _extent(points: np.ndarray) -> float:
    """Return the difference between the largest and the smallest coordinate; 0 where none is known."""
    known = points[np.isfinite(points)]
    return float(np.ptp(known)) if known.size else 0.0


def placed(adata: ad.AnnData) -> ad.AnnData:
    """Return a view of the spots that have a position, with the position in obsm['spatial'].

    Parameters
    ----------
    adata
        Spots x genes. It stays as it is: the view is of a shallow copy.

    Raises
    ------
    UserError
        When fewer than 3 spots have a position, and as `coordinates` does; also when barcodes repeat or a sparse matrix
        is damaged.
    """
    values.require_names(adata.obs_names, "spot barcode", "obs_names_make_unique")
    values.require_sound_indices(adata)
    points = coordinates(adata)
    there = ~np.isnan(points).any(axis=1)
    if not there.all():
        log.info("%d of %d spots have no position: left out, without a label.", (~there).sum(), adata.n_obs)
    inside = on_tissue(adata.obs)
    if not inside.all():
        log.info("%d of %d spots are outside the tissue: left out, without a label.", (~inside).sum(), adata.n_obs)
    used = there & inside
    if used.sum() < 3:
        raise UserError(
            f"Only {used.sum()} of {adata.n_obs} spots have a position on the tissue; at least 3 are needed."
        )
    shallow = ad.AnnData(
        adata.X, obs=adata.obs, var=adata.var, layers=values.layers_of(adata), raw=adata.raw, obsm=adata.obsm
    )
    if LOG1P in adata.uns:
        shallow.uns[LOG1P] = adata.uns[LOG1P]
    shallow.obsm[SPATIAL] = points
    return shallow[used]


def on_tissue(obs: pd.DataFrame) -> np.ndarray:
    """Return which spots are on the tissue, as [N] booleans: those for which obs['in_tissue'], if there, is not 0."""
    if IN_TISSUE not in obs:
        return np.ones(len(obs), dtype=bool)
    return ~obs[IN_TISSUE].astype(str).str.lower().isin(["0", "0.0", "false", "no"]).to_numpy()


def sections(obs: pd.DataFrame, section_key: str) -> pd.Series | None:
    """Return the section of every spot as strings, or None where all spots are in one section.

    Parameters
    ----------
    obs
        The table of the spots.
    section_key
        A column of obs, 'none', or 'auto' for library_id (squidpy's name).

    Raises
    ------
    UserError
        When the column is not in obs or has missing values.
    """
    if section_key == "none" or (section_key == "auto" and LIBRARY not in obs):
        return None
    key = LIBRARY if section_key == "auto" else section_key
    if key not in obs:
        raise UserError(
            f"There is no obs column {key!r} to tell sections apart; the columns are {', '.join(map(str, obs))}."
        )
    if obs[key].isna().any():
        raise UserError(f"The section of {obs[key].isna().sum()} spots is missing in obs[{key!r}]; fill it in.")
    found = obs[key].astype(str)
    return found if found.nunique() > 1 else None


def section_members(sections: np.ndarray | None, n_spots: int) -> list[np.ndarray]:
    """Return the indices of the spots of every section, or of all spots where `sections` is None."""
    if sections is None:
        return [np.arange(n_spots)]
    return [np.flatnonzero(sections == name) for name in np.unique(sections)]
